"""Exact deduplication inside a bucket, where all rows of equal key meet."""

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.prepare.blocks import KEY_HIGH, KEY_LOW, ROW_HIGH, ROW_LOW
from lakefit.prepare.hashing import HIGH_SEED, hash_rows

OCCURRENCE = "_occurrence"
_CONTENT, _UNDECIDED, _NULLS = "_content", "_undecided", "_nulls"


@dataclass(frozen=True, slots=True)
class Deduplication:
    """`content`: the columns that make a row; `order`: (column, largest wins) or None; `remove`: drop duplicates.

    most_complete: the row with the fewest NULLs wins.
    """

    content: tuple[str, ...]
    order: tuple[str, bool] | None
    most_complete: bool
    remove: bool


def sort_rows(table: pa.Table, how: Deduplication) -> pa.Table:
    """Return the rows by key hash; among equal keys the row to keep first, then by content: never by arrival.

    Adds `_occurrence`: the number, from 0, of a row among the rows of the bucket with an equal identity.
    """
    table = table.append_column(_CONTENT, pa.array(_content_where_keys_meet(table, how.content)))
    keys = [(KEY_HIGH, "ascending"), (KEY_LOW, "ascending")]
    if how.order is not None:
        # A row without the deciding value never wins over one that has it.
        table = table.append_column(_UNDECIDED, pc.is_null(table[how.order[0]]))
        keys += [(_UNDECIDED, "ascending"), (how.order[0], "descending" if how.order[1] else "ascending")]
    if how.most_complete:
        nulls = sum(pc.is_null(table[name]).to_numpy().astype(np.int32) for name in how.content)
        table = table.append_column(_NULLS, pa.array(nulls))
        keys += [(_NULLS, "ascending")]
    keys += [(_CONTENT, "ascending"), (ROW_HIGH, "ascending"), (ROW_LOW, "ascending")]
    table = table.take(pc.sort_indices(table, sort_keys=keys))
    table = table.select(
        [name for name in table.column_names if name not in (_CONTENT, _UNDECIDED, _NULLS)]
    ).combine_chunks()
    occurrence = _number_in_run(_starts(table, ROW_HIGH, ROW_LOW)).astype(np.int32)
    return table.append_column(OCCURRENCE, pa.array(occurrence))


def first_of_key(table: pa.Table, how: Deduplication) -> NDArray[np.int64]:
    """Return for each row of a sorted table the number of the row kept for its key; its own where it is kept."""
    rows = len(table)
    if not how.remove:
        return np.arange(rows)
    starts = _starts(table, KEY_HIGH, KEY_LOW)
    return np.maximum.accumulate(np.where(starts, np.arange(rows), 0)) if rows else np.arange(0)


def _content_where_keys_meet(table: pa.Table, content: tuple[str, ...]) -> NDArray[np.uint64]:
    """Hash the content of the rows that share their key with another; the others need none to be ordered."""
    rows = len(table)
    hashes = np.zeros(rows, np.uint64)
    high, low = table[KEY_HIGH].to_numpy(), table[KEY_LOW].to_numpy()
    order = np.lexsort((low, high))
    same = np.zeros(rows, bool)
    same[1:] = (high[order][1:] == high[order][:-1]) & (low[order][1:] == low[order][:-1])
    same[:-1] |= same[1:]
    meeting = np.sort(order[same])
    if len(meeting):
        tied = table.select(list(content)).take(pa.array(meeting))
        hashes[meeting] = hash_rows([tied[name] for name in content], len(meeting), HIGH_SEED)
    return hashes


def _starts(table: pa.Table, *names: str) -> NDArray[np.bool_]:
    """Return where a row differs from the row before it in any of the columns; the first row does."""
    starts = np.zeros(len(table), bool)
    starts[:1] = True
    for name in names:
        values = table[name].to_numpy()
        starts[1:] |= values[1:] != values[:-1]
    return starts


def _number_in_run(starts: NDArray[np.bool_]) -> NDArray[np.int64]:
    places = np.arange(len(starts))
    return places - np.maximum.accumulate(np.where(starts, places, 0)) if len(starts) else places
