"""Where the time of a training goes, and what would make it faster."""

import json
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from fitting import fit, section_of
from lakefit.dataset.features import Features, NumericFeature
from lakefit.feed.split import SplitFeed
from lakefit.train import meter
from lakefit.train.meter import Meter, Shares
from lakefit.train.steps import Steps
from models import build

NO_FEED: Any = None
SECTION = section_of()
FEATURES = Features(numeric=(NumericFeature(name="x", fill=0.0),))


def last_shares(capsys: pytest.CaptureFixture[str]) -> tuple[dict[str, float], str]:
    events = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    (*_, event) = [event for event in events if "shares" in event]
    return event["shares"], event["blame"]


def test_a_training_that_waits_for_its_feed_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    received = SplitFeed.received

    def slow(self: SplitFeed, **options: Any) -> Iterator[Any]:
        for part in received(self, **options):
            time.sleep(2 if self.split == "train" else 0)
            yield part

    monkeypatch.setattr(SplitFeed, "received", slow)
    fit(dataset, tmp_path, SECTION)
    shares, blame = last_shares(capsys)
    assert shares["input"] > 0.8
    assert "the feed is the limit" in blame


def test_a_training_that_waits_for_its_callbacks_says_so(
    dataset: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    fit(dataset, tmp_path, {**SECTION, "callbacks": [{"own_models:Slow": {"seconds": 0.2}}]})
    shares, blame = last_shares(capsys)
    assert shares["python"] > 0.8
    assert "steps are short" in blame


def test_what_would_make_it_faster() -> None:
    one = Shares(input=0.01, computing=0.98, synchronizing=0.0, python=0.01, steps=10, seconds=1.0)
    assert one.blame().startswith("input 1%, computing 98%, Python 1%: the model is the limit: more train.devices")
    two = Shares(input=0.0, computing=0.9, synchronizing=0.5, python=0.1, steps=10, seconds=1.0)
    said = (
        "input 0%, computing 90%, synchronizing 50%, Python 10%: the devices wait for each other: raise fit.batch_size"
    )
    assert two.blame().startswith(said)


def test_looks_are_shared_out_by_what_the_training_does_and_the_validation_is_no_part_of_it(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    model = build(FEATURES).model
    # Four batches have come, and each step takes one.
    feed: Any = SimpleNamespace(arrived=4)
    steps = Steps(model, 100)
    looks: list[Callable[[], None]] = []
    now = 0.0

    @contextmanager
    def by_hand(look: Callable[[], None], seconds: float) -> Iterator[None]:
        looks.append(look)
        yield

    monkeypatch.setattr(meter, "repeated", by_hand)
    monkeypatch.setattr(meter, "time", SimpleNamespace(monotonic=lambda: now))
    measured = Meter(model, feed, steps, sync_seconds=0.5)
    with measured.looking():
        (look,) = looks
        for training, inside, total, seconds, times in (
            (True, True, 3, 1.0, 10),  # computing: one of the batches that have come is not done
            (False, True, 5, 9.0, 50),  # validation
            (True, True, 5, 2.0, 5),  # all that has come is done
            (True, False, 6, 1.0, 4),  # Keras or callbacks
        ):
            steps.training, steps.inside, steps.total = training, inside, total
            for _ in range(times):
                now += seconds
                look()
        assert measured.now() is None, "too little was seen"
        now += 1.0
        look()
    # 3 steps at the first look, none in what is seen of the validation, and one after it.
    expected = Shares(0.25, 0.5, 4 * 0.5 / 25, 0.25, steps=4, seconds=25.0)
    assert measured.now() == expected
    assert measured.take() == expected
    assert measured.take() is None


@pytest.mark.parametrize(("at_once", "taken"), [(1, 8), (4, 10)])
def test_batches_of_a_running_call_of_several_steps_are_taken_one_by_one(at_once: int, taken: int) -> None:
    model = build(FEATURES, compile={"steps_per_execution": at_once}).model
    steps = Steps(model, 11)
    # Before the call the optimizer had seen 8 steps, and now it has seen 2 more.
    steps.total = steps.iterations = 8
    model.optimizer.iterations.assign(10)
    assert Meter(model, NO_FEED, steps)._taken(steps.total) == taken
