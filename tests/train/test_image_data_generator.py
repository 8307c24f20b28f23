"""What takes the place of ImageDataGenerator's arguments (docs/images.md) gives the same pixels."""

import inspect
import io
import re
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
from keras.src.legacy.preprocessing.image import DirectoryIterator, ImageDataGenerator
from PIL import Image as Pillow

from lakefit.config.images import Image
from lakefit.prepare.images import prepared
from pictures import pictures

# It imports an old name of SciPy's.
pytestmark = pytest.mark.filterwarnings("ignore:Please import:DeprecationWarning")
SIDE = 24
IMAGE = pictures(1, 5, (SIDE, SIDE, 3))[0].astype(np.float32)
layers = keras.layers


def photo(folder: Path, height: int, width: int, mode: str = "RGB") -> bytes:
    dice = np.random.default_rng(height)
    image = Pillow.fromarray(dice.integers(0, 256, (height, width, 3), np.uint8)).convert(mode)
    (folder / "a").mkdir()
    image.save(folder / "a/photo.png")
    return (folder / "a/photo.png").read_bytes()


def loaded(folder: Path, **options: Any) -> Any:
    """Return the image as flow_from_directory hands it out."""
    found = DirectoryIterator(folder, ImageDataGenerator(), batch_size=1, class_mode=None, shuffle=False, **options)
    return next(found)[0]


def decoded(content: bytes, step: Image) -> Any:
    pixels = np.asarray(Pillow.open(io.BytesIO(prepared(content, step).content)), np.float32)
    return pixels[..., None] if pixels.ndim == 2 else pixels


@pytest.mark.parametrize("interpolation", ["nearest", "bilinear", "bicubic", "lanczos"])
@pytest.mark.parametrize("size", [(20, 30), (61, 47)])
def test_target_size_and_interpolation(tmp_path: Path, interpolation: Any, size: tuple[int, int]) -> None:
    content = photo(tmp_path, 40, 52)
    due = loaded(tmp_path, target_size=size, interpolation=interpolation)
    np.testing.assert_array_equal(decoded(content, Image(resize=size, interpolation=interpolation)), due)


@pytest.mark.parametrize(("color_mode", "channels"), [("grayscale", 1), ("rgb", 3), ("rgba", 4)])
@pytest.mark.parametrize("mode", ["L", "RGB", "RGBA", "P"])
def test_color_mode(tmp_path: Path, color_mode: str, channels: Any, mode: str) -> None:
    content = photo(tmp_path, 30, 30, mode)
    due = loaded(tmp_path, target_size=(30, 30), color_mode=color_mode)
    np.testing.assert_array_equal(decoded(content, Image(channels=channels)), due)


def test_keep_aspect_ratio(tmp_path: Path) -> None:
    content = photo(tmp_path, 40, 60)
    due = loaded(tmp_path, target_size=(20, 20), keep_aspect_ratio=True, interpolation="bilinear")
    np.testing.assert_array_equal(decoded(content, Image(resize=(20, 20), fit="crop")), due)


def by_layer(layer: keras.layers.Layer) -> Any:
    return layer(tf.constant(IMAGE[None]), training=True)[0].numpy()


def by_generator(fill_mode: str = "nearest", **parameters: float) -> Any:
    return ImageDataGenerator(fill_mode=fill_mode, cval=9).apply_transform(IMAGE.copy(), parameters)


@pytest.mark.parametrize("fill_mode", ["nearest", "reflect", "constant", "wrap"])
@pytest.mark.parametrize(
    ("parameters", "layer", "arguments"),
    [
        ({"ty": 3}, "RandomTranslation", {"height_factor": (-3 / SIDE, -3 / SIDE), "width_factor": 0.0}),
        ({"tx": -4}, "RandomTranslation", {"height_factor": 0.0, "width_factor": (4 / SIDE, 4 / SIDE)}),
        ({"theta": 90}, "RandomRotation", {"factor": (0.25, 0.25)}),
        ({"theta": 18}, "RandomRotation", {"factor": (0.05, 0.05)}),
        ({"theta": -36}, "RandomRotation", {"factor": (-0.1, -0.1)}),
        ({"zx": 0.8, "zy": 0.8}, "RandomZoom", {"height_factor": (-0.2, -0.2)}),
        ({"zx": 1.25, "zy": 1.25}, "RandomZoom", {"height_factor": (0.25, 0.25)}),
    ],
)
def test_shifts_rotations_and_zooms(
    parameters: dict[str, float], layer: str, arguments: dict[str, Any], fill_mode: str
) -> None:
    due = by_generator(fill_mode, **parameters)
    found = by_layer(getattr(layers, layer)(**arguments, fill_mode=fill_mode, fill_value=9))
    inside = np.ones((SIDE, SIDE), bool)
    if fill_mode in ("constant", "wrap"):
        # At the border SciPy takes a pixel that lies partly outside for outside, TensorFlow mixes it.
        outside = np.pad(by_generator("constant", **parameters)[..., 0] == 9, 1, constant_values=True)
        around = [outside[y : y + SIDE, x : x + SIDE] for y in range(3) for x in range(3)]
        inside = ~np.any(around, axis=0)
    assert inside.mean() > 0.3
    np.testing.assert_allclose(found[inside], due[inside], atol=2e-3)


@pytest.mark.parametrize(("mode", "flag"), [("horizontal", "flip_horizontal"), ("vertical", "flip_vertical")])
def test_flips(mode: str, flag: str) -> None:
    due = by_generator(**{flag: True})
    found = [by_layer(layers.RandomFlip(mode, seed=seed)) for seed in range(8)]
    assert {np.array_equal(one, due) for one in found} == {True, False}
    assert all(np.array_equal(one, due) or np.array_equal(one, IMAGE) for one in found)


def test_rescale_and_samplewise() -> None:
    rescaled = ImageDataGenerator(rescale=1 / 255).standardize(IMAGE.copy())
    np.testing.assert_allclose(by_layer(layers.Rescaling(1 / 255)), rescaled, rtol=1e-6)
    each = ImageDataGenerator(samplewise_center=True, samplewise_std_normalization=True).standardize(IMAGE.copy())
    layer = layers.LayerNormalization(axis=[1, 2, 3], epsilon=1e-12, center=False, scale=False)
    np.testing.assert_allclose(by_layer(layer), each, atol=1e-5)


def test_channel_shift_and_brightness_by_a_fixed_amount() -> None:
    shifted = by_generator(channel_shift_intensity=20)
    # It clips at the least and the most of the image, and the layer at 0 and 255.
    found = by_layer(layers.RandomBrightness((20 / 255, 20 / 255)))
    same = (shifted < IMAGE.max()) & (found < 255)
    np.testing.assert_allclose(found[same], shifted[same], atol=1e-4)


def test_the_table_names_every_argument() -> None:
    text = (Path(__file__).parents[2] / "docs/images.md").read_text()
    named = set(re.findall(r"^\| `(\w+)` \|", text, re.MULTILINE))
    for function in (
        ImageDataGenerator.__init__, ImageDataGenerator.flow, ImageDataGenerator.flow_from_directory,
        ImageDataGenerator.flow_from_dataframe,
    ):  # fmt: skip
        arguments = set(inspect.signature(function).parameters) - {"self", "kwargs"}
        assert not arguments - named, f"{function.__name__}: {sorted(arguments - named)}"
