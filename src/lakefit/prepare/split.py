"""The split of a row: a function of its values and the seed alone, so that it stays as data grows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from lakefit.config.rows import SPLITS, Split, TimeSplit
from lakefit.errors import LakefitError
from lakefit.prepare.blocks import KEY_HIGH, KEY_LOW
from lakefit.prepare.hashing import Hashes, hash_rows, mix64, mix_number

IN_GAP, NO_SPLIT = -1, -2
"""In place of a split: the row lies in a gap of `split.time`; its column does not say where it belongs."""
_SALT = 0x53504C4954


def assign_split(table: pa.Table, split: Split) -> NDArray[np.int8]:
    """Return 0, 1 or 2 (train, validation, test) per row, or `IN_GAP` or `NO_SPLIT`; shape (rows,).

    Equal values of `by`, or an equal deduplication key, get one split.
    """
    if split.time is not None:
        return _by_time(table[split.time.column], split.time)
    if split.column is not None:
        found = pc.index_in(table[split.column].cast(pa.string()), value_set=pa.array(SPLITS))
        said: NDArray[np.int8] = pc.fill_null(found, NO_SPLIT).to_numpy().astype(np.int8)
        return said
    group = group_of(table, split)
    if group is None:
        salt: Hashes | np.uint64 = np.uint64(mix_number(_SALT, split.seed))
        if split.stratify is not None:
            salt = hash_rows([table[name] for name in split.stratify], len(table), mix_number(_SALT, split.seed, 1))
        group = mix64(table[KEY_HIGH].to_numpy() ^ salt)
    if split.folds is None:
        return np.searchsorted(_bounds((split.train, split.validation)), group, side="right").astype(np.int8)
    part = np.searchsorted(_bounds([1 / split.folds] * (split.folds - 1)), group, side="right")
    test, validation = part == split.fold, part == (split.fold + 1) % split.folds
    return np.where(test, 2, np.where(validation, 1, 0)).astype(np.int8)


def check_keys(table: pa.Table, assigned: NDArray[np.int8]) -> None:
    """Raise LakefitError where neighbours of one deduplication key are in two splits; rows are sorted by their key."""
    high, low = table[KEY_HIGH].to_numpy(), table[KEY_LOW].to_numpy()
    same = (high[1:] == high[:-1]) & (low[1:] == low[:-1])
    if (same & (assigned[1:] != assigned[:-1])).any():
        raise LakefitError("split: rows of one deduplication key are in two splits. Nothing was published.")


def group_of(table: pa.Table, split: Split) -> Hashes | None:
    """Return a hash of each row's values of `by`, or None where there is no `by`."""
    if split.by is None:
        return None
    return hash_rows([table[name] for name in split.by], len(table), mix_number(_SALT, split.seed))


def _bounds(shares: Sequence[float]) -> Hashes:
    """Return the hashes at which the next split begins."""
    return np.array([int(total * 2**53) << 11 for total in np.cumsum(shares)], np.uint64)


def _by_time(column: pa.ChunkedArray, split: TimeSplit) -> NDArray[np.int8]:
    if split.numeric:
        values = column.cast(pa.float64())
    else:
        # Microseconds as whole numbers: float64 holds them exactly until the year 2255.
        values = column.cast(pa.timestamp("us"), safe=False).cast(pa.int64()).cast(pa.float64(), safe=False)
    known = pc.is_valid(values).to_numpy()
    at = pc.fill_null(values, 0.0).to_numpy()
    assigned = np.zeros(len(at), np.int8)
    for number, cut in ((1, split.number("validation")), (2, split.number("test"))):
        assigned[at >= cut - split.number("gap")] = IN_GAP
        assigned[at >= cut] = number
    assigned[~known] = NO_SPLIT
    return assigned
