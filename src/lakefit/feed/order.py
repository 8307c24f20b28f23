"""The order of samples: pure functions of (row groups, seed, epoch). Nothing depends on timing, workers or NumPy."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from lakefit.feed.reader import RowGroup

_GROUPS, _ROWS = 1, 2


def epoch_groups(groups: Sequence[RowGroup], seed: int, epoch: int) -> list[RowGroup]:
    """Return the row groups in the order in which an epoch reads them."""
    return [groups[place] for place in permutation(len(groups), seed, epoch, _GROUPS)]


def row_order(group: RowGroup, seed: int, epoch: int) -> NDArray[np.int64]:
    """Return the order of the rows inside a row group; shape (group.rows,)."""
    return permutation(group.rows, seed, epoch, _ROWS, group.first_position)


def permutation(length: int, *seeds: int) -> NDArray[np.int64]:
    """Return a permutation of range(length) that depends on the seeds, mixed and not added: (1, 0) is not (0, 1).

    It sorts a keyed bijection of 0..length-1 (splitmix64), so it is the same on every machine and NumPy version;
    pinned by a golden test.
    """
    key = np.zeros(1, np.uint64)
    for seed in seeds:
        key = _mix(key ^ np.array([seed & 0xFFFFFFFFFFFFFFFF], np.uint64))
    return np.argsort(_mix(np.arange(length, dtype=np.uint64) ^ key[0]))


def _mix(values: NDArray[np.uint64]) -> NDArray[np.uint64]:
    z = values + np.uint64(0x9E3779B97F4A7C15)
    z = (z ^ (z >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    z = (z ^ (z >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return z ^ (z >> np.uint64(31))
