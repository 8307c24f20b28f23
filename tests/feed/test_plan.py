"""`lakefit plan` counts what the feed then does, reads no data, and warns of what is probably not meant."""

from pathlib import Path
from typing import Any

import pytest

from feeds import manifest_of
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
from lakefit.dataset.manifest import DataFile
from lakefit.feed import gather
from lakefit.feed.dataset import Dataset
from lakefit.feed.plan import FeedPlan, feed_plan
from lakefit.feed.split import SplitFeed

GROUPS, ROWS_OF_GROUP = 40, 100


def manifest(groups: int = GROUPS) -> Any:
    files = [
        DataFile(path=f"p{n}", row_groups=(ROWS_OF_GROUP,) * 4, bytes=40_000, sha256="", first_position=n << 40)
        for n in range(groups // 4)
    ]
    features = Features(
        numeric=(NumericFeature(name="x", fill=0.0),),
        categorical=tuple(CategoricalFeature(name=name, vocabulary=(), counts=(), rare=0) for name in "ab"),
    )
    return manifest_of(files, features)


def plan(groups: int = GROUPS, **options: Any) -> FeedPlan:
    return feed_plan(
        Dataset(Path(), manifest(groups)),
        "train",
        **{"batch_size": 64, "lanes": 8, "remainder": "keep", "workers": 1, **options},
    )


def test_one_worker_reads_each_row_group_once() -> None:
    found = plan()

    assert (found.rows, found.steps, found.remainder, found.share) == (4000, 63, 32, (64,))
    assert (found.row_groups, found.read, found.file_bytes) == (40, (40,), (400_000,))
    assert found.row_bytes == 4 + 2 * 4 + 4 + 8
    assert found.warnings == ()


def test_workers_that_divide_the_lanes_share_the_reading() -> None:
    found = plan(workers=4)

    assert found.share == (16,) * 4
    assert sum(found.read) <= 40 + 4 * 2


@pytest.mark.parametrize("options", [{"workers": 1}, {"workers": 3}, {"lanes": 3, "batch_size": 50}])
def test_steps_and_shares_are_those_of_the_feed(options: Any) -> None:
    found = plan(**options)
    for worker, share in enumerate(found.share):
        feed = SplitFeed(Path(), manifest(), "train", **{"batch_size": 64, **options}, worker=worker)
        assert (feed.batches, feed.rows_of_a_batch) == (found.steps, share)


@pytest.mark.parametrize(
    ("options", "warning"),
    [
        ({"remainder": "drop", "batch_size": 5000}, "No batch is left"),
        ({"batch_size": 4000 - 2, "workers": 3}, "last batch has 2 rows for 3 workers"),
        ({"workers": 3}, "Every worker reads more row groups than its own"),
        ({"batch_size": 60, "workers": 2}, "Every worker reads more row groups than its own"),
        ({"groups": 4}, "Row groups of the split: 4, for 8 lanes"),
        ({"groups": 8, "workers": 8}, "8 row groups are few for 8 workers"),
    ],
)
def test_what_is_probably_not_meant_is_said(options: Any, warning: str) -> None:
    assert any(warning in said for said in plan(**options).warnings)


def test_memory_is_bounded_by_the_lanes_not_by_the_rows(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gather, "_ROWS", 640)
    assert plan(groups=400).memory <= plan(groups=4000).memory <= plan(groups=400).memory * 1.1
    assert plan(groups=400, lanes=16).memory > plan(groups=400, lanes=4).memory


def test_a_batch_smaller_than_the_workers_is_refused() -> None:
    with pytest.raises(ValueError, match="can't be shared by 65 workers"):
        plan(workers=65)
