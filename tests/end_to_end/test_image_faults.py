"""Images that look alike, lists of files in a table, and what is wrong with images: each is said, or in the ledger."""

import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from PIL import Image as Pillow

from lakefit.cli import main
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.feed.split import SplitFeed
from pictures import png

PIPELINE = """
name: photos
source:
  tables:
    photos: {path: raw, format: images}
  rows: photos
clean:
  - {column: image, image: {channels: 3}}
split: {train: 0.6, validation: 0.2, test: 0.2, seed: 1}
features:
  images: {columns: [image], size: [24, 32], channels: 3}
label: {expression: class, type: classes}
output: {path: lake}
train:
  devices: cpu
  model: {sequential: [Flatten, {Dense: {units: 2, activation: softmax}}]}
  fit: {epochs: 1, batch_size: 16}
"""


def photo(number: int, height: int = 24, width: int = 32) -> Pillow.Image:
    """Return a picture with large shapes, as photographs have them."""
    coarse = np.random.default_rng(number).integers(0, 256, (6, 8, 3), np.uint8)
    return Pillow.fromarray(coarse).resize((width, height), Pillow.Resampling.BICUBIC)


def write_photos(folder: Path, count: int = 60) -> None:
    for number in range(count):
        path = folder / "raw" / "ab"[number % 2] / f"{number:03d}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        photo(number).save(path)


def prepared(folder: Path, *changes: str) -> Manifest:
    assert main(["prepare", "photos.yaml", *(part for change in changes for part in ("--set", change))]) == 0
    (dataset,) = (folder / "lake/photos/datasets").iterdir()
    return read_manifest(dataset)


@pytest.fixture
def folder(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "photos.yaml").write_text(PIPELINE)
    write_photos(tmp_path)
    return tmp_path


def split_of(folder: Path, manifest: Manifest) -> dict[bytes, str]:
    """Return the split of each image that is kept, by its bytes."""
    (dataset,) = (folder / "lake/photos/datasets").iterdir()
    return {
        content: split
        for split, files in manifest.splits.items()
        for file in files.files
        for content in pq.read_table(dataset / file.path)["image"].to_pylist()
    }


def write_looking_alike(folder: Path) -> None:
    """Ten of the photographs again: smaller and as large as before, as a JPEG of low quality, a little brighter."""
    for number in range(10):
        path = folder / "raw" / "ab"[number % 2]
        photo(number).resize((20, 15)).resize((32, 24)).save(path / f"{number:03d}-small.png")
        photo(number).save(path / f"{number:03d}-saved.jpg", quality=40)
        photo(number).point(lambda value: min(255, value + 6)).save(path / f"{number:03d}-bright.png")


def test_what_looks_alike_is_in_one_split(folder: Path) -> None:
    write_looking_alike(folder)
    manifest = prepared(folder, "clean.0.image.near=6", "split.by=[image_near]")
    assert sum(manifest.ledger.kept.values()) == 90
    splits = split_of(folder, manifest)
    assert len(splits) == 90
    for number in range(10):
        of = [path.read_bytes() for path in sorted((folder / "raw" / "ab"[number % 2]).glob(f"{number:03d}*"))]
        assert len(of) == 4
        assert len({splits[content] for content in of}) == 1, number
    assert set(splits.values()) == {"train", "validation", "test"}


def test_what_looks_alike_is_reduced_and_says_to_what(folder: Path) -> None:
    write_looking_alike(folder)
    change = "deduplicate={key: [image_near], keep: first by path}"
    manifest = prepared(folder, "clean.0.image.near=6", change)
    assert (sum(manifest.ledger.kept.values()), manifest.ledger.duplicates) == (60, 30)
    assert set(split_of(folder, manifest)) == {
        path.read_bytes() for path in (folder / "raw").glob("*/*.png") if re.fullmatch(r"\d+.png", path.name)
    } - {(folder / f"raw/{'ab'[n % 2]}/{n:03d}.png").read_bytes() for n in range(10)} | {
        (folder / f"raw/{'ab'[n % 2]}/{n:03d}-bright.png").read_bytes() for n in range(10)
    }


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ("clean.0.image.channels=1", "features.images.channels: clean makes 'image' an image of 1 channels, and 3"),
        ("clean.0.image.resize=[8, 9]", "features.images.size: clean resizes 'image' to [8, 9]; give that, or interp"),
        ("train.images={zca_epsilon: 1.0}", "zca_epsilon is of normalize: zca, and normalize is none"),
        ("features={numeric: {columns: [image_width]}}", "photos.yaml:18:3: train.images: there are no images among"),
    ],
)
def test_what_the_file_alone_shows_is_said_at_once(
    folder: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (folder / "photos.yaml").write_text(PIPELINE + "  images: {augment: [RandomFlip]}\n")
    assert main(["validate", "photos.yaml", "--set", change]) == 2
    assert said in capsys.readouterr().err


def test_the_group_of_an_image_is_no_feature(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    changes = ["--set", "clean.0.image.near=3", "--set", "features.numeric={columns: [image_near]}"]
    assert main(["validate", "photos.yaml", *changes]) == 2
    assert "'image_near' depends on which other images there are" in capsys.readouterr().err


LISTED = (
    "source={tables: {list: {path: list.csv, format: csv, options: {header: true}, "
    "schema: 'file STRING, label STRING, part STRING'}, photos: {path: raw, format: images}}, rows: list, "
    "query: 'SELECT list.*, photos.image FROM list LEFT JOIN photos ON list.file = photos.path'}"
)


def test_files_are_listed_in_a_table_with_labels_and_splits(folder: Path) -> None:
    rows = [f"{'ab'[n % 2]}/{n:03d}.png,{'xy'[n % 2]},{('train', 'train', 'validation', 'test')[n // 2 % 4]}"
            for n in range(40)]  # fmt: skip
    # A label whose image is not there, and images (of all above 40) whose label is not.
    rows.append("a/gone.png,x,train")
    (folder / "list.csv").write_text("file,label,part\n" + "\n".join(rows))
    given = "split={column: part}"
    manifest = prepared(folder, LISTED, given, "label={expression: label, type: classes}")
    assert manifest.ledger.kept == {"train": 20, "validation": 10, "test": 10}
    assert manifest.ledger.rejected["image: there is no image"] == 1
    splits = split_of(folder, manifest)
    assert splits[(folder / "raw/a/004.png").read_bytes()] == "validation"


def test_names_that_spark_passes_over_are_files_like_others(folder: Path) -> None:
    (folder / "raw/a").rename(folder / "raw/_a")
    photo(7).save(folder / "raw/b/_007.png")
    (folder / "raw/.thumbnails").mkdir()
    photo(8).save(folder / "raw/.thumbnails/8.png")
    manifest = prepared(folder)
    assert manifest.ledger.rows_in == 61
    assert [*manifest.labels[0].classes] == ["_a", "b"]


def test_images_without_a_label_are_rejected(folder: Path) -> None:
    for number in range(5):
        photo(100 + number).save(folder / f"raw/{number}.png")
    manifest = prepared(folder, "reject=[{when: class IS NULL, because: no label}]")
    assert manifest.ledger.rejected["no label"] == 5
    assert sum(manifest.ledger.kept.values()) == 60


@pytest.mark.parametrize(
    ("change", "said"),
    [
        # Without the rejection.
        ("loose", r"label.*NULL|no label"),
        ("sizes", r"features\.images: 'image': an image is 10 x 12 \(height x width\) with 3 channels, and 24 x "),
        ("channels", r"an image is 24 x 32 \(height x width\) with 1 channels, and 24 x 32 with 3 are due \(1 of \d+ "),
        ("class", r"class"),
        ("none", r"source\.tables\.photos\.path: table 'photos': no such file, or an empty folder: 'raw'"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said(folder: Path, change: str, said: str, capsys: pytest.CaptureFixture[str]) -> None:
    changes: list[str] = []
    if change == "loose":
        photo(100).save(folder / "raw/loose.png")
    elif change == "sizes":
        photo(100, 10, 12).save(folder / "raw/a/small.png")
    elif change == "channels":
        changes = ["--set", "clean.0.image.channels=null"]
        photo(100).convert("L").save(folder / "raw/a/grey.png")
    elif change == "class":
        for path in (folder / "raw/b").iterdir():
            path.unlink()
    else:
        for path in (folder / "raw").glob("*/*"):
            path.unlink()
    assert main(["prepare", "photos.yaml", *changes]) == 2
    error = capsys.readouterr().err
    assert re.search(said, error), error
    assert "Traceback" not in error
    assert not list((folder / "lake/photos/datasets").glob("*"))


def test_bytes_in_parquet_are_images_as_well(folder: Path) -> None:
    rows = {
        "name": [f"n{i}" for i in range(40)],
        "image": [png(np.asarray(photo(i))) for i in range(40)],
        "class": ["ab"[i % 2] for i in range(40)],
    }
    pq.write_table(pa.table(rows), folder / "photos.parquet")
    source = "source={tables: {photos: {path: photos.parquet, format: parquet}}, rows: photos}"
    # Those that are as they must be need no `clean: image`.
    manifest = prepared(folder, source, "clean=[]")
    assert sum(manifest.ledger.kept.values()) == 40
    assert set(split_of(folder, manifest)) == set(rows["image"])


def test_sparks_binary_files_are_images_as_well(folder: Path) -> None:
    source = (
        "source={tables: {photos: {path: 'raw/*/*', format: binaryFile}}, rows: photos, query: 'SELECT photos._row, "
        'content AS image, element_at(split(path, "/"), -2) AS class FROM photos\'}'
    )
    manifest = prepared(folder, source)
    assert sum(manifest.ledger.kept.values()) == 60
    assert json.loads(manifest.model_dump_json())["ledger"]["rows_in"] == 60


@pytest.mark.parametrize("store", ["as_is", "jpeg", "array"])
@pytest.mark.parametrize("channels", [1, 3])
def test_petastorms_reader_decodes_them_as_ours(folder: Path, store: str, channels: int) -> None:
    pytest.importorskip("cv2")
    import lakefit.petastorm

    lakefit.petastorm.install()
    from petastorm import make_reader

    changes = [f"clean.0.image.{key}={value}" for key, value in (("store", store), ("channels", channels))]
    manifest = prepared(folder, *changes, f"features.images.channels={channels}")
    (dataset,) = (folder / "lake/photos/datasets").iterdir()
    feed = SplitFeed(dataset, manifest, "train", batch_size=100, shuffle=False)
    ((inputs, labels),) = feed.to_tf()
    with make_reader(f"file://{dataset}/train", shuffle_row_groups=False, reader_pool_type="dummy") as reader:
        rows = list(reader)
    assert np.array_equal([row.label for row in rows], labels[:, 0])
    theirs = np.stack([row.image for row in rows]).reshape(inputs["image"].shape)
    assert theirs.dtype == np.uint8
    # OpenCV's JPEG may round otherwise.
    np.testing.assert_allclose(theirs, inputs["image"], atol=2 if store == "jpeg" else 0)


def test_pixels_are_stored_as_they_are_and_resized_by_nobody(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    photo(100, 10, 12).save(folder / "raw/a/small.png")
    changes = ("clean.0.image.store=array", "features.images.interpolation=bilinear")
    assert main(["prepare", "photos.yaml", *(part for change in changes for part in ("--set", change))]) == 2
    assert "an image is 10 x 12 (height x width) with 3 channels" in capsys.readouterr().err
    manifest = prepared(folder, *changes, "clean.0.image.resize=[24, 32]")
    (dataset,) = (folder / "lake/photos/datasets").iterdir()
    feed = SplitFeed(dataset, manifest, "train", batch_size=100, shuffle=False)
    ((inputs, _),) = feed.to_tf()
    stored = [np.load(io.BytesIO(content)) for content in pq.read_table(dataset / "train")["image"].to_pylist()]
    assert np.array_equal(np.stack(stored), inputs["image"])
