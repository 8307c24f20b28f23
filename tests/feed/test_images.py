"""An image that was damaged after preparation ends whatever reads it, and is named."""

from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from fitting import fit, section_of
from lakefit.errors import FeedError
from lakefit.evaluate.stage import predict
from models import SIGMOID, build
from pictures import write_pictures

MODEL = {"sequential": ["Flatten", SIGMOID]}


def damage(folder: Path, split: str, row: int, how: str) -> Any:
    """Write a split, in row groups as before, with one image changed; return the manifest."""
    manifest = write_pictures(folder)
    path = folder / split / "part-00000.parquet"
    table = pq.read_table(path)
    images = table["image"].to_pylist()
    content = images[row]
    images[row] = {"cut": content[:-30], "changed": content[:60] + bytes(20) + content[80:], "gone": b""}[how]
    pq.write_table(table.set_column(0, "image", pa.array(images, pa.binary())), path, row_group_size=20)
    return manifest


@pytest.mark.parametrize("how", ["cut", "changed", "gone"])
@pytest.mark.parametrize("normalize", ["none", "standard"])
def test_training_names_it(tmp_path: Path, how: str, normalize: str) -> None:
    damage(tmp_path, "train", 75, how)
    section = section_of(model=MODEL, fit={"epochs": 1, "batch_size": 16}, images={"normalize": normalize})
    with pytest.raises(FeedError, match=r"train/part-00000\.parquet, row group 3, row 15: 'image' is no whole image"):
        fit(tmp_path, tmp_path / "run", section)


@pytest.mark.parametrize("normalize", ["none", "standard"])
def test_a_file_that_can_not_be_read_is_named_as_well(tmp_path: Path, normalize: str) -> None:
    write_pictures(tmp_path)
    path = tmp_path / "train/part-00000.parquet"
    content = bytearray(path.read_bytes())
    content[600] ^= 255
    path.write_bytes(content)
    section = section_of(model=MODEL, fit={"epochs": 1, "batch_size": 16}, images={"normalize": normalize})
    with pytest.raises(FeedError, match=r"^Row group 0 of .*part-00000\.parquet can't be read"):
        fit(tmp_path, tmp_path / "run", section)


def test_so_does_validation_and_evaluation(tmp_path: Path) -> None:
    manifest = damage(tmp_path, "validation", 21, "cut")
    said = r"validation/part-00000\.parquet, row group 1, row 1: 'image' is no whole image"
    with pytest.raises(FeedError, match=said):
        fit(tmp_path, tmp_path / "run", section_of(model=MODEL, fit={"epochs": 1, "batch_size": 16}))
    built = build(manifest.features, model=MODEL)
    with pytest.raises(FeedError, match=said):
        predict(built.predictor(), tmp_path, manifest, "validation")
