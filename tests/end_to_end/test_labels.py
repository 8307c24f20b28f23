"""Labels of classes and numbers, from raw file to scored rows: scikit-learn's wine and diabetes tables."""

import contextlib
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
from sklearn.datasets import load_diabetes, load_wine

from lakefit.cli import main

PIPELINE = """
name: table
source:
  tables: {{table: {{path: table.csv, format: csv, options: {{header: true}}, schema: "{schema}"}}}}
  rows: table
split: {{train: 0.6, validation: 0.2, test: 0.2, seed: 1}}
features: {{numeric: {{columns: [{columns}]}}}}
label: {label}
output: {{path: lake}}
train:
  devices: cpu
  model:
    sequential: [{{Dense: {{units: 32, activation: relu}}}}, {{Dense: {last}}}]
  compile: {{optimizer: {{Adam: {{learning_rate: 0.03}}}}, loss: {loss}, metrics: {metrics}}}
  fit: {{epochs: 15, batch_size: 16}}
score: {{input: table.csv, output: scored}}
"""
NAMES = ("barbera", "barolo", "grignolino")


def run(folder: Path, data: Any, target: list[Any], kind: str, **settings: str) -> tuple[dict[str, Any], Path, Path]:
    """Write a table, run its pipeline; return the metrics, the run's folder and the artifact's."""
    columns = [f"x{number}" for number in range(data.data.shape[1])]
    lines = [",".join([*map(str, row), str(y)]) for row, y in zip(data.data.tolist(), target, strict=True)]
    (folder / "table.csv").write_text("\n".join([",".join([*columns, "y"]), *lines, ""]))
    schema = ", ".join([*(f"{column} DOUBLE" for column in columns), f"y {kind}"])
    (folder / "table.yaml").write_text(PIPELINE.format(schema=schema, columns=", ".join(columns), **settings))
    with contextlib.chdir(folder):
        assert main(["run", "table.yaml"]) == 0
    (run_dir,) = (folder / "lake/table/runs").iterdir()
    (artifact,) = (folder / "lake/table/artifacts").iterdir()
    return json.loads((run_dir / "metrics.json").read_text()), run_dir, artifact


def exported(artifact: Path, data: Any) -> Any:
    """Return what the exported model gives for the table's rows."""
    model = keras.saving.load_model(artifact / "model.keras", safe_mode=True)
    inputs = {f"x{number}": column[:, None] for number, column in enumerate(data.data.T)}
    return model.predict(inputs, verbose=0)


def scored(folder: Path) -> dict[str, Any]:
    table = pq.read_table(folder / "scored")
    return {name: table[name].to_pylist() for name in table.column_names}


def test_classes(spark: Any, tmp_path: Path) -> None:
    data = load_wine()
    report, run_dir, artifact = run(
        tmp_path, data, [NAMES[place] for place in data.target], "STRING",
        label="{expression: y, type: classes, class_weights: balanced}",
        last="{units: 3}", loss="{CategoricalCrossentropy: {from_logits: true}}", metrics="[accuracy]",
    )  # fmt: skip

    test, baselines = report["metrics"]["test"], report["baselines"]
    assert list(test) == ["accuracy", "balanced_accuracy", "log_loss"]
    assert test["accuracy"] > 0.9 > baselines["prior"]["test"]["accuracy"]
    assert baselines["gradient_boosting"]["test"]["accuracy"] > 0.8

    description = json.loads((artifact / "artifact.json").read_text())
    assert tuple(description["labels"][0]["classes"]) == NAMES
    probabilities = exported(artifact, data)
    assert probabilities.shape == (len(data.target), 3)
    assert np.mean(probabilities.argmax(axis=1) == data.target) > 0.9

    found = scored(tmp_path)
    in_order = [np.array(sorted(rows)) for rows in (found["probabilities"], probabilities.tolist())]
    np.testing.assert_allclose(*in_order, atol=1e-5)
    for name, probability, of_each in zip(found["class"], found["probability"], found["probabilities"], strict=True):
        assert (NAMES.index(name), probability) == (int(np.argmax(of_each)), max(of_each))

    predictions = pq.read_table(run_dir / "predictions/test.parquet").to_pydict()
    agree = np.mean([label == of_row for label, of_row in zip(predictions["label"], predictions["class"], strict=True)])
    assert agree == pytest.approx(test["accuracy"])


def test_numbers_in_their_own_unit(spark: Any, tmp_path: Path) -> None:
    data = load_diabetes(scaled=False)
    report, run_dir, artifact = run(
        tmp_path, data, data.target.tolist(), "DOUBLE",
        label="{expression: y, type: regression, normalize: standard}",
        last="{units: 1}", loss="mean_squared_error", metrics="[MeanAbsoluteError]",
    )  # fmt: skip

    test, prior = report["metrics"]["test"], report["baselines"]["prior"]["test"]
    assert list(test) == ["rmse", "mae", "r2"]
    # The label's deviation is 77.
    assert 60 < prior["rmse"] < 95
    assert 40 < test["rmse"] < 0.9 * prior["rmse"]
    assert 40 < report["baselines"]["gradient_boosting"]["test"]["rmse"] < prior["rmse"]

    prediction = exported(artifact, data)
    assert prediction.dtype == np.float64
    assert np.sqrt(np.mean((prediction[:, 0] - data.target) ** 2)) < 0.9 * prior["rmse"]
    assert sorted(scored(tmp_path)["prediction"]) == pytest.approx(sorted(prediction[:, 0].tolist()), rel=1e-5)

    table = pq.read_table(run_dir / "predictions/test.parquet").to_pydict()
    assert set(np.round(table["label"], 3)) <= set(data.target.tolist())
    errors = np.array(table["label"]) - np.array(table["prediction"])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(test["rmse"])
