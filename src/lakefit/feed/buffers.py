"""Memory for rows that are handed out, used again when the receiver has let go of it.

A fresh array of some megabytes costs a page fault each 4 kB, more than the copy that fills it.
"""

import sys
from typing import Any

import numpy as np
from numpy.typing import NDArray

ALIGNMENT = 64
"""Bytes: TensorFlow takes an array that begins at a multiple of it as it is, and copies any other."""

# References to a buffer that nobody uses: the list's, the loop's and getrefcount's own.
_NOBODY = 3


class Buffers:
    """Arrays on memory that nobody refers to any more: numpy's views, and TensorFlow's tensors, refer to its owner."""

    def __init__(self) -> None:
        self._owners: list[NDArray[np.uint8]] = []

    def empty(self, shape: tuple[int, ...], dtype: str) -> NDArray[Any]:
        """Return a C-contiguous array of any values."""
        size = int(np.prod(shape, dtype=np.int64)) * np.dtype(dtype).itemsize
        free = None
        for owner in self._owners:
            if sys.getrefcount(owner) == _NOBODY and size <= len(owner) - ALIGNMENT <= 2 * size:
                free = owner
                break
        if free is None:
            self._owners = [owner for owner in self._owners if sys.getrefcount(owner) > _NOBODY]
            free = np.empty(size + ALIGNMENT, np.uint8)
            self._owners.append(free)
        start = -free.ctypes.data % ALIGNMENT
        return free[start : start + size].view(dtype).reshape(shape)
