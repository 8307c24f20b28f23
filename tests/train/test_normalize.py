"""Images normalized by the training split, in the model itself: as ImageDataGenerator would have it."""

from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
from keras.src.legacy.preprocessing.image import ImageDataGenerator

from fitting import fit, section_of
from lakefit.config import ConfigError
from lakefit.config.train import TrainImages
from lakefit.dataset.features import Features, ImageFeature
from lakefit.dataset.manifest import Manifest
from lakefit.feed.split import SplitFeed
from lakefit.train.normalize import learn_normalization
from models import SIGMOID, build
from pictures import SHAPE, pictures, write_pictures

FEATURES = Features(images=(ImageFeature(name="image", shape=SHAPE),))
MODEL = {"sequential": ["Flatten", SIGMOID]}
GENERATORS = {
    "center": {"featurewise_center": True},
    "standard": {"featurewise_center": True, "featurewise_std_normalization": True},
    "zca": {"featurewise_center": True, "zca_whitening": True},
}


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("pictures")
    # More images than pixels, so that every direction has a variance.
    return folder, write_pictures(folder, rows=400)


def about(normalize: str) -> dict[str, Any]:
    return {"normalize": normalize, **({"zca_epsilon": 1e-2} if normalize == "zca" else {})}


def normalizing(normalize: str, written: tuple[Path, Manifest]) -> keras.Model:
    """Return the model from pixels to normalized pixels, as it learns from the training split."""
    built = build(FEATURES, model=MODEL, images=about(normalize))
    feed = SplitFeed(*written, "train", batch_size=64, shuffle=False)
    learn_normalization(built.model, TrainImages(**about(normalize)), feed)
    flatten = next(layer for layer in built.model.layers if layer.name.startswith("flatten"))
    return keras.Model(built.model.inputs, flatten.input)


@pytest.mark.parametrize("normalize", GENERATORS)
def test_pixels_are_those_of_image_data_generator(normalize: str, written: tuple[Path, Manifest]) -> None:
    generator = ImageDataGenerator(**GENERATORS[normalize], zca_epsilon=1e-2)
    generator.fit(pictures(400, 0).astype(np.float64))

    images = pictures(24, 1).astype(np.float32)
    found = normalizing(normalize, written).predict({"image": images}, verbose=0)

    due = np.stack([generator.standardize(image.astype(np.float64)) for image in images])
    np.testing.assert_allclose(found, due, atol=2e-3 * due.std(), rtol=1e-4)


@pytest.mark.parametrize("normalize", GENERATORS)
def test_what_is_learned_is_of_the_training_split_and_is_never_trained(
    normalize: str, written: tuple[Path, Manifest], tmp_path: Path
) -> None:
    section: dict[str, Any] = section_of(model=MODEL, images=about(normalize))
    section["fit"] = {"epochs": 1, "batch_size": 64}
    fit(written[0], tmp_path, section)
    built = build(FEATURES, model=MODEL, images=about(normalize))
    built.model.optimizer, built.model.compiled = None, False
    built.model.load_weights(tmp_path / "model.weights.h5")
    due = normalizing(normalize, written)
    found = {layer.name: layer.get_weights() for layer in built.model.layers if layer.name.startswith("lakefit_")}
    names = [layer.name for layer in due.layers if layer.name.startswith("lakefit_")]
    assert [*found] == names
    for name in names:
        for one, other in zip(found[name], due.get_layer(name).get_weights(), strict=True):
            np.testing.assert_array_equal(one, other)


def test_a_model_of_ones_own_is_normalized_or_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)
    images = {"normalize": "standard"}
    built = build(FEATURES, model="own_models:on_flat_images", images=images)
    assert any(layer.name == "lakefit_channels_image" for layer in built.model.layers)
    with pytest.raises(ConfigError, match=r"own_models:on_raw_images takes images as they are: description\.inputs"):
        build(FEATURES, model="own_models:on_raw_images", images=images)


def test_images_that_are_too_large_are_not_whitened() -> None:
    large = Features(images=(ImageFeature(name="image", shape=(40, 40, 3)),))
    with pytest.raises(ConfigError, match="zca learns a matrix of 4,800 x 4,800 numbers for 'image'"):
        build(large, model=MODEL, images={"normalize": "zca"})


def test_unchanged_images_have_no_layers_of_ours() -> None:
    built = build(FEATURES, model=MODEL)
    assert not [layer.name for layer in built.model.layers if layer.name.startswith("lakefit_")]
