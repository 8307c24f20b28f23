"""Transfer learning: one of keras.applications with its preprocessing, weights from a file, trained above or whole."""

from pathlib import Path
from typing import Any

import h5py
import keras
import numpy as np
import pytest
from keras.src.legacy.saving.legacy_h5_format import save_weights_to_hdf5_group

from fitting import fit, section_of
from lakefit.config import ConfigError
from lakefit.config.file import PipelineSource
from lakefit.dataset.features import Features, ImageFeature, LabelFeature, NumericFeature
from lakefit.train.application import load_application
from models import build, train
from pictures import write_pictures

SHAPE = (32, 32, 3)
IMAGE = ImageFeature(name="image", shape=SHAPE)
FEATURES = Features(images=(IMAGE,))
SMALL = {"MobileNetV2": {"alpha": 0.35}}
SOURCE = PipelineSource("p.yaml", {}, {}, "")


def model(**changes: Any) -> dict[str, Any]:
    return {"application": SMALL, "weights": "none", "trainable": "top", **changes}


@pytest.fixture(scope="module")
def file(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Weights as `save_weights` writes them, other than those that a new application has."""
    path = tmp_path_factory.mktemp("weights") / "small.weights.h5"
    keras.utils.set_random_seed(99)
    application().save_weights(path)
    return path


def application(**changes: Any) -> keras.Model:
    return keras.applications.MobileNetV2(
        **{"alpha": 0.35, "include_top": False, "weights": None, "input_shape": SHAPE, "pooling": "avg", **changes}
    )


def test_images_go_through_its_preprocessing_and_its_weights(file: Path) -> None:
    built = build(FEATURES, model=model(weights=str(file)))
    load_application(built.model, train(model=model(weights=str(file))), SOURCE)
    bare = application()
    bare.load_weights(file)
    images = np.random.default_rng(1).integers(0, 256, (4, *SHAPE)).astype(np.float32)

    top = built.model.layers[-1]
    found = keras.Model(built.model.inputs, top.input).predict({"image": images}, verbose=0)

    due = bare.predict(keras.applications.mobilenet_v2.preprocess_input(images.copy()), verbose=0)
    np.testing.assert_allclose(found / due.std(), due / due.std(), rtol=1e-4, atol=1e-4)


def test_weights_in_the_form_of_keras_releases_are_read(tmp_path: Path) -> None:
    bare, path = application(), tmp_path / "mobilenet_v2_no_top.h5"
    with h5py.File(path, "w") as written:
        save_weights_to_hdf5_group(written, bare)
    section = model(weights=str(path))
    built = build(FEATURES, model=section)
    load_application(built.model, train(model=section), SOURCE)
    inner = next(layer for layer in built.model.layers if isinstance(layer, keras.Model))
    for one, other in zip(inner.get_weights(), bare.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("trainable", "changed"), [("top", False), ("all", True)])
def test_what_is_trained_is_the_top_or_all(file: Path, tmp_path: Path, trainable: str, changed: bool) -> None:
    write_pictures(tmp_path, rows=32, validation=16, shape=SHAPE)
    section = section_of(model=model(weights=str(file), trainable=trainable), fit={"epochs": 1, "batch_size": 16})
    fit(tmp_path, tmp_path / "run", section)
    built = build(FEATURES, model=section["model"])
    built.model.optimizer, built.model.compiled = None, False
    built.model.load_weights(tmp_path / "run/model.weights.h5")
    bare = application()
    bare.load_weights(file)
    inner = next(layer for layer in built.model.layers if isinstance(layer, keras.Model))
    same = [np.array_equal(a, b) for a, b in zip(inner.get_weights(), bare.get_weights(), strict=True)]
    assert all(same) != changed
    # Averages of batch normalization are learned, too.
    assert len(inner.trainable_weights) == (0 if trainable == "top" else len(bare.trainable_weights))


def test_other_inputs_lie_beside_it_and_layers_follow() -> None:
    both = FEATURES.model_copy(update={"numeric": (NumericFeature(name="x", fill=0.0),)})
    head = [{"Dense": {"units": 5, "activation": "relu"}}, {"Dense": {"units": 3, "activation": "softmax"}}]
    label = LabelFeature(kind="classes", classes=("a", "b", "c"))
    built = build(both, label, model=model(sequential=head))
    assert built.model.layers[-2].input.shape == (None, 1280 + 1)
    # Without layers of one's own, the one that the label asks for.
    assert build(FEATURES, label, model=model()).model.output.shape == (None, 3)
    assert build(FEATURES, LabelFeature(kind="regression"), model=model()).model.output.shape == (None, 1)


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"application": "MobileNetV9"}, "train.model.application: Keras has no application 'MobileNetV9'; did you"),
        ({"application": {"MobileNetV2": {"pooling": "max"}}}, "MobileNetV2.pooling: 'pooling' is given by"),
        ({"application": {"MobileNetV2": {"alhpa": 1}}}, "MobileNetV2 does not fit images of (32, 32, 3): "),
        ({"application": "InceptionV3"}, "InceptionV3 does not fit images of (32, 32, 3): "),
    ],
)
def test_an_application_that_does_not_fit_is_refused(changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as refused:
        build(FEATURES, model=model(**changes))
    assert said in str(refused.value)


def test_weights_that_are_not_there_or_of_something_else_are_named(tmp_path: Path, file: Path) -> None:
    other = tmp_path / "other.weights.h5"
    application(alpha=0.5).save_weights(other)
    (tmp_path / "text.h5").write_text("no weights")
    for path, said in (
        (tmp_path / "none.h5", "none.h5: there is no such file"),
        (other, "other.weights.h5: the weights do not fit mobilenetv2_0.35"),
        (tmp_path / "text.h5", "text.h5: the weights do not fit mobilenetv2_0.35_32 without its top: it can't be read"),
    ):
        section = model(weights=str(path))
        with pytest.raises(ConfigError) as refused:
            load_application(build(FEATURES, model=section).model, train(model=section), SOURCE)
        assert f"train.model.weights: {tmp_path}/{said}" in str(refused.value)


@pytest.mark.parametrize(
    ("section", "said"),
    [
        ({"application": SMALL}, "an application needs weights"),
        (model(weights="imagenet"), "weights: imagenet would be downloaded, and nothing is"),
        (model(functional={"layers": {"a": {"layer": "Dense"}}}), "what follows an application is sequential"),
        ({"sequential": ["Flatten"], "weights": "none"}, "weights and trainable are of an application"),
    ],
)
def test_sections_that_say_too_little_or_too_much_are_refused(section: dict[str, Any], said: str) -> None:
    with pytest.raises(ValueError, match=said):
        train(model=section)


def test_images_are_preprocessed_once() -> None:
    with pytest.raises(ValueError, match="an application has its own preprocessing"):
        train(model=model(), images={"normalize": "center"})
