"""The quality gate: bounds on metrics, and the comparison with the model in use on the rows that both have seen."""

import json
import shutil
from pathlib import Path
from typing import Any, Literal

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given
from hypothesis import strategies as st

from feeds import manifest_of
from lakefit.config import ConfigError, Pipeline, load_pipeline
from lakefit.config.evaluate import LOWER_IS_BETTER, METRICS, compared_metric, within
from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.layout import Layout
from lakefit.dataset.predictions import label_column, prediction_columns, prefix_of, read_predictions
from lakefit.evaluate.metrics import metrics_of
from lakefit.run.gate import Check, judge
from lakefit.run.validate import validate
from shop import write_shop

BINARY = LabelFeature(name="late", kind="binary")
NAMES = ("no", "a bit", "very")
KINDS = {
    "binary": LabelFeature(name="y", kind="binary"),
    "classes": LabelFeature(name="y", kind="classes", classes=NAMES),
    "multi_label": LabelFeature(name="y", kind="multi_label", classes=NAMES),
    "regression": LabelFeature(name="y", kind="regression"),
}


def some(label: LabelFeature, rows: int, seed: int) -> tuple[Any, Any]:
    """Return values of a label and predictions (rows, outputs)."""
    dice = np.random.default_rng(seed)
    probabilities = dice.uniform(0.01, 0.99, (rows, label.outputs)).astype(np.float32)
    if label.kind == "regression":
        return dice.normal(size=rows), dice.normal(size=(rows, 1))
    if label.kind == "binary":
        return (np.arange(rows) % 2).astype(np.float32), probabilities
    if label.kind == "classes":
        return (np.arange(rows) % 3).astype(np.float32), probabilities / probabilities.sum(axis=1, keepdims=True)
    return dice.integers(0, 2, (rows, 3)).astype(np.float32), probabilities


@given(st.sampled_from(sorted(KINDS)), st.integers(4, 60), st.integers(0, 99), st.booleans())
def test_what_is_read_of_predictions_has_the_metrics_of_what_was_written(
    kind: str, rows: int, seed: int, alone: bool
) -> None:
    label = KINDS[kind]
    labels = [label] if alone else [label, BINARY]
    values, predictions = some(label, rows, seed)
    both = {"y": predictions, "late": some(BINARY, rows, 1)[1]}
    table = pa.table({"y": label_column(values, label), **prediction_columns(both, labels)})
    one_column = predictions[:, 0] if label.outputs == 1 else predictions
    read = metrics_of(label, *read_predictions(table, label, labels))
    assert read == metrics_of(label, values, one_column)
    assert tuple(read) == METRICS[kind]


def test_what_is_a_loss_or_an_error_is_better_when_it_is_lower() -> None:
    perfect = np.array([0.0, 1.0, 0.0, 1.0])
    for kind in ("binary", "regression"):
        good, bad = (metrics_of(KINDS[kind], perfect, guess) for guess in (perfect, 1 - perfect))
        assert {name for name in good if good[name] < bad[name]} == {n for n in good if n in LOWER_IS_BETTER}


@pytest.mark.parametrize(
    ("bound", "kept", "broken"),
    [(">= 0.7", 0.7, 0.69), ("> 0.7", 0.71, 0.7), ("<=1e-3", 0.001, 0.002), ("< -1", -2, -1)],
)
def test_bounds(bound: str, kept: float, broken: float) -> None:
    assert within(kept, bound)
    assert not within(broken, bound)
    assert not within(float("nan"), bound)


@pytest.fixture
def layout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Layout:
    monkeypatch.chdir(tmp_path)
    write_shop(tmp_path, rows=5)
    return Layout.of(pipeline("{}"))


def pipeline(require: str) -> Pipeline:
    return load_pipeline("shop.yaml", (f"evaluate.require={require}",))[0]


def evaluated(
    layout: Layout,
    run: str,
    rows: range,
    right: int,
    *,
    beyond: int | None = None,
    more: range = range(0),
    label: str = "label",
    expression: str = "late > 0",
    kind: Literal["binary", "regression"] = "binary",
    beside: str | None = None,
) -> None:
    """Write down an evaluation: of every ten rows `right` are told apart, and `beyond` of those from 1,000 on.

    more: further rows; where they are among `rows` too, second occurrences of them.
    """
    labels = (LabelFeature(name=label, kind=kind), *([LabelFeature(name=beside)] if beside is not None else []))
    identity = np.array([*rows, *more])
    values = (identity % 2).astype(np.float32)
    good = np.where(identity < 1000, right, right if beyond is None else beyond)
    probability = np.where(identity % 10 < good, values, 1 - values).astype(np.float32) * 0.8 + 0.1
    table = {
        "_row": pa.array([int(row).to_bytes(16, "big") for row in identity], pa.binary(16)),
        "_occurrence": pa.array([*(0 for _ in rows), *(int(row in rows) for row in more)], pa.int64()),
        **{one.name: label_column(values, one) for one in labels},
        **prediction_columns({one.name: probability[:, None] for one in labels}, labels),
    }
    folder = layout.run(run)
    (folder / "predictions").mkdir(parents=True)
    pq.write_table(pa.table(table), folder / "predictions/test.parquet")
    metrics = {
        f"{prefix_of(one, labels)}{name}": value
        for one in labels
        for name, value in metrics_of(one, values, probability).items()
    }
    (folder / "metrics.json").write_text(json.dumps({"fingerprint": run, "metrics": {"test": metrics}}))
    (folder / "run.json").write_text(json.dumps({"dataset": f"of-{run}"}))
    definitions = [
        {"name": one.name, "type": one.kind, "expression": expression if one.name == label else "day > 3"}
        for one in labels
    ]
    manifest = manifest_of([], Features()).model_copy(update={"labels": labels, "pipeline": {"label": definitions}})
    layout.dataset(f"of-{run}").mkdir(parents=True)
    (layout.dataset(f"of-{run}") / "manifest.json").write_text(manifest.model_dump_json(by_alias=True))


def use(layout: Layout, run: str) -> None:
    """Put an evaluated run into use, exported."""
    artifact = layout.artifact(f"a-{run}")
    artifact.mkdir(parents=True)
    (artifact / "metrics.json").write_text((layout.run(run) / "metrics.json").read_text())
    layout.current.write_text(json.dumps({"dataset": f"of-{run}", "run": run, "artifact": artifact.name}))


def test_the_first_model_is_compared_with_none(layout: Layout) -> None:
    evaluated(layout, "new", range(200), 8)
    assert judge(pipeline('{accuracy: ">= 0.8", vs_current: ">= 0"}'), layout, "new") == (
        Check("accuracy", ">= 0.8", 0.8, True),
        Check("vs_current", ">= 0", None, True, "no model is in use yet"),
    )


def test_a_bound_that_what_was_found_does_not_keep_does_not_hold(layout: Layout) -> None:
    evaluated(layout, "new", range(200), 8)
    assert judge(pipeline('{accuracy: ">= 0.81", auc: ">= 0.8"}'), layout, "new") == (
        Check("accuracy", ">= 0.81", 0.8, False),
        Check("auc", ">= 0.8", pytest.approx(0.8), True),
    )


def test_models_are_compared_on_the_rows_that_both_test_splits_have(layout: Layout) -> None:
    evaluated(layout, "old", range(1000), 8)
    # As good where it can be compared; on rows of its own it is bad, which says nothing.
    evaluated(layout, "new", range(800, 2000), 8, beyond=2)
    evaluated(layout, "other", range(500, 2000), 6)
    use(layout, "old")
    (check,) = judge(pipeline('{vs_current: ">= 0"}'), layout, "new")
    assert check.holds
    assert check.found == 0
    assert check.note == ("auc, on the 200 rows of both test splits; in use: 0.8000, this: 0.8000")
    accuracy, worse = judge(pipeline('{accuracy: ">= 0.5", vs_current: ">= -0.1"}'), layout, "other")
    assert accuracy.holds
    assert worse.found == pytest.approx(0.6 - 0.8)
    assert not worse.holds
    found = "accuracy, on the 500 rows of both test splits; in use: 0.8000, this: 0.6000"
    assert str(worse) == f"vs_current >= -0.1: found -0.2000 ({found})"


def test_of_a_loss_less_is_better(layout: Layout) -> None:
    evaluated(layout, "old", range(300), 8)
    evaluated(layout, "new", range(300), 9)
    use(layout, "old")
    loss, gain = judge(pipeline('{log_loss: "< 9", vs_current: "> 0"}'), layout, "new")
    assert loss.holds
    assert gain.found is not None
    assert gain.found > 0
    assert gain.holds


@pytest.mark.parametrize(
    ("first", "note"),
    [
        (1000, "each on its own test split: too few of their rows are the same"),
        (201, "each on its own test split: too few of their rows are the same"),
        (200, "on the 100 rows of both test splits"),
    ],
    ids=["none", "99", "100"],
)
def test_test_splits_that_share_too_few_rows_are_compared_by_what_each_found_on_its_own(
    layout: Layout, first: int, note: str
) -> None:
    evaluated(layout, "old", range(300), 8)
    evaluated(layout, "new", range(first, first + 300), 6)
    use(layout, "old")
    (check,) = judge(pipeline('{vs_current: ">= 0"}'), layout, "new")
    assert not check.holds
    assert note in check.note


def test_of_rows_that_are_equal_each_is_compared_with_itself(layout: Layout) -> None:
    evaluated(layout, "old", range(200), 8, more=range(150))
    evaluated(layout, "new", range(200), 8, more=range(100, 200))
    use(layout, "old")
    (check,) = judge(pipeline('{vs_current: ">= 0"}'), layout, "new")
    assert "on the 250 rows of both test splits" in check.note


def test_rows_of_one_class_alone_tell_nothing(layout: Layout) -> None:
    evaluated(layout, "old", range(0, 800, 2), 8, more=range(801, 900, 2))
    evaluated(layout, "new", range(0, 800, 2), 8, more=range(1801, 1900, 2))
    use(layout, "old")
    (check,) = judge(pipeline('{vs_current: ">= -1"}'), layout, "new")
    assert check.holds
    assert "each on its own test split" in check.note


@pytest.mark.parametrize(("expression", "kind"), [("late > 5", "binary"), ("late > 0", "regression")])
def test_models_of_different_labels_are_not_compared(
    layout: Layout, expression: str, kind: Literal["binary", "regression"]
) -> None:
    evaluated(layout, "old", range(300), 8, expression=expression, kind=kind)
    evaluated(layout, "new", range(300), 9, label="other")
    use(layout, "old")
    (check,) = judge(pipeline('{vs_current: ">= -1"}'), layout, "new")
    assert (check.found, check.holds) == (None, False)
    assert check.note == "the model in use, old, has no label that is defined like other"


def test_a_label_is_known_by_what_it_is_computed_from_whatever_it_is_called_and_what_is_beside_it(
    layout: Layout,
) -> None:
    evaluated(layout, "old", range(300), 8)
    evaluated(layout, "new", range(300), 8, label="late", beside="other")
    use(layout, "old")
    two = load_pipeline(
        "shop.yaml",
        (
            "label=[{name: late, expression: late > 0}, {name: other, expression: day > 3}]",
            'evaluate.require={late_accuracy: ">= 0.5", vs_current: ">= 0"}',
        ),
    )[0]
    accuracy, check = judge(two, layout, "new")
    assert accuracy.holds
    assert check.found == 0
    assert check.note.startswith("late_accuracy, on the 300 rows of both test splits")


def test_a_model_in_use_whose_training_was_begun_anew_is_compared_as_it_was_exported(layout: Layout) -> None:
    evaluated(layout, "same", range(300), 9)
    use(layout, "same")
    shutil.rmtree(layout.run("same"))
    shutil.rmtree(layout.dataset("of-same"))
    evaluated(layout, "same", range(300), 7)
    (check,) = judge(pipeline('{vs_current: ">= 0"}'), layout, "same")
    assert not check.holds
    assert "in use: 0.9000, this: 0.7000" in check.note
    shutil.rmtree(layout.artifact("a-same"))
    (check,) = judge(pipeline('{vs_current: ">= 0"}'), layout, "same")
    assert (check.holds, check.note) == (False, "of the model in use, same, there are no metrics any more")


def test_a_metric_that_is_not_measured_is_refused_before_anything_starts(layout: Layout) -> None:
    with pytest.raises(ConfigError) as refused:
        validate("shop.yaml", ('evaluate.require={acu: ">= 0.7", rmse: "< 3"}',))
    message = str(refused.value)
    assert "evaluate.require.acu: nothing is measured as 'acu'; did you mean 'auc'?" in message
    assert "nothing is measured as 'rmse'; expected one of: auc, log_loss, accuracy, vs_current" in message
    with pytest.raises(ConfigError, match=r"expected a bound such as .*, not '0.7'"):
        pipeline("{auc: '0.7'}")


def test_of_several_labels_each_metric_has_its_labels_name(layout: Layout) -> None:
    two = "label=[{name: late, expression: late > 0}, {name: amount, expression: weight, type: regression}]"
    require = 'evaluate.require={amount_rmse: "< 3", vs_current: ">= 0"}'
    assert compared_metric(*_evaluate_and_labels(two, require)) == "amount_rmse"
    assert compared_metric(*_evaluate_and_labels(two)) == "late_auc"


def _evaluate_and_labels(*overrides: str) -> Any:
    loaded, _ = load_pipeline("shop.yaml", overrides)
    return loaded.evaluate, loaded.label
