"""A folder of image files, from raw file to scored row."""

import io
import json
from pathlib import Path
from typing import Any

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from PIL import Image as Pillow

from lakefit.cli import main
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.feed.split import SplitFeed

PIPELINE = """
name: shapes
source:
  tables:
    photos: {path: raw, format: images}
  rows: photos
clean:
  - {column: image, image: {channels: 3}}
deduplicate: {key: [image_pixels], keep: first by path}
reject:
  - {when: class IS NULL, because: no folder}
split: {stratify: [class], train: 0.6, validation: 0.2, test: 0.2, seed: 1}
features:
  images: {columns: [image], size: [12, 16], channels: 3, interpolation: bilinear}
label: {expression: class, type: classes}
output: {path: lake}
train:
  devices: cpu
  model:
    sequential: [{Rescaling: {scale: 0.004}}, {Conv2D: {filters: 4, kernel_size: 3, activation: relu}}, Flatten,
                 {Dense: {units: 2, activation: softmax}}]
  compile: {loss: sparse_categorical_crossentropy, metrics: [accuracy]}
  images: {normalize: standard, augment: [{RandomFlip: {mode: horizontal}}, {RandomRotation: {factor: 0.05}}]}
  fit: {epochs: 2, batch_size: 16}
score: {input: raw, output: scored, keys: [path]}
"""
WIDE, TALL = "wide", "tall"


def picture(number: int, height: int, width: int) -> Pillow.Image:
    random = np.random.default_rng(number)
    return Pillow.fromarray(random.integers(0, 256, (height, width, 3), np.uint8))


def write_raw(folder: Path) -> dict[str, int]:
    """120 images of several sizes, formats and modes in two folders, and what is to be found; return how many."""
    for name in (WIDE, TALL):
        (folder / name).mkdir(parents=True)
    for i in range(120):
        image = picture(i, *((12, 16), (24, 20), (9, 31))[i % 3])
        ending, options = (("png", {}), ("jpg", {"quality": 90}), ("webp", {"lossless": True}))[i % 3 if i % 5 else 0]
        path = folder / (WIDE, TALL)[i % 2] / f"{i:03d}.{ending}"
        (image.convert("L") if i % 7 == 0 else image).save(path, **options)
    for i in range(4):
        picture(3 * i, 12, 16).save(folder / WIDE / f"copy-{i}.bmp")
    whole = (folder / WIDE / "000.png").read_bytes()
    (folder / TALL / "cut.png").write_bytes(whole[:-40])
    (folder / TALL / "empty.png").write_bytes(b"")
    (folder / TALL / "notes.txt").write_text("no image")
    picture(999, 5, 5).save(folder / "loose.png")
    return {"images": 120, "copies": 4}


@pytest.fixture(scope="module")
def done(spark: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("shapes")
    write_raw(folder / "raw")
    (folder / "shapes.yaml").write_text(PIPELINE)
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(folder)
        assert main(["run", "shapes.yaml"]) == 0
    return folder


def current(folder: Path) -> tuple[Path, Manifest, Path, Path]:
    lake = folder / "lake/shapes"
    found = json.loads((lake / "current.json").read_text())
    dataset = lake / "datasets" / found["dataset"]
    return dataset, read_manifest(dataset), lake / "runs" / found["run"], lake / "artifacts" / found["artifact"]


def kept(dataset: Path, manifest: Manifest) -> dict[str, list[bytes]]:
    return {
        split: [b for f in manifest.splits[split].files for b in pq.read_table(dataset / f.path)["image"].to_pylist()]
        for split in manifest.splits
    }


def test_each_file_is_kept_rejected_or_a_copy(done: Path) -> None:
    _, manifest, _, _ = current(done)
    ledger = manifest.ledger
    assert ledger.rows_in == len([path for path in (done / "raw").rglob("*") if path.is_file()]) == 128
    # Of grey ones among them, the copy in colour is another image.
    grey = len([i for i in range(4) if 3 * i % 7 == 0])
    assert ledger.duplicates == 4 - grey
    assert sum(ledger.kept.values()) == 120 + grey
    assert {reason: rows for reason, rows in ledger.rejected.items() if rows} == {
        "image: there is no image": 1,
        "image: it is no image in a known format": 1,
        "image: it is truncated or damaged": 1,
        "no folder": 1,
    }


def test_a_reject_says_what_was_wrong_and_keeps_the_bytes(done: Path) -> None:
    dataset, manifest, _, _ = current(done)
    rows = [row for f in manifest.rejects for row in pq.read_table(dataset / f.path).to_pylist()]
    cut = next(row for row in rows if row["path"] == "tall/cut.png")
    assert cut["image"] == (done / "raw/tall/cut.png").read_bytes()
    assert cut["_unparsable"].startswith("image: ")
    assert "truncated" in cut["_unparsable"]


def test_no_copy_is_in_another_split(done: Path) -> None:
    from lakefit.config.images import Image
    from lakefit.prepare.images import prepared

    dataset, manifest, _, _ = current(done)
    hashes = [{prepared(content, Image()).pixels for content in of} for of in kept(dataset, manifest).values()]
    assert sum(map(len, hashes)) == len(set().union(*hashes)) == sum(manifest.ledger.kept.values())


def pixels(content: bytes) -> np.ndarray:
    image = Pillow.open(io.BytesIO(content)).convert("RGB")
    return np.asarray(image, np.float32)


@pytest.mark.parametrize("size", [7, 16])
def test_the_feed_gives_the_pixels_of_each_image(done: Path, size: int) -> None:
    dataset, manifest, _, _ = current(done)
    feed = SplitFeed(dataset, manifest, "train", batch_size=size, shuffle=False)
    found = np.concatenate([inputs["image"].numpy() for inputs, _ in feed.to_tf()])
    feed.check()
    contents = kept(dataset, manifest)["train"]
    assert found.shape == (len(contents), 12, 16, 3)
    assert found.dtype == np.float32
    for image, content in zip(found, contents, strict=True):
        there = pixels(content)
        if there.shape == image.shape:
            assert (image == there).all()
        else:
            np.testing.assert_allclose(image, tf.image.resize(there, (12, 16), antialias=True), atol=1e-3)


def test_shuffled_batches_are_the_same_again(done: Path) -> None:
    dataset, manifest, _, _ = current(done)

    def epoch(first_batch: int = 0) -> list[np.ndarray]:
        feed = SplitFeed(dataset, manifest, "train", batch_size=8, seed=5)
        feed.first_batch = first_batch
        batches = [inputs["image"].numpy() for inputs, _ in feed.to_tf()]
        feed.check()
        return batches

    whole, again, rest = epoch(), epoch(), epoch(3)
    assert all((a == b).all() for a, b in zip(whole, again, strict=True))
    assert all((a == b).all() for a, b in zip(whole[3:], rest, strict=True))


def test_the_exported_model_takes_files_and_pixels(done: Path) -> None:
    """Both give what evaluation has written of the test split."""
    dataset, manifest, run, artifact = current(done)
    contents = kept(dataset, manifest)["test"]
    expected = np.array(pq.read_table(run / "predictions/test.parquet")["probabilities"].to_pylist())
    saved = tf.saved_model.load(str(artifact / "saved_model"))
    served = saved.serve({"image": tf.constant(contents)})
    np.testing.assert_allclose(served.numpy(), expected, rtol=1e-5, atol=1e-6)
    model = keras.saving.load_model(artifact / "model.keras", safe_mode=True)
    feed = SplitFeed(dataset, manifest, "test", batch_size=64, shuffle=False)
    decoded = np.concatenate([inputs["image"].numpy() for inputs, _ in feed.to_tf()])
    np.testing.assert_allclose(model.predict({"image": decoded}, verbose=0), expected, rtol=1e-5, atol=1e-6)


def test_files_are_scored_and_those_that_cannot_be_are_rejected(done: Path) -> None:
    _, _, run, _ = current(done)
    scored = {row["path"]: row for row in pq.read_table(done / "scored").to_pylist()}
    assert len(scored) == 125
    rejects = pq.read_table(done / "scored/_rejects").to_pylist()
    assert {Path(row["_file"]).relative_to(done / "raw/tall").name: row["_reason"] for row in rejects} == {
        "cut.png": "image: it is truncated or damaged",
        "empty.png": "image: there is no image",
        "notes.txt": "image: it is no image in a known format",
    }
    account = json.loads((done / "scored/_score.json").read_text())
    assert account["rows_in"] == 128
    assert account["rejected"] == {row["_reason"]: 1 for row in rejects}
    tested = pq.read_table(run / "predictions/test.parquet").to_pylist()
    of_row = {row["_row"]: row["probabilities"] for row in scored.values()}
    for row in tested:
        np.testing.assert_allclose(of_row[row["_row"]], row["probabilities"], rtol=1e-4, atol=1e-5)
