"""Functional models: named layers with their inputs, columns and groups as inputs, several outputs."""

from typing import Any

import keras
import numpy as np
import pytest

from lakefit.config import ConfigError
from lakefit.dataset.features import (
    BucketFeature,
    CategoricalFeature,
    DateFeature,
    Features,
    LabelFeature,
    MultiValuedFeature,
    NumericFeature,
)
from lakefit.train.inputs import Inputs
from lakefit.train.model import BuiltModel
from models import SIGMOID, build, describe

FEATURES = Features(
    numeric=(NumericFeature(name="far", fill=0.0, indicator="far_missing"), NumericFeature(name="old", fill=0.0)),
    categorical=(CategoricalFeature(name="city", vocabulary=tuple("abc"), counts=(1, 1, 1)),),
    bucketized=(BucketFeature(name="far", boundaries=(1.0, 2.0)),),
    multi_valued=(MultiValuedFeature(name="tags", max_values=2, vocabulary=("x",), counts=(1,), rare=0, cut=0),),
    dates=(
        DateFeature(name="day", part="weekday", cyclical=False),
        DateFeature(name="day", part="month", cyclical=True),
    ),
)
RELU = {"Dense": {"units": 4, "activation": "relu"}}
LATE, DELAY = LabelFeature(name="late"), LabelFeature(name="delay", kind="regression", offset=3.0, scale=2.0)


def functional(layers: dict[str, Any], *labels: LabelFeature, **rest: Any) -> BuiltModel:
    compile_ = {"compile": rest.pop("compile")} if "compile" in rest else {}
    return build(FEATURES, *labels, model={"functional": {"layers": layers, **rest}}, **compile_)


def rows(count: int = 3) -> dict[str, Any]:
    dice = np.random.default_rng(0)
    return {
        "numeric": dice.normal(size=(count, len(FEATURES.numeric_columns))).astype(np.float32),
        "categorical": dice.integers(0, 3, (count, len(FEATURES.categorical_columns))).astype(np.int32),
    }


def test_a_column_is_all_that_became_of_it_and_a_group_all_of_its_columns() -> None:
    inputs = describe(FEATURES, city=7).inputs()
    widths = {name: inputs.encoded(name).shape[1] for name in inputs.names}
    # far: the number, its indicator, and its bucket of 5 indices in 3 dimensions. day: 9 weekdays in 3, and a circle.
    assert {name: widths[name] for name in ("far", "old", "city", "tags", "day")} == {
        "far": 5, "old": 1, "city": 7, "tags": 2, "day": 5,
    }  # fmt: skip
    assert {name: widths[name] for name in ("numeric", "categorical", "bucketize", "multi_valued", "dates")} == {
        "numeric": 5, "categorical": 7, "bucketize": 3, "multi_valued": 2, "dates": 5,
    }  # fmt: skip
    assert inputs.encoded().shape[1] == 5 + 7 + 3 + 2 + 3
    assert inputs.encoded("far", "numeric", "city").shape[1] == 3 + 5 + 7, "what is asked for twice comes once"


def test_values_of_columns_are_those_of_the_batch() -> None:
    import keras

    inputs = describe(FEATURES).inputs()
    echo = keras.Model(inputs.tensors, {"old": inputs.encoded("old"), "tags": inputs.indices("tags")})
    batch = rows()
    found = echo(batch)
    np.testing.assert_array_equal(found["old"][:, 0], batch["numeric"][:, FEATURES.numeric_columns.index("old")])
    places = [FEATURES.categorical_columns.index(name) for name in ("tags_0", "tags_1")]
    np.testing.assert_array_equal(found["tags"], batch["categorical"][:, places])


def test_what_fills_a_list_up_adds_nothing_to_the_sum_of_its_embeddings() -> None:
    import keras

    inputs = describe(FEATURES).inputs()
    pooled = keras.Model(inputs.tensors, inputs.encoded("tags"))
    batch = {name: np.repeat(array[:1], 3, axis=0) for name, array in rows().items()}
    first, second = (FEATURES.categorical_columns.index(name) for name in ("tags_0", "tags_1"))
    batch["categorical"][:, [first, second]] = [[2, 0], [2, 2], [0, 0]]
    one, two, none = np.asarray(pooled(batch))
    np.testing.assert_allclose(two, 2 * one, rtol=1e-6)
    assert not none.any()
    assert one.any()


def test_layers_take_what_stands_above_or_what_they_name() -> None:
    made = functional(
        {
            "sky": {"layer": RELU, "inputs": "where"},
            "both": {"layer": "Concatenate", "inputs": ["sky", "old"]},
            "deep": {"layer": RELU},
            "side": {"layer": RELU, "inputs": ["deep", "city", "old"]},
            "out": {"layer": SIGMOID},
        },
        inputs={"where": ["city", "tags"]},
    )
    assert made.predictor()(rows()).shape == (3, 1)
    assert made.model.get_layer("lakefit_embedding_0").output.shape == (None, 3), "one embedding for both uses"
    assert len([layer for layer in made.model.layers if "embedding" in layer.name]) == 2


def test_an_embedding_of_ones_own_gets_the_index_and_must_be_large_enough() -> None:
    layers = {"city": None, "out": {"layer": SIGMOID}}
    layers["city_embedding"] = layers.pop("city") or {
        "layer": {"Embedding": {"input_dim": 5, "output_dim": 9}},
        "inputs": "city",
    }
    ordered = {name: layers[name] for name in ("city_embedding", "out")}
    (embedding,) = (one for one in functional(ordered).model.layers if isinstance(one, keras.layers.Embedding))
    assert embedding.output.shape == (None, 9)
    ordered["city_embedding"]["layer"]["Embedding"]["input_dim"] = 4
    with pytest.raises(ConfigError, match=r"input_dim: 'city' has 5 indices .* more than 4: give input_dim: 5"):
        functional(ordered)


def test_several_labels_have_an_output_a_loss_and_metrics_each() -> None:
    layers = {
        "shared": {"layer": RELU, "inputs": "numeric"},
        "late": {"layer": SIGMOID, "inputs": "shared"},
        "minutes": {"layer": {"Dense": {"units": 1}}, "inputs": "shared"},
    }
    outputs = {"late": "late", "delay": "minutes"}
    compile_ = {
        "loss": {"delay": "huber"},
        "loss_weights": {"late": 2.0, "delay": 0.5},
        "metrics": {"late": ["accuracy", "AUC", "AUC"], "delay": ["MeanAbsoluteError"]},
    }
    made = functional(layers, LATE, DELAY, outputs=outputs, compile=compile_)
    assert made.logged is not None
    assert [name for name in made.logged if not name.startswith("val_")] == [
        "loss", "late_loss", "late_accuracy", "late_auc", "late_auc_1", "delay_loss", "delay_mean_absolute_error",
    ]  # fmt: skip
    label = {"late": np.array([[0.0], [1.0], [1.0]], np.float32), "delay": np.zeros((3, 1), np.float32)}
    weights = {"late": np.ones(3, np.float32), "delay": np.array([1, 0, 0], np.float32)}
    history = made.model.fit(rows(), label, sample_weight=weights, verbose=0, epochs=1)
    assert set(history.history) == {name for name in made.logged if not name.startswith("val_")}
    assert set(made.predictor()(rows())) == {"late", "delay"}


@pytest.mark.parametrize(
    ("layers", "rest", "said"),
    [
        ({"a": {"layer": SIGMOID}}, {}, "layers.a: the first layer has none above it: say what its inputs are"),
        ({"a": {"layer": SIGMOID, "inputs": "cty"}}, {}, "a.inputs: nothing is called 'cty'; did you mean 'city'?"),
        (
            {"a": {"layer": SIGMOID, "inputs": ["city", "b"]}, "b": {"layer": SIGMOID}},
            {},
            "a.inputs.1: .*'b' stands below",
        ),
        ({"city": {"layer": SIGMOID, "inputs": "old"}}, {}, "layers.city: 'city' is the name of a column or a group"),
        ({"x": {"layer": SIGMOID, "inputs": "x"}}, {"inputs": {"x": ["old"]}}, "'x' is the name of an entry of inputs"),
        ({"a": {"layer": SIGMOID, "inputs": "x"}}, {"inputs": {"x": ["odl"]}}, "inputs.x.0: .* did you mean 'old'"),
        (
            {"a": {"layer": RELU, "inputs": "old"}, "b": {"layer": SIGMOID, "inputs": "old"}},
            {},
            "layers.a: nothing takes 'a', and it is no output",
        ),
        ({"a": {"layer": SIGMOID, "inputs": "old"}}, {"inputs": {"x": ["city"]}}, "inputs.x: nothing takes 'x'"),
        ({"a": {"layer": SIGMOID, "inputs": "old"}}, {"outputs": "c"}, "outputs: there is no layer 'c'"),
        ({"a": {"layer": SIGMOID, "inputs": "old"}}, {"outputs": {"lable": "a"}}, "there is no label 'lable'; did you"),
        (
            {"a": {"layer": {"Dot": {"axes": 1}}, "inputs": ["old", "city"]}, "b": {"layer": SIGMOID}},
            {},
            "does not fit",
        ),
    ],
)
def test_what_does_not_go_together_is_said_with_its_place(
    layers: dict[str, Any], rest: dict[str, Any], said: str
) -> None:
    with pytest.raises(ConfigError, match=said):
        functional(layers, **rest)


def test_of_several_labels_each_needs_its_own() -> None:
    layers = {"late": {"layer": SIGMOID, "inputs": "old"}}
    with pytest.raises(ConfigError, match="no layer gives the label 'delay'"):
        functional(layers, LATE, DELAY)
    layers["delay"] = {"layer": {"Dense": {"units": 1}}, "inputs": "old"}
    for compile_, said in (
        ({"loss": "huber"}, "compile.loss: there are several labels: give each a loss"),
        ({"metrics": ["AUC"]}, "compile.metrics: there are several labels"),
        ({"loss": {"lat": "huber"}}, "compile.loss.lat: there is no label 'lat'; did you mean 'late'"),
        ({"loss": {"delay": "binary_crossentropy"}}, "compile.loss.delay: binary_crossentropy is no loss"),
        ({"metrics": {"delay": ["AUC"]}}, "compile.metrics.delay.0: AUC is no metric for a label that is a number"),
        ({"loss_weights": {"x": 1.0}}, "loss_weights.x: there is no label"),
    ):
        with pytest.raises(ConfigError, match=said):
            functional(layers, LATE, DELAY, compile=compile_)
    with pytest.raises(ConfigError, match="sequential: one layer after the other gives one prediction"):
        build(FEATURES, LATE, DELAY)


def test_inputs_that_are_not_there_have_no_group() -> None:
    inputs = describe(Features(numeric=(NumericFeature(name="a", fill=0.0),))).inputs()
    assert isinstance(inputs, Inputs)
    assert set(inputs.tensors) == {"numeric"}
    assert inputs.names == ("a", "numeric")
    assert inputs.encoded().shape == (None, 1)
    inputs = describe(Features(numeric=(), categorical=FEATURES.categorical)).inputs()
    assert set(inputs.tensors) == {"categorical"}
    assert inputs.names == ("city", "categories", "categorical")
