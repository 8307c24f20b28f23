"""Every kind of label from raw file to scored rows: the examples in conf/, and one pipeline of all that they lack."""

import contextlib
import json
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from sklearn.datasets import load_breast_cancer, load_diabetes, load_wine

from lakefit.cli import main
from shop import ROOT

NAMES = ("class_0", "class_1", "class_2")


def run(folder: Path, file: Path, name: str) -> tuple[dict[str, Any], Path, Path]:
    """Run a pipeline file in a folder; return the metrics, the run's folder and the artifact's."""
    with contextlib.chdir(folder):
        assert main(["run", str(file)]) == 0
        current = json.loads(next(Path().rglob("current.json")).read_text())
    (lake,) = (path.parent for path in folder.rglob("current.json"))
    assert lake.name == name
    run_dir, artifact = lake / "runs" / current["run"], lake / "artifacts" / current["artifact"]
    return json.loads((run_dir / "metrics.json").read_text()), run_dir, artifact


def example(folder: Path, name: str) -> tuple[dict[str, Any], Path, Path]:
    with contextlib.chdir(folder):
        assert main(["example", name, f"data/{name}"]) == 0
        # Where its data lie is what conf/ says, so the file is the same.
        written = Path(f"data/{name}/{name}.yaml").read_text()
        assert (
            written.replace(f"data/{name}/{name}.yaml", f"conf/{name}.yaml") == (ROOT / f"conf/{name}.yaml").read_text()
        )
    return run(folder, Path(f"data/{name}/{name}.yaml"), name)


def exported(artifact: Path, data: Any) -> Any:
    """Return what the exported model gives for the table's rows."""
    model = keras.saving.load_model(artifact / "model.keras", safe_mode=True)
    names = [name.replace(" ", "_").replace("/", "_") for name in data.feature_names]
    return model.predict(dict(zip(names, data.data.T[:, :, None], strict=True)), verbose=0)


def table(folder: Path) -> dict[str, Any]:
    return pq.read_table(folder).to_pydict()


def test_classification_is_as_good_as_it_should_be(spark: Any, tmp_path: Path) -> None:
    report, _, artifact = example(tmp_path, "classification")
    assert report["metrics"]["test"]["accuracy"] >= 0.95
    data = load_breast_cancer()
    assert np.mean((exported(artifact, data)[:, 0] > 0.5) == (data.target == 0)) > 0.96


def test_classes(spark: Any, tmp_path: Path) -> None:
    report, run_dir, artifact = example(tmp_path, "multiclass")
    data = load_wine()
    test, baselines = report["metrics"]["test"], report["baselines"]
    assert list(test) == ["accuracy", "balanced_accuracy", "log_loss"]
    assert test["accuracy"] > 0.9 > baselines["prior"]["test"]["accuracy"]
    assert baselines["gradient_boosting"]["test"]["accuracy"] > 0.8

    description = json.loads((artifact / "artifact.json").read_text())
    assert tuple(description["labels"][0]["classes"]) == NAMES
    probabilities = exported(artifact, data)
    assert probabilities.shape == (len(data.target), 3)
    assert np.mean(probabilities.argmax(axis=1) == data.target) > 0.9

    found = table(tmp_path / "data/multiclass/predictions")
    in_order = [np.array(sorted(rows)) for rows in (found["probabilities"], probabilities.tolist())]
    np.testing.assert_allclose(*in_order, atol=1e-5)
    for name, probability, of_each in zip(found["class"], found["probability"], found["probabilities"], strict=True):
        assert (NAMES.index(name), probability) == (int(np.argmax(of_each)), max(of_each))

    predictions = table(run_dir / "predictions/test.parquet")
    agree = np.mean([label == of_row for label, of_row in zip(predictions["label"], predictions["class"], strict=True)])
    assert agree == pytest.approx(test["accuracy"])


@pytest.mark.slow
def test_numbers_in_their_own_unit(spark: Any, tmp_path: Path) -> None:
    report, run_dir, artifact = example(tmp_path, "regression")
    data = load_diabetes(scaled=False)
    test, prior = report["metrics"]["test"], report["baselines"]["prior"]["test"]
    assert list(test) == ["rmse", "mae", "r2"]
    # The label's deviation is 77.
    assert 60 < prior["rmse"] < 95
    assert 40 < test["rmse"] < 0.9 * prior["rmse"]
    assert 40 < report["baselines"]["gradient_boosting"]["test"]["rmse"] < prior["rmse"]

    prediction = exported(artifact, data)
    assert prediction.dtype == np.float64
    assert np.sqrt(np.mean((prediction[:, 0] - data.target) ** 2)) < 0.9 * prior["rmse"]
    scored = table(tmp_path / "data/regression/predictions")["prediction"]
    assert sorted(scored) == pytest.approx(sorted(prediction[:, 0].tolist()), rel=1e-5)

    predictions = table(run_dir / "predictions/test.parquet")
    assert set(np.round(predictions["label"], 3)) <= set(data.target.tolist())
    errors = np.array(predictions["label"]) - np.array(predictions["prediction"])
    assert np.sqrt(np.mean(errors**2)) == pytest.approx(test["rmse"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("file", "data"),
    [
        ("multi_output.yaml", "flights"),
        ("functional.yaml", "flights"),
        *((f"regularization/{path.name}", "classification") for path in (ROOT / "conf/regularization").iterdir()),
    ],
)
def test_every_other_example_runs_and_beats_the_prior(spark: Any, tmp_path: Path, file: str, data: str) -> None:
    with contextlib.chdir(tmp_path):
        assert main(["example", data, f"data/{data}"]) == 0
    report, _, _ = run(tmp_path, ROOT / "conf" / file, Path(file).stem)
    test, prior = report["metrics"]["test"], report["baselines"]["prior"]["test"]
    for name in test:
        if name.endswith("auc"):
            assert test[name] > prior[name] + 0.1
    assert data == "flights" or test["accuracy"] >= 0.95


SEVERAL = """
name: several
source:
  tables:
    posts:
      path: posts.csv
      format: csv
      options: {header: true}
      schema: "id INT, length DOUBLE, author STRING, words STRING, vector STRING, topics STRING, likes DOUBLE"
  rows: posts
  query: |
    SELECT p.* EXCEPT (vector), transform(split(p.vector, ' '), x -> CAST(x AS DOUBLE)) AS vector FROM posts p
clean:
  - {column: words, parse: {as: list, separator: " "}}
  - {column: topics, parse: {as: list, separator: " "}}
split: {train: 0.6, validation: 0.2, test: 0.2, seed: 1}
features:
  numeric: {columns: [length]}
  categorical: {columns: [author], embedding: 3}
  multi_valued: {columns: [words], max_values: 3}
  tensors: {columns: [vector], shape: [2, 2]}
label:
  - {name: liked, expression: likes > 10, weight: 1 + length / 100}
  - {name: likes, expression: likes, type: regression, normalize: standard}
  - {name: about, expression: "coalesce(topics, array())", type: multi_label} # NULL would be no label
output: {path: lake}
train:
  devices: cpu
  model: own_several:of_posts
  compile:
    optimizer: {AdamW: {learning_rate: 0.02, use_ema: true, global_clipnorm: 5.0}}
    loss: {likes: huber}
    loss_weights: {liked: 1.0, likes: 0.5, about: 2.0}
    metrics: {liked: [accuracy, AUC], about: [accuracy]}
    weighted_metrics: {liked: [AUC]}
  fit: {epochs: 12, batch_size: 32}
  callbacks: [{ReduceLROnPlateau: {monitor: val_liked_auc, mode: max}}]
score: {input: posts.csv, output: scored, keys: [id]}
"""
OWN = """
import keras

class Tower(keras.Model):
    def __init__(self, data):
        super().__init__()
        self.embedding = keras.layers.Embedding(data.categories("author"), 2)
        self.flat = keras.layers.Flatten()
        self.hidden = keras.layers.Dense(24, activation="relu")
        self.dropout = keras.layers.Dropout(0.1)
        self.outs = {
            label.name: keras.layers.Dense(label.outputs, None if label.kind == "regression" else "sigmoid")
            for label in data.labels
        }

    def call(self, inputs, training=False):
        author = self.embedding(inputs["categorical"][:, 0])
        x = keras.ops.concatenate([inputs["numeric"], author, self.flat(inputs["vector"])], axis=1)
        x = self.dropout(self.hidden(x), training=training)
        return {name: layer(x) for name, layer in self.outs.items()}

def of_posts(data):
    assert data.vocabulary("author")
    return Tower(data)
"""


@pytest.fixture
def posts(tmp_path: Path) -> Iterator[Path]:
    dice = np.random.default_rng(0)
    lines = ["id,length,author,words,vector,topics,likes"]
    for number in range(500):
        length, author, vector = dice.uniform(0, 20), dice.choice(list("abc")), dice.normal(size=4).round(3)
        topics = " ".join(name for name, yes in (("art", vector[0] > 0), ("law", vector[1] > 0.5)) if yes)
        words = " ".join(dice.choice(["x", "y", "z"], dice.integers(1, 5)))
        likes = round(length + {"a": 0, "b": 4, "c": -4}[str(author)] + vector[2], 3)
        lines.append(f"{number},{length:.3f},{author},{words},{' '.join(map(str, vector))},{topics},{likes}")
    (tmp_path / "posts.csv").write_text("\n".join([*lines, ""]))
    (tmp_path / "several.yaml").write_text(SEVERAL)
    (tmp_path / "own_several.py").write_text(OWN)
    yield tmp_path
    sys.modules.pop("own_several", None)


def test_several_labels_of_a_model_of_ones_own(spark: Any, posts: Path, capsys: pytest.CaptureFixture[str]) -> None:
    report, run_dir, artifact = run(posts, Path("several.yaml"), "several")
    assert "the model is checked after prepare: the vocabulary of 'author' is learned" in capsys.readouterr().out
    test, prior = report["metrics"]["test"], report["baselines"]["prior"]["test"]
    assert list(test) == [
        "liked_auc", "liked_log_loss", "liked_accuracy", "likes_rmse", "likes_mae", "likes_r2",
        "about_auc", "about_log_loss", "about_f1", "about_exact_match",
    ]  # fmt: skip
    assert test["liked_auc"] > 0.9 > prior["liked_auc"]
    assert test["likes_rmse"] < 0.6 * prior["likes_rmse"]
    assert test["about_auc"] > 0.9
    assert report["baselines"]["gradient_boosting"]["test"]["about_auc"] > 0.9

    history = json.loads((run_dir / "history.json").read_text())
    assert {"liked_accuracy", "val_about_accuracy", "likes_loss", "liked_weighted_auc"} <= set(history)

    # What scores needs none of the code: the model as it was exported, on the raw rows of the test split.
    scored = {row["_row"]: row for row in pq.read_table(posts / "scored").to_pylist()}
    assert len(scored) == 500
    for row in pq.read_table(run_dir / "predictions/test.parquet").to_pylist():
        again = scored[row["_row"]]
        assert again["liked_probability"] == pytest.approx(row["liked_probability"], abs=1e-5)
        assert again["likes_prediction"] == pytest.approx(row["likes_prediction"], abs=1e-4)
        assert again["about_probabilities"] == pytest.approx(row["about_probabilities"], abs=1e-5)
        assert again["about_classes"] == row["about_classes"]

    description = json.loads((artifact / "artifact.json").read_text())
    assert description["outputs"]["likes"] == "prediction in the label's own unit: float64 (n, 1)"
    assert description["inputs"]["vector"] == "float32 (n, 2, 2)"
    if description["no_model_keras"] is not None:
        assert not (artifact / "model.keras").exists()
    model = tf.saved_model.load(str(artifact / "saved_model"))
    served = model.serve(
        {
            "length": tf.constant([[3.0]], tf.float64), "author": tf.constant([["b"]]),
            "words": tf.constant([["x", "", ""]]), "vector": tf.zeros((1, 2, 2)),
        }
    )  # fmt: skip
    assert {name: value.shape.as_list() for name, value in served.items()} == {
        "liked": [1, 1], "likes": [1, 1], "about": [1, 2],
    }  # fmt: skip
