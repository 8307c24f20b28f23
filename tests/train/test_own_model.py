"""Models and parts of models of the user's own code, and what is said where they do not fit the dataset."""

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from lakefit.config import ConfigError
from lakefit.dataset.features import CategoricalFeature, Features, LabelFeature, NumericFeature
from lakefit.train.inputs import DatasetDescription, NotLearnedError
from lakefit.train.model import BuiltModel, build_model
from models import SIGMOID, SOURCE, build, train

FEATURES = Features(
    numeric=(NumericFeature(name="far", fill=0.0), NumericFeature(name="old", fill=0.0)),
    categorical=(CategoricalFeature(name="city", vocabulary=tuple("abc"), counts=(1, 1, 1)),),
)
NUMBERS = Features(numeric=FEATURES.numeric)
ROWS = {"numeric": np.ones((4, 2), np.float32), "categorical": np.array([[0], [1], [2], [4]], np.int32)}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    monkeypatch.chdir(Path(__file__).parent)
    yield
    sys.modules.pop("own_models", None)


def own(name: str, features: Features = FEATURES, **changes: Any) -> BuiltModel:
    return build(features, model=f"own_models:{name}", **changes)


def batch(features: Features) -> dict[str, Any]:
    return {name: array for name, array in ROWS.items() if name in build(features).description.inputs().tensors}


@pytest.mark.parametrize(
    ("name", "features"),
    [
        ("on_inputs", FEATURES),
        ("on_inputs", NUMBERS),
        ("numbers_alone", FEATURES),
        ("sequential", NUMBERS),
        ("subclass", FEATURES),
        ("of_vocabulary", FEATURES),
        ("compiled", FEATURES),
    ],
)
def test_a_model_of_the_users_is_trained_and_predicts(name: str, features: Features) -> None:
    made = own(name, features)
    inputs, label = made.batch(batch(features), np.array([[0.0], [1.0], [1.0], [0.0]], np.float32))
    made.model.fit(inputs, label, verbose=0)
    assert made.predictor()(batch(features)).shape == (4, 1)


def test_what_the_function_compiled_stays_unless_the_file_compiles() -> None:
    assert type(own("compiled").model.optimizer).__name__ == "SGD"
    assert own("compiled").logged is None
    again = own("compiled", compile={"optimizer": "Adam", "metrics": ["AUC"]})
    assert type(again.model.optimizer).__name__ == "Adam"
    assert again.logged == ["loss", "auc", "val_loss", "val_auc"]


def test_a_vocabulary_is_not_there_before_it_is_learned() -> None:
    early = DatasetDescription(FEATURES, (LabelFeature(),), {}, learned=False)
    with pytest.raises(NotLearnedError, match="the vocabulary of 'city' is learned by `prepare`"):
        build_model(early, train(model="own_models:of_vocabulary"), SOURCE)


@pytest.mark.parametrize(
    ("name", "features", "said"),
    [
        ("raises", FEATURES, r"raised AttributeError: .*no_such_thing.* \(.*own_models.py, line \d+, in raises\)"),
        ("nothing", FEATURES, "own_models:nothing returned nothing; expected a keras.Model"),
        ("a_layer", FEATURES, "returned a Dense; expected a keras.Model"),
        (
            "wrong_width",
            FEATURES,
            r"takes numeric \(None, 99\), and the dataset gives numeric \(None, 2\), categorical",
        ),
        ("wrong_name", FEATURES, r"has an input 'wether', and the dataset gives numeric \(None, 2\)"),
        ("sequential", FEATURES, "returned a Sequential model, which takes one input, and the dataset gives"),
        ("small_embedding", FEATURES, "an embedding has 4 indices, and 'city' has 5"),
        ("two_outputs", FEATURES, r"gives \(None, 2\), and \(None, 1\) is due"),
        (
            "of_more_columns",
            FEATURES,
            r"fails on rows of the dataset \(numeric \(None, 2\), categorical .*own_models",
        ),
        ("missing", FEATURES, "own_models:missing: the module has no such function"),
    ],
)
def test_what_does_not_fit_is_said(name: str, features: Features, said: str) -> None:
    with pytest.raises(ConfigError, match=said) as error:
        own(name, features)
    assert "train.model" in str(error.value)


def test_layers_losses_and_metrics_may_be_the_users() -> None:
    made = build(
        FEATURES,
        model={"sequential": [{"own_models:Gate": {"start": 2.0}}, SIGMOID]},
        compile={"loss": "own_models:half_loss", "metrics": ["own_models:Worst"]},
    )
    assert made.logged == ["loss", "worst", "val_loss", "val_worst"]
    history = made.model.fit(ROWS, np.ones((4, 1)), verbose=0).history
    assert 0 < history["worst"][0] < 1
    with pytest.raises(ConfigError, match="Gate has no argument 'strat'; did you mean 'start'"):
        build(FEATURES, model={"sequential": [{"own_models:Gate": {"strat": 2.0}}, SIGMOID]})
    with pytest.raises(ConfigError, match="the module has no such function"):
        build(FEATURES, model={"sequential": ["own_models:Gait", SIGMOID]})
