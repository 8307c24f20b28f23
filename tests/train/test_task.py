"""Loss, last layer and label belong together, or it is said in plain words what would."""

from typing import Any

import keras
import numpy as np
import pytest

from lakefit.config import ConfigError, PipelineSource
from lakefit.config.train import Train
from lakefit.dataset.features import Features, LabelFeature, NumericFeature
from lakefit.train.model import build_model
from lakefit.train.task import wants_one_hot, with_one_hot, with_probabilities

SOURCE = PipelineSource("p.yaml", {}, {}, "")
FEATURES = Features(numeric=(NumericFeature(name="x", fill=0.0),), categorical=())
LABELS = {
    "binary": LabelFeature(),
    "classes": LabelFeature(kind="classes", classes=("a", "b", "c")),
    "regression": LabelFeature(kind="regression"),
    "normalized": LabelFeature(kind="regression", offset=10.0, scale=2.0),
}


def section(units: int, activation: str | None, loss: Any) -> Train:
    dense = {"units": units} | ({"activation": activation} if activation else {})
    data = {"model": {"sequential": [{"Dense": dense}]}, "compile": {"loss": loss}}
    return Train.model_validate({**data, "fit": {"epochs": 1, "batch_size": 8}}, strict=False)


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
        ("regression", 1, None, "mean_squared_error"),
        ("regression", 1, "sigmoid", "huber"),
        ("normalized", 1, None, {"Huber": {"delta": 2.0}}),
        ("normalized", 1, "tanh", "mae"),
    ],
)
def test_what_belongs_together_is_compiled(label: str, units: int, activation: str | None, loss: Any) -> None:
    train = section(units, activation, loss)
    model = build_model(FEATURES, LABELS[label], train, SOURCE)
    assert model.compiled
    assert model.output.shape == (None, units)

    found = with_probabilities(model, train, LABELS[label]).predict({"numeric": np.ones((4, 1), np.float32)}, verbose=0)
    assert found.shape == (4, units)
    if label == "binary" and activation != "tanh":
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
        ("regression", 1, None, "binary_crossentropy", "is no loss for a label that is a number"),
        ("regression", 1, "softmax", "mean_squared_error", "softmax, keeps predictions between 0 and 1"),
        ("normalized", 1, "sigmoid", "mean_squared_error", "sigmoid, keeps predictions between 0 and 1"),
    ],
)
def test_what_does_not_belong_together_is_said(
    label: str, units: int, activation: str | None, loss: Any, said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        build_model(FEATURES, LABELS[label], section(units, activation, loss), SOURCE)


def test_one_hot_labels_are_made_for_the_losses_that_compare_with_them() -> None:
    assert wants_one_hot(section(3, "softmax", "categorical_crossentropy"))
    assert not wants_one_hot(section(3, "softmax", "sparse_categorical_crossentropy"))
    place = keras.ops.convert_to_tensor(np.array([[2.0], [0.0]], np.float32))
    inputs, label, weight = with_one_hot("inputs", place, "weight", classes=3)
    assert (inputs, weight) == ("inputs", "weight")
    assert np.asarray(label).tolist() == [[0, 0, 1], [1, 0, 0]]
