"""Sections made in Python: lists for tuples, scalars as strict as in a file, errors that say where."""

from datetime import UTC, date, datetime
from pathlib import Path

import pydantic
import pytest

from lakefit.api import validate
from lakefit.config import Categorical, Clean, Clip, ConfigError, Features, Numeric, Pipeline, TimeSplit, load_pipeline
from shop import write_shop


def test_a_list_is_as_good_as_a_tuple() -> None:
    step = Clean(column=["a", "b"], text=["trim"])
    assert step == Clean(column=("a", "b"), text=("trim",))
    assert step.column == ("a", "b")
    assert hash(step) == hash(Clean(column=("a", "b"), text=("trim",)))


def test_a_group_of_features_is_one_section_or_a_list() -> None:
    one = Features(numeric=Numeric(columns=["a"]), categorical=Categorical(columns=["b"]))
    assert one == Features(numeric=[Numeric(columns=["a"])], categorical=(Categorical(columns=("b",)),))


@pytest.mark.parametrize(
    ("section", "fields"),
    [
        (Clean, {"column": "a", "null_if": "x"}),
        (Clean, {"column": ["a", 1], "text": ["trim"]}),
        (Clean, {"column": {"a", "b"}, "text": ["trim"]}),
        (Clean, {"column": [], "text": ["trim"]}),
        (Clip, {"min": "0"}),
        (Numeric, {"columns": ["a"], "indicator": 1}),
    ],
)
def test_scalars_stay_strict_and_text_is_no_list(section: type[pydantic.BaseModel], fields: dict[str, object]) -> None:
    with pytest.raises(pydantic.ValidationError):
        section(**fields)


def test_cuts_in_time_may_be_dates() -> None:
    text = TimeSplit(column="t", validation="2024-03-01", test="2024-04-01T12:00:00+00:00")
    assert text == TimeSplit(column="t", validation=date(2024, 3, 1), test=datetime(2024, 4, 1, 12, tzinfo=UTC))


@pytest.mark.parametrize(
    ("written", "read"),
    [("2024-03-01", "2024-03-01"), ('"2024-03-01"', "2024-03-01"), ("2024-03-01 06:30:00", "2024-03-01 06:30:00")],
)
def test_cuts_in_time_need_no_quotes_in_a_file(tmp_path: Path, written: str, read: str) -> None:
    path = write_shop(tmp_path, rows=5)
    text = path.read_text(encoding="utf-8")
    split = f"split: {{time: {{column: day, validation: {written}, test: 2024-04-01}}}}"
    path.write_text(
        "\n".join(split if line.startswith("split:") else line for line in text.splitlines()), encoding="utf-8"
    )
    assert load_pipeline(path)[0].split.time == TimeSplit(column="day", validation=read, test="2024-04-01")


def test_a_wrong_pipeline_made_in_python_is_refused_with_its_name_and_each_place(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    right, _ = load_pipeline(write_shop(tmp_path, rows=5))
    assert [file.name for file in validate(right).inputs["orders"]] == ["orders-0.csv", "orders-1.csv"]
    assert validate("shop.yaml").pipeline == right
    steps = [Clean(column="city", text=["trim"]), Clean(column="cty", text=["trim"])]
    wrong = Pipeline(**{**dict(right), "clean": steps, "split": right.split.model_copy(update={"by": ("dey",)})})
    with pytest.raises(ConfigError) as refused:
        validate(wrong)
    assert str(refused.value).splitlines() == [
        "pipeline 'shop': clean.1.column: unknown column 'cty'; did you mean 'city'?",
        "pipeline 'shop': split.by.0: unknown column 'dey'; did you mean 'day'?",
    ]
