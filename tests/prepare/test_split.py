"""A group is in one split, near the shares, wherever and beside whomever it stands."""

import numpy as np
import pyarrow as pa
import pytest

from lakefit.config.rows import Split
from lakefit.prepare.blocks import KEY_HIGH
from lakefit.prepare.hashing import mix64
from lakefit.prepare.split import assign_split


def table_of(groups: list[str | None], days: list[int]) -> pa.Table:
    keys = mix64(np.arange(len(groups), dtype=np.uint64))
    return pa.table({"group": pa.array(groups, pa.string()), "day": pa.array(days), KEY_HIGH: pa.array(keys)})


GROUPS = [f"group {i % 3000}" if i % 3000 else None for i in range(9000)]
TABLE = table_of(GROUPS, [i % 3000 % 7 for i in range(9000)])
BY_GROUP = Split(by=("group", "day"), train=0.7, validation=0.2, test=0.1, seed=1)
BY_KEY = Split(train=0.7, validation=0.2, test=0.1, seed=1)


def test_equal_groups_are_in_one_split() -> None:
    splits = assign_split(TABLE, BY_GROUP)
    assert (splits[:3000] == splits[3000:6000]).all()
    assert (splits[:3000] == splits[6000:]).all()


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_shares_are_near(split: Split) -> None:
    shares = np.bincount(assign_split(TABLE, split), minlength=3) / len(TABLE)
    assert np.abs(shares - [0.7, 0.2, 0.1]).max() < 0.035  # 4 standard deviations of 3,000 groups


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_a_row_keeps_its_split_whatever_stands_beside_it(split: Split) -> None:
    splits = assign_split(TABLE, split)
    assert (assign_split(TABLE.slice(1000, 50), split) == splits[1000:1050]).all()
    order = np.random.Generator(np.random.PCG64(1)).permutation(len(TABLE))
    assert (assign_split(TABLE.take(pa.array(order)), split) == splits[order]).all()


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_a_larger_training_share_moves_rows_into_training_alone(split: Split) -> None:
    before = assign_split(TABLE, split)
    larger = split.model_copy(update={"train": 0.8, "validation": 0.1})
    after = assign_split(TABLE, larger)
    assert (after[before == 0] == 0).all()
    assert (after[before == 2] == 2).all()


@pytest.mark.parametrize("split", [BY_GROUP, BY_KEY])
def test_the_seed_decides(split: Split) -> None:
    one, other = (assign_split(TABLE, split.model_copy(update={"seed": seed})) for seed in (1, 2))
    # Of independent splits 0.7² + 0.2² + 0.1² = 54 % agree.
    assert 0.5 < (one == other).mean() < 0.58


def test_the_split_of_a_row_never_changes() -> None:
    assert assign_split(TABLE, BY_GROUP)[:20].tolist() == [0, 0, 1, 1, 1, 0, 1, 0, 0, 0, 1, 0, 0, 0, 0, 2, 0, 0, 0, 0]
    assert assign_split(TABLE, BY_KEY)[:20].tolist() == [1, 1, 0, 0, 1, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 1, 0, 0]
