"""Augmentation: of training batches alone, and the same pixels again for the same seed, batch and place."""

import json
import signal
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

from fitting import fit, result_of, section_of, start
from lakefit.config import ConfigError
from lakefit.dataset.features import Features, ImageFeature, LabelFeature
from lakefit.feed.split import SplitFeed
from lakefit.train.augment import build_augmentation
from lakefit.train.stage import batches_for
from lakefit.train.workers import Workers
from models import SIGMOID, SOURCE, build, train
from pictures import SHAPE, pictures, write_pictures

FEATURES = Features(images=(ImageFeature(name="image", shape=SHAPE),))
MODEL = {"sequential": [{"Rescaling": {"scale": 0.004}}, "Flatten", SIGMOID]}
RANDOM = [
    {"RandomFlip": {"mode": "horizontal"}},
    {"RandomRotation": {"factor": 0.2, "fill_mode": "nearest"}},
    {"RandomTranslation": {"height_factor": 0.2, "width_factor": 0.2, "fill_mode": "constant", "fill_value": 7}},
    {"RandomShear": {"x_factor": 0.2, "y_factor": 0.2}},
    {"RandomZoom": {"height_factor": 0.3}},
    {"RandomBrightness": {"factor": 0.2}},
    {"RandomCrop": {"height": 6, "width": 6}},
    {"Resizing": {"height": 8, "width": 8}},
    {"RandAugment": {"num_ops": 2}},
    "CutMix",
    {"MixUp": {"alpha": 0.2}},
]


def section(**changes: Any) -> dict[str, Any]:
    return section_of(**{"model": MODEL, "fit": {"epochs": 3, "batch_size": 16}, **changes})


def batches(folder: Path, manifest: Any, layers: list[Any], epochs: int = 1, **feed: Any) -> list[tuple[Any, Any]]:
    """Return (images, labels) of each batch that a model is trained on."""
    about = train(model=MODEL, images={"augment": layers}, seed=feed.pop("of", 3))
    built = build(FEATURES, model=MODEL)
    split = SplitFeed(folder, manifest, "train", batch_size=16, seed=1)
    for name, value in feed.items():
        setattr(split, name, value)
    devices = tf.distribute.get_strategy()
    augmentation = build_augmentation(built, about, SOURCE)
    found = batches_for(built, split, devices, Workers(devices), epochs=epochs, augmentation=augmentation)
    return [(inputs["image"].numpy(), label.numpy()) for inputs, label in found]


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Any]:
    folder = tmp_path_factory.mktemp("pictures")
    return folder, write_pictures(folder)


def test_pixels_are_the_same_again_for_a_seed_and_a_batch_and_others_else(written: tuple[Path, Any]) -> None:
    whole = batches(*written, RANDOM, epochs=2)
    assert len(whole) == 12

    for (images, labels), (again, labels_again) in zip(whole, batches(*written, RANDOM, epochs=2), strict=True):
        np.testing.assert_array_equal(images, again)
        np.testing.assert_array_equal(labels, labels_again)
    # From the middle of the second epoch on, as after a kill.
    for (images, _), (again, _) in zip(whole[9:], batches(*written, RANDOM, epoch=1, first_batch=3), strict=True):
        np.testing.assert_array_equal(images, again)
    others = batches(*written, RANDOM, epochs=2, of=4)
    assert all((a != b).mean() > 0.5 for (a, _), (b, _) in zip(whole, others, strict=True))


def test_each_image_is_changed_by_draws_of_its_own(written: tuple[Path, Any]) -> None:
    plain = batches(*written, [])
    turned = batches(*written, [{"RandomFlip": {"mode": "horizontal"}}])

    assert {len(images) for images, _ in plain} == {16, 10}
    patterns = []
    for (before, labels), (after, labels_after) in zip(plain, turned, strict=True):
        np.testing.assert_array_equal(labels, labels_after)
        for one, other in zip(before, after, strict=True):
            assert (one == other).all() or (one[:, ::-1] == other).all()
        patterns.append(tuple((before != after).any(axis=(1, 2, 3))))
    assert 25 < sum(map(sum, patterns)) < 65
    # Not the same places in each batch.
    assert len(set(patterns)) == len(patterns)


def test_two_layers_of_a_kind_draw_apart(written: tuple[Path, Any]) -> None:
    brighter = {"RandomBrightness": {"factor": [0.0, 0.04]}}
    plain, once, twice = (batches(*written, layers)[0][0] for layers in ([], [brighter], [brighter, brighter]))
    first, both = (once - plain)[:, 0, 0, 0], (twice - plain)[:, 0, 0, 0]
    assert np.abs(both - 2 * first).max() > 1


def test_mixed_labels_go_with_mixed_images(tmp_path: Path) -> None:
    manifest = write_pictures(
        tmp_path, made=lambda count, _, shape: np.full((count, *shape), 200, np.uint8) * (np.arange(count) % 2)[
            :, None, None, None].astype(np.uint8)
    )  # fmt: skip
    for images, labels in batches(tmp_path, manifest, ["MixUp"]):
        np.testing.assert_allclose(images.mean(axis=(1, 2, 3)) / 200, labels[:, 0], atol=1e-5)
        assert ((labels > 0.01) & (labels < 0.99)).any()
    # Keras counts the area of a box before it is rounded to pixels.
    for images, labels in batches(tmp_path, manifest, ["CutMix"]):
        assert np.abs(images.mean(axis=(1, 2, 3)) / 200 - labels[:, 0]).max() < 0.25


def test_the_validation_split_is_not_augmented_and_the_model_holds_nothing_of_it(
    written: tuple[Path, Any], tmp_path: Path
) -> None:
    fit(written[0], tmp_path, section(fit={"epochs": 1, "batch_size": 16}, images={"augment": RANDOM}))
    history = json.loads((tmp_path / "history.json").read_text())
    built = build(FEATURES, model=MODEL)
    built.model.optimizer, built.model.compiled = None, False
    built.model.load_weights(tmp_path / "model.weights.h5")
    given = built.model.predict({"image": pictures(24, 1).astype(np.float32)}, verbose=0)
    loss = keras.losses.BinaryCrossentropy()((np.arange(24) % 2)[:, None], given)
    assert history["val_loss"][-1] == pytest.approx(float(loss), rel=1e-4)


def test_a_killed_training_goes_on_to_the_same_weights(written: tuple[Path, Any], tmp_path: Path) -> None:
    changes = section(images={"augment": RANDOM}, checkpoint={"every": "2 steps", "resume": "exact"})
    output, _ = start(written[0], tmp_path / "whole", changes).communicate(timeout=200)
    assert (tmp_path / "whole/history.json").exists(), output
    killed = start(written[0], tmp_path / "killed", changes, "step", 10)
    output, _ = killed.communicate(timeout=200)
    assert killed.returncode == -signal.SIGKILL, output
    output, _ = start(written[0], tmp_path / "killed", changes).communicate(timeout=200)
    assert "goes on after epoch 1 and 2 batches" in output
    assert result_of(tmp_path / "killed") == result_of(tmp_path / "whole")


def test_a_workers_share_may_be_empty() -> None:
    built = build(FEATURES, model=MODEL)
    augmentation = build_augmentation(built, train(model=MODEL, images={"augment": RANDOM}), SOURCE, worker=1)
    assert augmentation is not None
    nothing = {"image": tf.zeros((0, *SHAPE))}
    arrays, target = augmentation.apply(tf.constant(3, tf.int64), nothing, tf.zeros((0, 1)))
    assert (arrays["image"].shape, target.shape) == ((0, *SHAPE), (0, 1))


CLASSES = LabelFeature(kind="classes", classes=("a", "b"))
SOFTMAX = {"sequential": ["Flatten", {"Dense": {"units": 2, "activation": "softmax"}}]}


@pytest.mark.parametrize(
    ("layers", "label", "changes", "said"),
    [
        (["RandomFlp"], LabelFeature(), {}, "train.images.augment.0: Keras has no layer 'RandomFlp'"),
        ([{"RandomFlip": {"mod": 1}}], LabelFeature(), {}, "RandomFlip has no argument 'mod'"),
        ([{"RandomFlip": {"mode": "diagonal"}}], LabelFeature(), {}, "RandomFlip.mode: 'diagonal' is no way to flip"),
        ([{"RandomCrop": {"height": 6, "width": 5}}], LabelFeature(), {},
         r"images of 'image' end as (6, 5, 3), and the model takes (8, 8, 3): end with {Resizing: "),
        (["Flatten", "RandomFlip"], LabelFeature(), {}, "train.images.augment.1: the layer does not fit images of"),
        ([{"Dense": {"units": 3}}], LabelFeature(), {}, "Dense has weights to train"),
        (["MixUp"], CLASSES, {"model": SOFTMAX}, "MixUp mixes images and their labels, and a class's number"),
        (["CutMix"], LabelFeature(weighted=True), {}, "CutMix mixes images and their labels, and rows of other"),
    ],
)  # fmt: skip
def test_what_does_not_fit_is_refused(layers: Any, label: LabelFeature, changes: Any, said: str) -> None:
    changes = {"model": MODEL, **changes}
    about = train(images={"augment": layers}, **changes)
    with pytest.raises(ConfigError) as refused:
        build_augmentation(build(FEATURES, label, **changes), about, SOURCE)
    assert said in str(refused.value)


def test_one_hot_labels_of_classes_are_mixed() -> None:
    changes = {"model": SOFTMAX, "compile": {"loss": "categorical_crossentropy"}}
    built = build(FEATURES, CLASSES, **changes)
    augmentation = build_augmentation(built, train(images={"augment": ["MixUp"]}, **changes), SOURCE)
    assert augmentation is not None
    target = built.target(tf.constant([[0.0], [1.0]] * 8))
    _, mixed = augmentation.apply(tf.constant(5, tf.int64), {"image": tf.zeros((16, *SHAPE))}, target)
    np.testing.assert_allclose(keras.ops.sum(mixed, axis=1), np.ones(16), rtol=1e-6)
