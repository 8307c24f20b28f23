"""What happens at each step: as many at once as the pipeline file says, and callbacks where they want to be."""

import sys
from pathlib import Path
from typing import Any

import pytest

from fitting import fit, result_of, section_of

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
    ends = [*range(at_once - 1, 10, at_once), 10 if at_once == 1 else 11]
    of_an_epoch = [*(("train", end, True) for end in ends), *(("test", begin, True) for begin in range(0, 3, at_once))]
    assert sys.modules.pop("own_models").Batches.called == of_an_epoch * 2
