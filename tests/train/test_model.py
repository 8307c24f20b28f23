"""The model that a pipeline file describes, and the exported one: Keras's own words checked, features inside."""

from typing import Any

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf

from lakefit.config import ConfigError
from lakefit.dataset.features import CategoricalFeature, Features, LabelFeature, NumericFeature
from lakefit.export.model import exported_model
from lakefit.prepare.features import encode
from lakefit.train.compiled import build_callbacks
from lakefit.train.inputs import embedding_size
from models import SIGMOID, SOURCE, build, train


def numeric(name: str, indicator: bool, offset: float, scale: float) -> NumericFeature:
    mark = f"{name}_missing" if indicator else None
    return NumericFeature(name=name, fill=offset + scale, offset=offset, scale=scale, indicator=mark)


# Names that layers might have too, and a column that float32 can't hold before it is scaled.
FEATURES = Features(
    numeric=(numeric("numbers", True, 1e9, 1e-3), numeric("numeric", True, -2.0, 7.0)),
    categorical=(
        CategoricalFeature(name="model", vocabulary=("a", "ü", "[UNK]"), counts=(3, 2, 1), rare=0),
        CategoricalFeature(name="categorical", vocabulary=(), counts=(), rare=4),
    ),
)


def test_features_in_spark_and_the_bare_model_equal_the_exported_model_on_cleaned_rows() -> None:
    keras.utils.set_random_seed(1)
    model = build(FEATURES, model={"sequential": [{"Dense": {"units": 4}}, SIGMOID]}).predictor()
    rows = pa.table(
        {
            "numbers": [1e9, 1e9 + 1.5e-3, None, 1e9 - 4e-3, 1e9],
            "numeric": pa.array([None, 5.0, -2.0, None, 1e6], pa.float64()),
            "model": ["a", None, "ü", "never seen", "[UNK]"],
            "categorical": ["x", None, "y", "", "z"],
        }
    )
    encoded = encode(rows, FEATURES)
    matrices = {
        "numeric": np.stack([encoded[name].to_numpy() for name in FEATURES.numeric_columns], axis=1),
        "categorical": np.stack([encoded[name].to_numpy() for name in FEATURES.categorical_columns], axis=1),
    }
    assert matrices["numeric"][1, 0] == pytest.approx(1.5, abs=1e-4)
    assert matrices["categorical"][:, 0].tolist() == [2, 0, 3, 1, 4]
    cleaned = {
        **{n: tf.constant(np.array(rows[n].to_pylist(), float)[:, None]) for n in ("numbers", "numeric")},
        **{n: tf.constant([[v or ""] for v in rows[n].to_pylist()]) for n in ("model", "categorical")},
    }
    bare = model(matrices).numpy()
    exported = exported_model(model, FEATURES, [LabelFeature()])(cleaned).numpy()
    np.testing.assert_allclose(exported[:3], bare[:3], atol=1e-6)
    # A text of no characters is a null to the model; cleaning has made it one before.
    np.testing.assert_allclose(exported[4], bare[4], atol=1e-6)
    assert len(np.unique(bare)) > 3


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"model": {"sequential": [{"Dens": {"units": 1}}]}}, "no layer 'Dens'; did you mean 'Dense'?"),
        ({"model": {"sequential": [{"Dense": {"unit": 1}}]}}, "'unit'; did you mean 'units'?"),
        (
            {"model": {"sequential": [{"Dense": {"units": 1}}]}},
            "activation, linear, is not sigmoid, which binary_crossentropy wants",
        ),
        (
            {"model": {"sequential": [{"Dense": {"units": 2}}]}},
            "gives (None, 2), and (None, 1) is due; for a label of 0 and 1",
        ),
        ({"compile": {"loss": "binary_crossentropie"}}, "did you mean 'binary_crossentropy'?"),
        ({"compile": {"optimizer": "Adamm"}}, "did you mean 'Adam'?"),
        ({"compile": {"metrics": ["AUCC"]}}, "did you mean 'AUC'?"),
    ],
)
def test_what_is_none_of_kerass_is_refused_with_the_nearest_name(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as error:
        build(FEATURES, **changes)
    assert said in str(error.value)
    assert "train." in str(error.value)


def test_a_callback_that_watches_what_is_not_there_is_refused_with_the_nearest_name() -> None:
    logged = build(FEATURES, compile={"metrics": ["AUC"]}).logged
    assert logged == ["loss", "auc", "val_loss", "val_auc"]
    with pytest.raises(ConfigError, match="nothing is called 'val_los'; did you mean 'val_loss'"):
        build_callbacks(train(callbacks=[{"EarlyStopping": {"monitor": "val_los"}}]), logged, SOURCE)
    assert build_callbacks(train(callbacks=[{"EarlyStopping": {"monitor": "val_auc"}}]), logged, SOURCE)


@pytest.mark.parametrize(("categories", "dimensions"), [(2, 2), (16, 4), (17, 5), (10_000, 16)])
def test_a_category_is_embedded_in_the_root_of_its_size_16_at_most(categories: int, dimensions: int) -> None:
    assert embedding_size(categories) == dimensions
    vocabulary = tuple(str(i) for i in range(categories - 2))
    feature = CategoricalFeature(name="c", vocabulary=vocabulary, counts=(1,) * len(vocabulary), rare=0)
    model = build(Features(numeric=(), categorical=(feature,))).model
    assert model.get_layer("lakefit_embedding_0").output.shape == (None, dimensions)
