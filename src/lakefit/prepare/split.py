"""The split of a row: a function of its group's values and the seed, so that it stays as data grows."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from lakefit.config.rows import Split
from lakefit.prepare.blocks import KEY_HIGH
from lakefit.prepare.hashing import hash_rows, mix64, mix_number

SPLITS = ("train", "validation", "test")
_SALT = 0x53504C4954


def assign_split(table: pa.Table, split: Split) -> NDArray[np.int8]:
    """Return 0, 1 or 2 (train, validation, test) per row; equal values of `by` (or an equal key) get one split."""
    if split.by:
        group = hash_rows([table[name] for name in split.by], len(table), mix_number(_SALT, split.seed))
    else:
        group = mix64(table[KEY_HIGH].to_numpy() ^ np.uint64(mix_number(_SALT, split.seed)))
    return np.searchsorted(_bounds((split.train, split.validation)), group, side="right").astype(np.int8)


def _bounds(shares: Sequence[float]) -> NDArray[np.uint64]:
    """Return the hashes at which the next split begins."""
    return np.array([int(total * 2**53) << 11 for total in np.cumsum(shares)], np.uint64)
