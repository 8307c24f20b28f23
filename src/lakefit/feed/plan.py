"""What feeding a split will take: steps, remainder, memory, row groups, bytes, and what is amiss; no file is read."""

from dataclasses import dataclass
from math import ceil
from typing import Literal

import numpy as np

from lakefit.dataset.manifest import Manifest
from lakefit.feed.gather import batches_at_once, most_held
from lakefit.feed.order import EpochOrder, epoch_groups
from lakefit.feed.reader import BLOCKS_AHEAD
from lakefit.feed.split import fields_of, row_groups

# Threads that decode, and gatherings on their way through TensorFlow.
_READERS, _GATHERED = 2, 5


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """One epoch of a split.

    steps: batches. remainder: rows of the last one, or of none where they are dropped; 0 where all are full. share:
    rows of a batch for each worker. row_groups: of the split. read: row groups that each worker reads. memory: bytes of
    one worker for rows. row_bytes: of a row in memory. file_bytes: that each worker reads. warnings: what will work and
    is probably not meant.
    """

    rows: int
    steps: int
    remainder: int
    share: tuple[int, ...]
    row_groups: int
    read: tuple[int, ...]
    memory: int
    row_bytes: int
    file_bytes: tuple[int, ...]
    warnings: tuple[str, ...]


def feed_plan(
    manifest: Manifest, split: str, *, batch_size: int, lanes: int, remainder: Literal["keep", "drop"], workers: int
) -> FeedPlan:
    """Return the plan of one epoch, the same for all. Raises ValueError if the batch can't be shared."""
    if not 1 <= workers <= batch_size:
        raise ValueError(f"a batch of {batch_size} rows can't be shared by {workers} workers")
    groups = tuple(epoch_groups(row_groups(manifest, split), 0, 0))
    files = {file.path: file.bytes / max(file.rows, 1) for file in manifest.splits[split].files}
    fields = fields_of(manifest)
    row_bytes = sum(np.dtype(field.dtype).itemsize * int(np.prod(field.row_shape)) for field in fields)
    largest = max(group.rows for group in groups)
    shares, read, file_bytes, memory = [], [], [], 0
    for worker in range(workers):
        order = EpochOrder(groups, batch_size, lanes, worker, workers)
        at_once = batches_at_once(order, fields)
        visits = order.visits(near=at_once)
        shares.append((worker + 1) * batch_size // workers - worker * batch_size // workers)
        read.append(len(visits))
        file_bytes.append(round(sum(files[groups[v.group].file] * groups[v.group].rows for v in visits)))
        places = most_held(visits, at_once) + _READERS + BLOCKS_AHEAD
        gathered = min(at_once * max(shares), order.rows)
        # A row's place in the order takes 8 bytes more, once for its order and once while it is sorted.
        memory = max(memory, places * largest * (row_bytes + 16) + _GATHERED * gathered * row_bytes)
    rows = manifest.splits[split].rows
    return FeedPlan(
        rows=rows,
        steps=rows // batch_size if remainder == "drop" else ceil(rows / batch_size),
        remainder=rows % batch_size,
        share=tuple(shares),
        row_groups=len(groups),
        read=tuple(read),
        memory=memory,
        row_bytes=row_bytes,
        file_bytes=tuple(file_bytes),
        warnings=tuple(_warnings(rows, len(groups), batch_size, lanes, remainder, workers)),
    )


def _warnings(rows: int, groups: int, batch_size: int, lanes: int, remainder: str, workers: int) -> list[str]:
    found = []
    if remainder == "drop" and rows < batch_size:
        found.append(f"No batch is left: the split has {rows:,} rows, and a batch {batch_size:,}; keep the remainder.")
    if remainder == "keep" and 0 < rows % batch_size < workers:
        found.append(f"The last batch has {rows % batch_size} rows for {workers} workers: some get none of it.")
    if workers > 1 and (lanes % workers or batch_size % lanes):
        found.append(
            f"Every worker reads more row groups than its own: {workers} workers would have to divide {lanes} lanes, "
            f"and these the batch size of {batch_size:,}."
        )
    if groups < lanes:
        found.append(
            f"Row groups of the split: {groups}, for {lanes} lanes: a batch mixes no more of them. Lower "
            "output.rows_per_group for more."
        )
    elif workers > 1 and groups < 2 * workers * (lanes // workers or 1):
        found.append(f"{groups} row groups are few for {workers} workers: each reads parts of those of others.")
    return found
