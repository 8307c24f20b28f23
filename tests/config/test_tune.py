"""What `tune` may say: ranges, lists, and what is wrong with each, at its place in the file."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lakefit.config import ConfigError, load_pipeline
from lakefit.config.tune import Choices, Range, parsed
from shop import write_shop

TUNE = """
tune:
  trials: 8
  objective: {objective}
  search:
    {key}: {value}
"""


def loaded(folder: Path, value: str, key: str = "train.fit.batch_size", objective: str = "val_auc") -> Path:
    path = write_shop(folder, rows=5)
    tune = TUNE.format(key=key, value=value, objective=objective)
    path.write_text(path.read_text(encoding="utf-8") + tune, encoding="utf-8")
    return path


@given(
    st.sampled_from(["log", "uniform", "int", "log_int"]),
    st.integers(1, 1000),
    st.integers(1, 1000),
    st.sampled_from(["", " "]),
)
def test_a_range_is_read_as_it_is_written(kind: str, low: int, more: int, space: str) -> None:
    text = f"{kind}({space}{low},{space}{low + more} )"
    whole = kind.endswith("int")
    found = parsed(text)
    assert found == Range(low, low + more, kind.startswith("log"), whole)
    assert isinstance(found, Range)
    assert isinstance(found.low, int) is whole


def test_a_list_holds_values_of_any_kind() -> None:
    assert parsed([1, "a", None, [1, 2]]) == Choices((1, "a", None, [1, 2]))


@pytest.mark.parametrize(
    ("value", "said"),
    [
        ("log(1e-2, 1e-5)", "an empty range: 1e-2 is not less than 1e-5"),
        ("uniform(1, 1)", "an empty range"),
        ("log(0, 1)", "log: its numbers are above 0"),
        ("int(1, 2.5)", "int: expected two whole numbers"),
        ("log(a, b)", "log: expected two numbers"),
        ("between(1, 2)", "expected log(1e-5, 1e-2), uniform(0, 0.5), int(1, 8), log_int(16, 1024), or a list"),
        ("__import__('os')", "expected log(1e-5"),
        ("[]", "an empty list: expected the values to choose from"),
        ("[256, 256]", "a value stands in the list twice"),
    ],
)
def test_a_range_that_is_none_is_named_with_its_place(tmp_path: Path, value: str, said: str) -> None:
    path = loaded(tmp_path, value)
    with pytest.raises(ConfigError) as error:
        load_pipeline(path)
    assert f"train.fit.batch_size: {said}" in str(error.value)
    assert str(error.value).startswith(f"{path}:")


@pytest.mark.parametrize("key", ["split.seed", "train", "trian.fit.batch_size"])
def test_only_keys_of_training_are_searched(tmp_path: Path, key: str) -> None:
    with pytest.raises(ConfigError, match=f"{key}: expected a key of train"):
        load_pipeline(loaded(tmp_path, "[1, 2]", key))


@pytest.mark.parametrize(
    ("objective", "maximize"),
    [("val_auc", True), ("val_loss", False), ("val_mean_absolute_error", False), ("val_binary_accuracy", True)],
)
def test_what_is_better_is_told_by_the_name(tmp_path: Path, objective: str, maximize: bool) -> None:
    pipeline, _ = load_pipeline(loaded(tmp_path, "[1, 2]", objective=objective))
    assert pipeline.tune is not None
    assert pipeline.tune.maximize is maximize


def test_of_a_name_that_tells_nothing_the_mode_is_due(tmp_path: Path) -> None:
    path = loaded(tmp_path, "[1, 2]", objective="val_gain")
    with pytest.raises(ConfigError, match="objective: is more of val_gain better, or less\\? Say mode: max or min"):
        load_pipeline(path)
    pipeline, _ = load_pipeline(path, ("tune.mode=max",))
    assert pipeline.tune is not None
    assert pipeline.tune.maximize


def test_an_argument_comes_to_an_object_that_was_named_alone(tmp_path: Path) -> None:
    path = loaded(tmp_path, "[1, 2]")
    pipeline, _ = load_pipeline(path, ("train.compile.optimizer=Adam", "train.compile.optimizer.Adam.epsilon=1e-3"))
    assert pipeline.train.compile is not None
    assert pipeline.train.compile.optimizer == {"Adam": {"epsilon": 1e-3}}
