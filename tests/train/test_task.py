"""Loss, last layer and label belong together, or it is said in plain words what would."""

from typing import Any

import keras
import numpy as np
import pytest

from lakefit.config import ConfigError
from lakefit.dataset.features import Features, LabelFeature, NumericFeature
from lakefit.train.model import BuiltModel
from models import build

FEATURES = Features(numeric=(NumericFeature(name="x", fill=0.0),), categorical=())
LABELS = {
    "binary": LabelFeature(),
    "classes": LabelFeature(kind="classes", classes=("a", "b", "c")),
    "several": LabelFeature(kind="multi_label", classes=("a", "b", "c")),
    "regression": LabelFeature(kind="regression"),
    "normalized": LabelFeature(kind="regression", offset=10.0, scale=2.0),
}


def built(label: str, units: int, activation: str | None, loss: Any, **compile_: Any) -> BuiltModel:
    dense = {"units": units} | ({"activation": activation} if activation else {})
    return build(FEATURES, LABELS[label], model={"sequential": [{"Dense": dense}]}, compile={"loss": loss, **compile_})


@pytest.mark.parametrize(
    ("label", "units", "activation", "loss"),
    [
        ("binary", 1, "sigmoid", "binary_crossentropy"),
        ("binary", 1, "sigmoid", {"BinaryFocalCrossentropy": {"gamma": 1.0}}),
        ("binary", 1, None, {"BinaryCrossentropy": {"from_logits": True}}),
        ("binary", 1, "sigmoid", "mean_squared_error"),
        ("binary", 1, "tanh", "hinge"),
        ("classes", 3, "softmax", "sparse_categorical_crossentropy"),
        ("classes", 3, "softmax", {"CategoricalCrossentropy": {"label_smoothing": 0.1}}),
        ("classes", 3, None, {"SparseCategoricalCrossentropy": {"from_logits": True}}),
        ("several", 3, "sigmoid", "binary_crossentropy"),
        ("several", 3, None, {"BinaryCrossentropy": {"from_logits": True}}),
        ("regression", 1, None, "mean_squared_error"),
        ("regression", 1, "sigmoid", "huber"),
        ("normalized", 1, None, {"Huber": {"delta": 2.0}}),
        ("normalized", 1, "tanh", "mae"),
    ],
)
def test_what_belongs_together_is_compiled(label: str, units: int, activation: str | None, loss: Any) -> None:
    made = built(label, units, activation, loss)
    assert made.model.compiled
    assert made.model.output.shape == (None, units)

    # Far from 0, where a logit might pass for a probability.
    found = made.predictor().predict({"numeric": np.full((4, 1), 9, np.float32)}, verbose=0)
    assert found.shape == (4, units)
    if label == "several" or (label == "binary" and activation != "tanh"):
        assert ((found > 0) & (found < 1)).all()
    if label == "classes":
        np.testing.assert_allclose(found.sum(axis=1), 1, rtol=1e-6)


@pytest.mark.parametrize(
    ("label", "units", "activation", "loss", "said"),
    [
        (
            "binary",
            1,
            "sigmoid",
            "sparse_categorical_crossentropy",
            "is no loss for a label of 0 and 1, expected",
        ),
        ("binary", 2, "softmax", "binary_crossentropy", r"gives \(None, 2\), and \(None, 1\) is due"),
        (
            "binary",
            1,
            None,
            "binary_crossentropy",
            "activation, linear, is not sigmoid, which binary_crossentropy wants",
        ),
        (
            "binary",
            1,
            "sigmoid",
            {"BinaryCrossentropy": {"from_logits": True}},
            "sigmoid, is not linear, which .*logits",
        ),
        ("classes", 3, "softmax", "binary_crossentropy", r"no loss for a label of one class of several.*units: 3"),
        ("classes", 2, "softmax", "sparse_categorical_crossentropy", r"gives \(None, 2\), and \(None, 3\) is due"),
        ("classes", 3, "sigmoid", "categorical_crossentropy", "sigmoid, is not softmax"),
        ("several", 3, "softmax", "categorical_crossentropy", "no loss for a label of any number of classes"),
        ("several", 3, "softmax", "binary_crossentropy", "softmax, is not sigmoid"),
        ("regression", 1, None, "binary_crossentropy", "is no loss for a label that is a number"),
        ("regression", 1, "softmax", "mean_squared_error", "softmax, keeps predictions between 0 and 1"),
        ("normalized", 1, "sigmoid", "mean_squared_error", "sigmoid, keeps predictions between 0 and 1"),
    ],
)
def test_what_does_not_belong_together_is_said(
    label: str, units: int, activation: str | None, loss: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        built(label, units, activation, loss)


def test_one_hot_labels_are_made_for_the_losses_that_compare_with_them() -> None:
    sparse = built("classes", 3, "softmax", "sparse_categorical_crossentropy")
    assert sparse.takes_batches_as_they_are
    places = keras.ops.convert_to_tensor(np.array([[2.0], [0.0]], np.float32))
    arrays = {"numeric": np.ones((2, 1), np.float32)}
    inputs, label, weight = built("classes", 3, "softmax", "categorical_crossentropy").batch(arrays, places, "weight")
    assert (inputs, weight) == (arrays, "weight")
    assert np.asarray(label).tolist() == [[0, 0, 1], [1, 0, 0]]


@pytest.mark.parametrize(
    ("label", "units", "activation", "loss", "metric", "said"),
    [
        ("binary", 1, "sigmoid", None, "SparseCategoricalAccuracy", "is no metric for a label of 0 and 1"),
        ("classes", 3, "softmax", None, "AUC", "no metric for a label of one class.*categorical_crossentropy"),
        ("classes", 3, "softmax", None, "binary_accuracy", "no metric for a label of one class"),
        ("classes", 3, "softmax", "categorical_crossentropy", "SparseCategoricalAccuracy", "no metric for"),
        ("several", 3, "sigmoid", None, "CategoricalAccuracy", "no metric for a label of any number of classes"),
        ("regression", 1, None, None, "accuracy", "no metric for a label that is a number.*MeanAbsoluteError"),
        ("regression", 1, None, None, {"Precision": {"thresholds": 0.4}}, "Precision is no metric"),
        (
            "binary",
            1,
            None,
            {"BinaryCrossentropy": {"from_logits": True}},
            "AUC",
            "AUC probabilities: give it from_log",
        ),
    ],
)
def test_a_metric_of_another_kind_of_label_is_refused(
    label: str, units: int, activation: str | None, loss: Any, metric: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        built(label, units, activation, loss, metrics=[metric])


@pytest.mark.parametrize(
    ("label", "activation", "loss", "truth", "found", "share"),
    [
        ("binary", None, {"BinaryCrossentropy": {"from_logits": True}}, [[1], [1], [0]], [[0.2], [-9], [-0.2]], 2 / 3),
        ("several", "sigmoid", None, [[1, 1, 0], [0, 0, 0]], [[0.9, 0.1, 0.1], [0.1, 0.1, 0.1]], 5 / 6),
        ("several", None, {"BinaryCrossentropy": {"from_logits": True}}, [[1, 1, 0]], [[0.2, -1, -1]], 2 / 3),
        ("classes", "softmax", "categorical_crossentropy", [[0, 0, 1], [1, 0, 0]], [[0, 0.2, 0.8]] * 2, 0.5),
        ("classes", "softmax", None, [[2], [0]], [[0, 0.2, 0.8]] * 2, 0.5),
    ],
)
def test_accuracy_is_the_share_of_right_answers_for_every_kind_of_label(
    label: str, activation: str | None, loss: Any, truth: Any, found: Any, share: float
) -> None:
    units = 1 if label == "binary" else 3
    made = built(label, units, activation, loss, metrics=["accuracy"])
    made.model.compute_metrics(None, np.array(truth, np.float32), np.array(found, np.float32), None)
    assert float(made.model.get_metrics_result()["accuracy"]) == pytest.approx(share)
