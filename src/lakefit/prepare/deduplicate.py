"""Exact deduplication inside a bucket, where all rows of equal key meet."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.prepare.arrays import one_array
from lakefit.prepare.blocks import FILE, KEY_HIGH, KEY_LOW, ROW_HIGH, ROW_LOW, one_table
from lakefit.prepare.hashing import HIGH_SEED, hash_rows
from lakefit.prepare.spill import Rows

OCCURRENCE = "_occurrence"


@dataclass(frozen=True, slots=True)
class Deduplication:
    """`content`: the columns that make a row; `order`: (column, largest wins) or None; `remove`: drop duplicates.

    most_complete: the row with the fewest NULLs wins.
    """

    content: tuple[str, ...]
    order: tuple[str, bool] | None
    most_complete: bool
    remove: bool


def row_order(rows: Rows, how: Deduplication) -> NDArray[np.int64]:
    """Return the places of the rows by key hash; among equal keys the row to keep first, then by content: never by
    arrival."""
    high = rows.select([KEY_HIGH])[KEY_HIGH].to_numpy()
    order = np.argsort(high)
    high = high[order]
    meets = np.zeros(len(high), bool)
    meets[1:] = high[1:] == high[:-1]
    starts = np.flatnonzero(~meets)
    meets[:-1] |= meets[1:]
    # Only where hashes meet has more to be looked at.
    tied = np.flatnonzero(meets)
    if len(tied):
        run = np.searchsorted(starts, tied, side="right")
        order[tied] = order[tied][_order_of_tied(rows, order[tied], run, how)]
    return order


def occurrences(table: pa.Table) -> pa.Array:
    """Return the number, from 0, of each row among those of the sorted table with an equal identity, as int32."""
    return pa.array(_number_in_run(_starts(table, ROW_HIGH, ROW_LOW)).astype(np.int32))


def first_of_key(table: pa.Table, how: Deduplication) -> NDArray[np.int64]:
    """Return for each row of a sorted table the number of the row kept for its key; its own where it is kept."""
    rows = len(table)
    if not how.remove:
        return np.arange(rows)
    starts = _starts(table, KEY_HIGH, KEY_LOW)
    return np.maximum.accumulate(np.where(starts, np.arange(rows), 0)) if rows else np.arange(0)


def _order_of_tied(
    rows: Rows, places: NDArray[np.int64], run: NDArray[np.int64], how: Deduplication
) -> NDArray[np.int64]:
    """Return the order of rows in runs of equal `KEY_HIGH`."""
    deciding = (how.order[0],) if how.order is not None else ()
    names = list(dict.fromkeys((KEY_LOW, ROW_HIGH, ROW_LOW, FILE, *deciding, *how.content)))
    parts = [_deciding(rows.take(some, names), how) for some in rows.slices(places)]
    table = one_table(parts).append_column("run", pa.array(run))
    order = [("run", "ascending"), ("key", "ascending")]
    if how.order is not None:
        # A row without the deciding value never wins over one that has it.
        order += [("undecided", "ascending"), ("decides", "descending" if how.order[1] else "ascending")]
    if how.most_complete:
        order += [("nulls", "ascending")]
    # Of equal rows the file decides no more than which file the ledger counts as whose.
    order += [(name, "ascending") for name in ("content", "hi", "lo", "file")]
    found: NDArray[np.int64] = pc.sort_indices(table, sort_keys=order).to_numpy().astype(np.int64)
    return found


def _deciding(table: pa.Table, how: Deduplication) -> pa.Table:
    """Return what decides between rows of equal key."""
    columns: dict[str, pa.Array | pa.ChunkedArray | NDArray[Any]] = {
        "key": table[KEY_LOW],
        "content": hash_rows([table[name] for name in how.content], len(table), HIGH_SEED),
        "hi": table[ROW_HIGH],
        "lo": table[ROW_LOW],
        "file": one_array(table[FILE]).cast(pa.string()),
    }
    if how.order is not None:
        columns |= {"undecided": pc.is_null(table[how.order[0]]), "decides": table[how.order[0]]}
    if how.most_complete:
        columns["nulls"] = np.sum([pc.is_null(table[name]).to_numpy() for name in how.content], axis=0)
    return pa.table(columns)


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
