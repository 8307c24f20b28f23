"""The batches of an epoch, some of them at once: rows gathered from the row groups that are open."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from lakefit.errors import FeedError
from lakefit.feed.buffers import Buffers
from lakefit.feed.order import EpochOrder, Runs, Visit
from lakefit.feed.reader import TIMEOUT_S, Arena, Block, Field, KnownFiles, RowGroup, read_row_groups

if TYPE_CHECKING:
    from lakefit.dataset.object_path import AnyPath
    from lakefit.dataset.store import Store
    from lakefit.feed.cache import Cache

# Rows, and bytes, that are gathered at once: enough that what is done once for each costs nothing beside them.
_ROWS, _BYTES = 131_072, 1 << 26


@dataclass(frozen=True, slots=True)
class Batches:
    """Some batches, one after another.

    first: the number of the first. runs: what they were meant to be made of. rows: by field, (sum of runs.sizes, ...):
    numpy's arrays, whose memory is used again when nobody refers to one or a part of it, and Arrow's where rows differ
    in length.
    """

    first: int
    runs: Runs
    rows: dict[str, Any]


@contextmanager
def read_batches(
    dataset: "AnyPath | Store",
    order: EpochOrder,
    fields: Sequence[Field],
    *,
    row_order: Callable[[RowGroup], NDArray[np.int64]] | None,
    first_batch: int = 0,
    timeout_s: float = TIMEOUT_S,
    buffers: Buffers,
    known: KnownFiles,
    keeping: Arena | None = None,
    cache: "Cache | None" = None,
) -> Iterator[Iterator[Batches]]:
    """All batches of an epoch from `first_batch` on. Raises FeedError as read_row_groups does."""
    at_once = batches_at_once(order, fields)
    table = order.visit_table(first_batch, near=at_once)
    visits = [Visit(*visit) for visit in table.tolist()]
    groups = [order.groups[visit.group] for visit in visits]
    held = most_held(table, at_once, first_batch)
    with (
        ThreadPoolExecutor(1, "lakefit-gather") as helper,
        read_row_groups(
            dataset,
            groups,
            fields,
            held=held,
            buffers=buffers,
            known=known,
            keeping=keeping,
            cache=cache,
            row_order=row_order,
            timeout_s=timeout_s,
        ) as blocks,
    ):

        def gathered() -> Iterator[Batches]:
            waiting = list(visits)[::-1]
            open_now: dict[int, tuple[int, Block]] = {}
            for first in range(first_batch, order.batches, at_once):
                end = min(first + at_once, order.batches)
                while waiting and waiting[-1].first_batch < end:
                    visit = waiting.pop()
                    block = next(blocks, None)
                    if block is None:
                        raise FeedError(f"The reader ended {len(waiting) + 1} row groups before the epoch's end.")
                    open_now[visit.group] = (visit.last_batch, block)
                runs = order.runs(first, end)
                yield Batches(first, runs, _gather(runs, open_now, fields, buffers, helper))
                for group in [group for group, (last, _) in open_now.items() if last < end]:
                    open_now.pop(group)[1].release()

        yield gathered()


def batches_at_once(order: EpochOrder, fields: Sequence[Field]) -> int:
    """Return how many batches are gathered at once."""
    rows = min(_ROWS, _BYTES // sum(field.row_bytes for field in fields))
    return max(1, rows * order.workers // order.batch_size)


def most_held(visits: NDArray[np.int64], at_once: int, first_batch: int = 0) -> int:
    """Return how many row groups are open at a time at most, where so many batches from `first_batch` on are gathered
    at once. visits: as `EpochOrder.visit_table` has them."""
    if not len(visits):
        return 0
    begins = (visits[:, 1] - first_batch) // at_once
    ends = (visits[:, 2] - first_batch) // at_once + 1
    changes = np.bincount(begins, minlength=int(ends.max()) + 1) - np.bincount(ends)
    return int(np.cumsum(changes).max())


def _gather(
    runs: Runs, open_now: dict[int, tuple[int, Block]], fields: Sequence[Field], buffers: Buffers, helper: Executor
) -> dict[str, Any]:
    blocks = [open_now[group][1] for group in runs.group.tolist()]
    starts, stops = runs.start.tolist(), runs.stop.tolist()
    pieces = [block.order[start:stop] for block, start, stop in zip(blocks, starts, stops, strict=True)]
    rows = buffers.empty((sum(map(len, pieces)),), "int64")
    dense = [field for field in fields if field.variable is None]
    variable = [field for field in fields if field.variable is not None]
    out: dict[str, Any] = {field.name: buffers.empty((len(rows), *field.row_shape), field.dtype) for field in dense}
    if not pieces:
        out |= _no_rows(variable)
        return {field.name: out[field.name] for field in fields}
    np.concatenate(pieces, out=rows)
    arena = blocks[0].arena

    def take(name: str) -> None:
        # "clip" because "raise" makes numpy work on a copy; all places are inside.
        np.take(arena.arrays[name], rows, axis=0, out=out[name], mode="clip")

    # The largest on a thread of its own, or one core would wait for the other. The others in order: what is taken last,
    # the positions, is in the core's cache when the receipt looks at it.
    largest = max(out, key=lambda name: out[name].nbytes)
    taken = helper.submit(take, largest)
    for name in out:
        if name != largest:
            take(name)
    if variable:
        from lakefit.feed.variable import joined

        for field in variable:
            of_place = arena.variable[field.name]
            out[field.name] = joined([of_place[block.place] for block in blocks], starts, stops)
    taken.result()
    return {field.name: out[field.name] for field in fields}


def _no_rows(fields: Sequence[Field]) -> dict[str, Any]:
    """Return arrays of no rows; nothing is loaded where there are no such fields."""
    if not fields:
        return {}
    from lakefit.feed.variable import no_rows

    return {field.name: no_rows(field.dtype) for field in fields}
