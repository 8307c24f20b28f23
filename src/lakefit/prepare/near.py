"""Images that look alike: groups of perceptual hashes of which each is near to another one of its group."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import combinations, pairwise

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

_BITS = 64


@dataclass(frozen=True, slots=True)
class Groups:
    """Hashes that lie in a group with others, in order, and the least one of each one's group."""

    hashes: NDArray[np.int64]
    least: NDArray[np.int64]

    def of(self, hashes: pa.Array) -> pa.Array:
        """Return for each hash the least one of its group, itself where it is alone."""
        values = hashes.fill_null(0).to_numpy(zero_copy_only=False)
        if len(self.hashes):
            places = np.minimum(np.searchsorted(self.hashes, values), len(self.hashes) - 1)
            values = np.where(self.hashes[places] == values, self.least[places], values)
        return pa.array(values, pa.int64(), mask=hashes.is_null().to_numpy(zero_copy_only=False))


def near_groups(hashes: NDArray[np.int64], distance: int) -> Groups:
    """Return the groups of hashes that differ in at most so many bits, or are joined by others that do.

    Of hashes cut into m bands, two that differ in d bits have m - d bands in common at least, so that only those need
    be compared that share these (M. Norouzi, A. Punjani, D. J. Fleet, Fast Search in Hamming Space with Multi-Index
    Hashing, 2012). Of n hashes it takes O(n) memory; time grows with the number of hashes that share bands: fast up to
    a distance of 6 (16 bits or more are shared), slower above.
    """
    unique = np.unique(hashes)
    words = unique.view(np.uint64)
    label = np.arange(len(unique))
    for first, second in _pairs(words, distance):
        label = _joined(label, first, second)
    together = np.bincount(label, minlength=len(label))[label] > 1
    return Groups(unique[together], unique[label[together]])


def _pairs(words: NDArray[np.uint64], distance: int) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64]]]:
    """Yield places of words that differ in at most so many bits, each such pair once or more."""
    bands = 4 if distance <= 3 else 8 if distance <= 6 else distance + 1
    cuts = np.linspace(0, _BITS, bands + 1).astype(int)
    masks = [((1 << int(stop)) - 1) ^ ((1 << int(start)) - 1) for start, stop in pairwise(cuts)]
    for chosen in combinations(masks, bands - distance):
        keys = words & np.uint64(sum(chosen))
        order = np.argsort(keys, kind="stable")
        keys, sorted_words = keys[order], words[order]
        # Each word is compared with the next one, the one after that, and so on, for as long as they share the bands.
        places, step = np.arange(len(words)), 1
        while len(places := places[places + step < len(words)]):
            places = places[keys[places] == keys[places + step]]
            near = places[np.bitwise_count(sorted_words[places] ^ sorted_words[places + step]) <= distance]
            if len(near):
                yield order[near], order[near + step]
            step += 1


def _joined(label: NDArray[np.int64], first: NDArray[np.int64], second: NDArray[np.int64]) -> NDArray[np.int64]:
    """Return the least place of each one's group, where pairs join groups."""
    while True:
        a, b = label[first], label[second]
        apart = a != b
        if not apart.any():
            return label
        first, second, a, b = first[apart], second[apart], a[apart], b[apart]
        least = label.copy()
        np.minimum.at(least, np.maximum(a, b), np.minimum(a, b))
        while (least[least] != least).any():
            least = least[least]
        label = least[label]
