"""The exported model on cleaned rows does what preparation does: every kind of feature, any values."""

import json
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from lakefit.config.features import Features as Section
from lakefit.config.features import with_groups_listed
from lakefit.dataset.features import (
    BucketFeature,
    CategoricalFeature,
    DateFeature,
    Features,
    LabelFeature,
    MultiValuedFeature,
    NumericFeature,
)
from lakefit.export.model import exported_model, input_contract
from lakefit.prepare.features import encode, model_inputs
from learning import learner, section
from models import build

PARTS = ("year", "quarter", "month", "day", "weekday", "day_of_year", "hour", "minute")
WORDS = ("a", "ü", "[UNK]", "日本", " b ")
TIED = ((-1.0, 0.0), (-1.0, 0.2), (0.0, 0.3), (2.5, 0.4), (2.5, 0.7), (2.5, 0.8), (9.0, 0.9), (9.0, 1.0))
FEATURES = Features(
    numeric=(
        NumericFeature(name="far", fill=1e9, offset=1e9, scale=1e-3, indicator="far_missing"),
        NumericFeature(name="huge", fill=0.0, offset=1e299, scale=1e300),
        NumericFeature(name="tiny", fill=0.0, offset=0.0, scale=1e-300),
        NumericFeature(name="clipped", fill=7.0, low=-2.0, high=5.0, scale=2.0, indicator="clipped_missing"),
        NumericFeature(name="logged", fill=-1.0, normalize="log1p"),
        NumericFeature(name="power", fill=0.5, normalize="yeo_johnson", power=0.3, offset=0.1, scale=2.0),
        NumericFeature(name="near", fill=1e5, normalize="yeo_johnson", power=-20.0, center=1e5, scale=1e-4),
        NumericFeature(name="below", fill=-7.0, normalize="yeo_johnson", power=4.0, center=-7.0, low=-1e9, high=1e9),
        NumericFeature(name="power0", fill=0.5, normalize="yeo_johnson", power=0.0, low=-9.0, high=1e9),
        NumericFeature(name="power2", fill=0.5, normalize="yeo_johnson", power=2.0, low=-1e9, high=9.0),
        NumericFeature(name="ranked", fill=3.0, normalize="quantile", references=((-1.0, 0.0), (0.0, 0.3), (9.0, 1.0))),
        NumericFeature(name="one", fill=3.0, normalize="quantile", references=((2.0, 0.0), (2.0, 0.5), (2.0, 1.0))),
        NumericFeature(name="tied", fill=3.0, normalize="quantile", references=TIED),
    ),
    categorical=(
        CategoricalFeature(name="word", vocabulary=WORDS, counts=(5, 4, 3, 2, 1)),
        CategoricalFeature(name="nothing", rare=4),
        CategoricalFeature(name="hashed", hash_buckets=13),
        CategoricalFeature(name="number", vocabulary=("7", "-1"), counts=(2, 1)),
    ),
    bucketized=(BucketFeature(name="clipped", boundaries=(-1.5, 0.0, 2.5)),),
    multi_valued=(MultiValuedFeature(name="tags", max_values=3, vocabulary=WORDS, counts=(1,) * 5, rare=0, cut=0),),
    dates=tuple(DateFeature(name="when", part=part, cyclical=circle) for part in PARTS for circle in (False, True))[1:],
)  # fmt: skip
SECTION = Section.model_validate_json(
    json.dumps(
        with_groups_listed(
            {
                "numeric": {"columns": [feature.name for feature in FEATURES.numeric]},
                "categorical": [
                    {"columns": ["word", "nothing"]},
                    {"columns": ["hashed"], "hash_buckets": 13},
                    {"columns": ["number"]},
                ],
                "bucketize": {"columns": ["clipped"], "boundaries": [-1.5, 0.0, 2.5]},
                "multi_valued": {"columns": ["tags"], "max_values": 3},
                "dates": {"columns": ["when"], "parts": ["month"]},
            }
        )
    )
)
NUMBERS = [feature.name for feature in FEATURES.numeric]


def prepared(rows: pa.Table, features: Features = FEATURES) -> dict[str, np.ndarray[Any, Any]]:
    columns = encode(rows, features)
    return {
        "numeric": np.stack([columns[name].to_numpy() for name in features.numeric_columns], axis=1),
        "categorical": np.stack([columns[name].to_numpy() for name in features.categorical_columns], axis=1),
    }


def echo_of(features: Features) -> Any:
    """Return a model that gives the prepared numbers themselves."""
    inputs = {
        "numeric": keras.Input((len(features.numeric_columns),), dtype="float32", name="numeric"),
        "categorical": keras.Input((len(features.categorical_columns),), dtype="int32", name="categorical"),
    }
    return keras.Model(inputs, {name: keras.ops.copy(tensor) for name, tensor in inputs.items()})


@pytest.fixture(scope="module")
def models() -> tuple[Any, Any, Any]:
    """A model of numbers, the exported model made of it, and an exported model that gives the numbers themselves."""
    keras.utils.set_random_seed(1)
    layers = [{"Dense": {"units": 8, "activation": "tanh"}}, {"Dense": {"units": 1, "activation": "sigmoid"}}]
    bare = build(FEATURES, model={"sequential": layers}).predictor()
    exported = exported_model(bare, FEATURES, [LabelFeature()])
    signature = {tensor.name: tf.TensorSpec(tensor.shape, tensor.dtype) for tensor in exported.inputs}
    # As a graph: one by one its operations would take a third of a second.
    predicted = tf.function(exported, input_signature=[signature])
    echoed = tf.function(exported_model(echo_of(FEATURES), FEATURES, [LabelFeature()]), input_signature=[signature])
    return bare, exported, lambda inputs: (echoed(inputs), predicted(inputs))


finite = st.floats(allow_nan=False, allow_infinity=False)
edges = st.sampled_from([0.0, -0.0, 1e300, -1e300, 1e-300, 5e-324, 1e9, 1e9 + 1e-3, -1.5, 2.5, -1.0, 2.0, 9.0])
number = st.none() | edges | st.floats(-10, 10) | finite
text = st.none() | st.sampled_from(WORDS) | st.text(st.characters(exclude_categories=["Cs"]), min_size=1, max_size=6)
time = st.none() | st.datetimes()
row = st.fixed_dictionaries(
    {
        **dict.fromkeys(NUMBERS, number),
        "word": text,
        "nothing": text,
        "hashed": text,
        "number": st.none() | st.integers(-3, 9),
        "tags": st.none() | st.lists(text | st.just(""), max_size=5),
        "when": time,
    }
)
SCHEMA = pa.schema(
    [
        *((name, pa.float64()) for name in NUMBERS),
        ("word", pa.string()),
        ("nothing", pa.string()),
        ("hashed", pa.string()),
        ("number", pa.int32()),
        ("tags", pa.list_(pa.string())),
        ("when", pa.timestamp("us")),
    ]
)


@settings(max_examples=40, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(row, min_size=1, max_size=20))
@example([dict.fromkeys(SCHEMA.names)])
def test_features_and_the_bare_model_equal_the_exported_model(models: Any, rows: list[dict[str, Any]]) -> None:
    bare, _, both = models
    table = pa.Table.from_pylist(rows, SCHEMA)
    ours = prepared(table)
    assert np.isfinite(ours["numeric"]).all()
    inputs = {name: tf.constant(array) for name, array in model_inputs(table, SECTION).items()}
    echoed, predicted = both(inputs)
    theirs = {name: np.asarray(array) for name, array in echoed.items()}
    np.testing.assert_array_equal(theirs["categorical"], ours["categorical"])
    np.testing.assert_allclose(theirs["numeric"], ours["numeric"], rtol=1e-6, atol=1e-6)
    few = np.abs(ours["numeric"]).max(axis=1) < 1e6
    np.testing.assert_allclose(np.asarray(predicted)[few], np.asarray(bare(ours))[few], rtol=1e-5, atol=1e-6)


LEARNING = section(
    numeric=[
        {"columns": ["far"], "indicator": True},
        {"columns": ["huge", "tiny"], "normalize": "min_max", "fill": "mean"},
        {"columns": ["clipped"], "clip": {"robust_z": 3}, "normalize": "robust", "fill": "most_frequent"},
        {"columns": ["logged"], "clip": {"quantiles": [0.1, 0.9]}, "normalize": "log1p", "fill": 3},
        {"columns": ["power"], "normalize": "yeo_johnson"},
        {"columns": ["ranked", "one"], "normalize": "quantile"},
    ],
    categorical=[{"columns": ["word", "number"], "min_count": 2}, {"columns": ["hashed"], "hash_buckets": 5}],
    bucketize={"columns": ["clipped"], "boundaries": [0, 2.5]},
    multi_valued={"columns": ["tags"], "max_values": 3},
    dates={"columns": ["when"], "parts": ["year", "month", "weekday"]},
)
known = dict.fromkeys(NUMBERS, 1.0) | {"word": "a", "hashed": "b", "tags": ["a", "", None, "b", ""]}
bounded = st.none() | st.floats(-1e150, 1e150) | st.sampled_from([0.0, 1e9, 1e9 + 1e-3, 1e-300])
learned_row = st.tuples(row, st.fixed_dictionaries(dict.fromkeys(NUMBERS, bounded))).map(lambda two: two[0] | two[1])


def learned_and_exported(rows: list[dict[str, Any]], folder: Path) -> tuple[pa.Table, Features, Any]:
    """Return rows, what is learned from the first half of them, and the exported model that gives its numbers."""
    table = pa.Table.from_pylist([known, *rows, known | {"far": 2.0, "power": -3.0}], SCHEMA)
    features = learner(table, LEARNING, folder, training=len(table) // 2 + 1).learn()
    return table, features, exported_model(echo_of(features), features, [LabelFeature()])


def assert_same_numbers(model: Any, table: pa.Table, features: Features) -> None:
    ours = prepared(table, features)
    theirs = model({name: tf.constant(array) for name, array in model_inputs(table, LEARNING).items()})
    np.testing.assert_array_equal(np.asarray(theirs["categorical"]), ours["categorical"])
    np.testing.assert_allclose(np.asarray(theirs["numeric"]), ours["numeric"], rtol=1e-6, atol=1e-6)


@settings(max_examples=10, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(learned_row, max_size=20))
@example([{"tags": ["", "a", None]}, {"tags": [""]}, {"tags": [None, ""]}] * 3)
def test_what_is_learned_from_any_rows_is_exported(
    tmp_path_factory: pytest.TempPathFactory, rows: list[dict[str, Any]]
) -> None:
    table, features, model = learned_and_exported(rows, tmp_path_factory.mktemp("learned"))
    assert "" not in features.multi_valued[0].vocabulary
    assert_same_numbers(model, table, features)


def test_a_model_that_was_saved_and_loaded_gives_the_same_numbers(tmp_path: Path) -> None:
    rows = [{"tags": ["", "b", None], "power": float(i), "ranked": float(i % 3), "word": "ü"} for i in range(20)]
    table, features, model = learned_and_exported(rows, tmp_path)
    model.save(tmp_path / "model.keras")
    assert_same_numbers(keras.saving.load_model(tmp_path / "model.keras"), table, features)


@pytest.mark.parametrize("circle", [False, True])
def test_date_parts_are_those_of_the_calendar(circle: bool) -> None:
    moments = [
        datetime(1999, 12, 31, 23, 59, 59),
        datetime(2000, 2, 29),
        datetime(1900, 3, 1, 1, 1),
        datetime(1970, 1, 1),
    ]
    moments += [
        datetime(9999, 12, 31, 23, 59, 59, 999_999),
        datetime(1, 1, 1, 0, 0, 0, 1),
        datetime(2242, 12, 31, 23, 59, 59, 999_999),
    ]
    moments += [datetime(1600, 1, 1) + timedelta(days=37 * i, minutes=11 * i) for i in range(8_000)]
    parts = {
        "year": lambda t: t.year - 2000, "quarter": lambda t: (t.month - 1) // 3, "month": lambda t: t.month - 1,
        "day": lambda t: t.day - 1, "weekday": lambda t: t.weekday(),
        "day_of_year": lambda t: t.timetuple().tm_yday - 1, "hour": lambda t: t.hour, "minute": lambda t: t.minute,
    }  # fmt: skip
    sizes = {"quarter": 4, "month": 12, "day": 31, "weekday": 7, "day_of_year": 366, "hour": 24, "minute": 60}
    features = Features(dates=tuple(DateFeature(name="when", part=part, cyclical=circle) for part in PARTS))
    columns = encode(pa.table({"when": pa.array(moments, pa.timestamp("us"))}), features)
    for part, expected in parts.items():
        places = np.array([expected(moment) for moment in moments])
        if part == "year":
            assert columns["when_year"].to_pylist() == places.tolist()
        elif circle:
            angle = 2 * np.pi * places / sizes[part]
            np.testing.assert_allclose(columns[f"when_{part}_sin"].to_numpy(), np.sin(angle), atol=1e-6)
            np.testing.assert_allclose(columns[f"when_{part}_cos"].to_numpy(), np.cos(angle), atol=1e-6)
        else:
            assert columns[f"when_{part}"].to_pylist() == (places + 2).tolist()


def test_the_contract_names_every_input(models: Any) -> None:
    _, exported, _ = models
    assert {tensor.name for tensor in exported.inputs} == set(input_contract(FEATURES)) == set(SECTION.columns)
