"""Where the time of a training goes, and what would make it faster."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from fitting import fit, section_of
from lakefit.feed.split import SplitFeed
from lakefit.train.meter import Shares

SECTION = section_of()


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
