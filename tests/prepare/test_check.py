"""Splits and labels that would teach or test nothing are refused, in the words of the pipeline file."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pyarrow as pa
import pytest
from pyspark.sql.types import ArrayType, DataType, LongType, StringType, StructField, StructType

from lakefit.config import load_pipeline
from lakefit.config.file import ConfigError
from lakefit.config.rows import SPLITS, Label
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.ledger import Ledger
from lakefit.prepare.blocks import KEY_HIGH
from lakefit.prepare.bucket import STAGED
from lakefit.prepare.check import check_splits, check_written
from lakefit.prepare.clean import label_column, weight_column
from lakefit.prepare.deduplicate import OCCURRENCE
from lakefit.prepare.rows import kind_of_type
from lakefit.prepare.staged import write_staged
from lakefit.prepare.write import WritePlan, write_file
from shop import write_shop

CLASSES = ("label.type=classes", "label.expression=city")
Refused = Callable[..., str]


def ledger_of(kept: dict[str, int], rejected: int = 0) -> Ledger:
    return Ledger(
        rows_in=sum(kept.values()) + rejected, kept=kept, rejected={"refunded": rejected}, duplicates=0, not_finite=0,
        unparsable={}, files={},
    )  # fmt: skip


@pytest.fixture
def checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., None]:
    """Check splits of given classes (rows by class, by split) of the shop's pipeline file."""
    write_shop(tmp_path, rows=5)
    monkeypatch.chdir(tmp_path)

    def run(
        overrides: tuple[str, ...],
        train: dict[str, int],
        validation: dict[str, int] | None = None,
        test: dict[str, int] | None = None,
        frozen: LabelFeature | None = None,
        **summary: Any,
    ) -> None:
        pipeline, source = load_pipeline("shop.yaml", overrides)
        counts = (train, train if validation is None else validation, train if test is None else test)
        classes = dict(zip(SPLITS, counts, strict=True))
        labels = {name: {"rows": sum(of.values()), "null": 0, "classes": of} for name, of in classes.items()}
        ledger = ledger_of({name: label["rows"] for name, label in labels.items()}, summary.pop("rejected", 0))
        summary["bad_weights"] = {"label": summary.get("bad_weights", 0)}
        check_splits(pipeline, source, ledger, [{"labels": {"label": labels}, **summary}], frozen and [frozen])

    return run


@pytest.fixture
def refused(checked: Callable[..., None]) -> Refused:
    def run(*arguments: Any, **more: Any) -> str:
        with pytest.raises(ConfigError) as error:
            checked(*arguments, **more)
        return str(error.value)

    return run


def test_splits_must_have_the_classes_of_the_dataset_that_is_taken_over(
    checked: Callable[..., None], refused: Refused
) -> None:
    frozen = LabelFeature(kind="classes", classes=("a", "b", "c"))
    checked(CLASSES, {"a": 5, "b": 5, "c": 1}, frozen=frozen)
    unknown = {"a": 5, "b": 5, "c": 1, "d": 5}
    assert "The train split has the class 'd', and the dataset of features.statistics has it not" in refused(
        CLASSES, unknown, frozen=frozen
    )
    assert "no row of class 'c', and the dataset of features.statistics has" in refused(
        CLASSES, {"a": 5, "b": 5}, frozen=frozen
    )
    assert "The test split has the class 'd', and the training split has it not" in refused(
        CLASSES, {"a": 5, "b": 5, "c": 1}, test=unknown
    )


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ((), "split: The test split is empty: no group (by day, seed 3) fell into it. Give it a larger share"),
        (("split={folds: 5}",), "no group (by row, seed 0) fell into it. Choose another seed, or fewer folds"),
        (("split={column: city}",), "split.column: The test split is empty: no kept row has the word 'test' in city."),
        (
            ("split={time: {column: day, validation: 3, test: 5}}",),
            "split.time: The test split is empty: no kept row has a day in its range. Move the cuts.",
        ),
    ],
)
def test_an_empty_split_is_named_with_what_makes_it(refused: Refused, overrides: tuple[str, ...], says: str) -> None:
    said = refused(overrides, {"0": 1, "1": 1}, test={})
    assert says in said
    assert "Nothing was published" in said


def test_no_rows_at_all_are_said_so(refused: Refused) -> None:
    assert "source.tables.orders: the table 'orders' has no rows." in refused((), {})
    assert "no row of 'orders' is kept: 7 of 7 are rejected (refunded: 7)." in refused((), {}, rejected=7)


def test_a_refusal_stands_at_the_line_of_the_label(refused: Refused) -> None:
    line = Path("shop.yaml").read_text().splitlines().index("label: {expression: late > 0}") + 1
    assert refused((), {"1": 9}).startswith(f"shop.yaml:{line}:9: label.expression: The label has one class")
    assert "is neither 0 nor 1 (false nor true) in 2 of 4" in refused((), {"0": 1, "1": 1, "other": 2})
    weighed = refused(("label.weight=amount",), {"0": 1, "1": 1}, bad_weights=3)
    assert "label.weight (amount) is NULL, negative or infinite in 3 kept rows" in weighed


def test_labels_and_weights_beyond_float32_are_refused_with_rows_and_value(tmp_path: Path) -> None:
    amounts = ("label.type=regression", "label.normalize=standard", "label.weight=amount", "label.expression=late")
    pipeline, source = load_pipeline(write_shop(tmp_path, rows=5), amounts)
    written = {name: files_of(tmp_path / name, label, weight) for name, label, weight in (
        ("fine", 3.4e38, 1.0), ("label", -1e39, 1.0), ("weight", 1.0, 1e300),
    )}  # fmt: skip
    check_written(pipeline, source, written["fine"])
    with pytest.raises(ConfigError, match=r"label.expression: the label, after normalize: standard, is too large .*"):
        check_written(pipeline, source, written["label"])
    with pytest.raises(ConfigError, match=r"label.weight: the weight is too large .* in 3 kept rows, such as 1e\+300"):
        check_written(pipeline, source, written["weight"])


@pytest.mark.parametrize(
    ("data_type", "kind"),
    [
        (ArrayType(StringType()), "list"),
        (ArrayType(LongType()), "list"),
        (ArrayType(StructType([StructField("a", LongType())])), "other"),
        (ArrayType(ArrayType(StringType())), "other"),
        (StructType([StructField("a", LongType())]), "other"),
    ],
)
def test_spark_tells_lists_from_nested_values(data_type: DataType, kind: str) -> None:
    assert kind_of_type(data_type) == kind


def files_of(folder: Path, label: float, weight: float) -> list[dict[str, Any]]:
    """Write four rows, three of them with the label and the weight, and return what is said of the files."""
    section = Label(expression="late", type="regression", weight="amount")
    rows = pa.table(
        {
            "_row": pa.array([bytes([i]) * 16 for i in range(4)], pa.binary(16)), OCCURRENCE: pa.array([0] * 4),
            KEY_HIGH: pa.array(range(4), pa.uint64()), label_column(section): [0.5, *[label] * 3],
            weight_column(section): [1.0, *[weight] * 3],
        }
    )  # fmt: skip
    folder.mkdir()
    write_staged(str(folder / "staged.arrow"), [rows])
    staged = {kind: ((0, str(folder / "staged.arrow")),) if kind == "test" else () for kind in STAGED}
    label_feature = LabelFeature(kind="regression", weighted=True)
    plan = WritePlan(str(folder), staged, 2, 0, 10, False, Features(), (label_feature,), (section,))
    return [entry for file in plan.files if (entry := write_file(*file, plan)) is not None]
