"""What happens at each step: as many at once as the pipeline file says, and callbacks where they want to be."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import pytest

from fitting import fit, result_of, section_of
from lakefit.dataset.features import Features, NumericFeature
from lakefit.train.steps import Callbacks, Steps
from models import build

SECTION = section_of()


@pytest.fixture(scope="module")
def one_by_one(dataset: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    run_dir = tmp_path_factory.mktemp("run")
    fit(dataset, run_dir, SECTION)
    return result_of(run_dir)


@pytest.mark.parametrize("at_once", [2, 3, 11, 100])
def test_many_steps_at_once_are_the_same_steps(
    dataset: Path, tmp_path: Path, one_by_one: dict[str, Any], at_once: int
) -> None:
    # An epoch has 11 batches: the last call of one must not take the first batches of the next.
    section = {**SECTION, "compile": {"steps_per_execution": at_once}}
    fit(dataset, tmp_path, section)
    assert result_of(tmp_path) == one_by_one


@pytest.mark.parametrize("at_once", [1, 4])
def test_a_callback_that_wants_to_be_is_called_at_every_call(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: int
) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    sys.modules.pop("own_models", None)
    section = {
        **SECTION,
        "compile": {"steps_per_execution": at_once},
        "callbacks": ["own_models:Batches"],
        "fit": {"epochs": 2, "batch_size": 32},
    }
    fit(dataset, tmp_path, section)
    of_an_epoch = [*of_calls("train", 11, at_once), *of_calls("test", 3, at_once)]
    assert sys.modules.pop("own_models").Batches.called == of_an_epoch * 2


def of_calls(what: str, steps: int, at_once: int) -> Iterator[tuple[str, int]]:
    """Yield what a callback is told of each call, as Keras counts: the last one as if it were whole."""
    for begin in range(0, steps, at_once):
        yield f"{what} begin", begin
        yield f"{what} end", begin + at_once - 1


@pytest.mark.parametrize(
    "name",
    ["on_batch_begin", "on_batch_end", "on_train_batch_begin", "on_train_batch_end", "on_test_batch_begin",
     "on_test_batch_end"],
)  # fmt: skip
def test_a_callback_is_called_at_batches_if_that_is_all_that_it_wants(name: str) -> None:
    called = []
    cls = type("Noting", (keras.callbacks.Callback,), {name: lambda self, batch, logs=None: called.append(batch)})
    model = build(Features(numeric=(NumericFeature(name="x", fill=0.0),))).model
    callbacks = Callbacks(
        [cls()],
        model,
        Steps(model, 9),
        epochs=1,
        after_steps=lambda: None,
        before_validation=lambda: None,
        after_validation_steps=lambda: None,
    )
    callbacks.on_train_begin()
    callbacks.on_train_batch_begin(7)
    callbacks.on_train_batch_end(7, {})
    callbacks.on_test_begin()
    callbacks.on_test_batch_begin(7)
    callbacks.on_test_batch_end(7, {})
    callbacks.on_test_end()
    callbacks.on_train_end()
    assert called == [7]
