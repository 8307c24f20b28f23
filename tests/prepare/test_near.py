"""Groups of perceptual hashes: all that are joined by steps of at most so many bits, whatever the order."""

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakefit.prepare.near import near_groups


def by_hand(hashes: list[int], distance: int) -> dict[int, int]:
    """Return the least hash of each one's group, by comparing all with all."""
    unique = sorted(set(hashes))
    least = {hash_: hash_ for hash_ in unique}
    changed = True
    while changed:
        changed = False
        for a in unique:
            for b in unique:
                if ((a ^ b) & (2**64 - 1)).bit_count() <= distance and least[a] != least[b]:
                    least[a] = least[b] = min(least[a], least[b])
                    changed = True
    return least


@st.composite
def families(draw: st.DrawFn) -> list[int]:
    """Hashes of which some are others with a few bits changed."""
    made = draw(st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=6))
    for _ in range(draw(st.integers(0, 12))):
        word = draw(st.sampled_from(made))
        for bit in draw(st.sets(st.integers(0, 63), max_size=9)):
            word ^= 1 << bit if bit < 63 else -(1 << 63)
        made.append(word)
    return made


@given(hashes=families(), distance=st.integers(1, 10), seed=st.integers(0, 5))
def test_groups_are_those_of_comparing_all_with_all(hashes: list[int], distance: int, seed: int) -> None:
    due = by_hand(hashes, distance)
    shuffled = np.random.default_rng(seed).permutation(np.array(hashes, np.int64))
    found = near_groups(shuffled, distance).of(pa.array(hashes, pa.int64())).to_pylist()
    assert found == [due[hash_] for hash_ in hashes]


def test_no_hashes_have_no_groups_and_a_missing_one_stays_missing() -> None:
    nothing = near_groups(np.array([], np.int64), 3)
    assert nothing.of(pa.array([5, None], pa.int64())).to_pylist() == [5, None]
    some = near_groups(np.array([4, 5, 4096 * 255], np.int64), 1)
    assert some.of(pa.array([5, None, 4096 * 255, 0], pa.int64())).to_pylist() == [4, None, 4096 * 255, 0]


@pytest.mark.parametrize("distance", [3, 6])
def test_pairs_among_many_hashes_are_found(distance: int) -> None:
    random = np.random.default_rng(1)
    words = random.integers(0, 2**64, 20_000, np.uint64)
    near = words[:5_000] ^ (np.uint64(1) << random.integers(0, 64, 5_000, np.uint64))
    groups = near_groups(np.concatenate([words, near]).view(np.int64), distance)
    assert len(groups.hashes) == 10_000
