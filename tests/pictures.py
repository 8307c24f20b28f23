"""A dataset of small images of two classes, as `prepare` would write it."""

import io
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray
from PIL import Image as Pillow

from feeds import manifest_of
from lakefit.dataset.features import Features, ImageFeature, LabelFeature
from lakefit.dataset.manifest import DataFile, Manifest, SplitFiles

SHAPE = (8, 8, 3)


def pictures(count: int, seed: int, shape: tuple[int, ...] = SHAPE) -> NDArray[np.uint8]:
    """Return (n, height, width, channels): noise, the left half of every other image brighter."""
    images = np.random.default_rng(seed).integers(0, 160, (count, *shape))
    images[1::2, :, : shape[1] // 2] += 60
    return images.astype(np.uint8)


def png(pixels: NDArray[np.uint8]) -> bytes:
    file = io.BytesIO()
    Pillow.fromarray(pixels[..., 0] if pixels.shape[-1] == 1 else pixels).save(file, "PNG")
    return file.getvalue()


def write_pictures(
    folder: Path,
    rows: int = 90,
    validation: int = 24,
    shape: tuple[int, int, int] = SHAPE,
    made: Callable[..., NDArray[np.uint8]] = pictures,
    **label: Any,
) -> Manifest:
    """Write a training and a validation split of PNG files in Parquet, and their manifest; return it."""
    splits = {}
    for number, (split, count) in enumerate((("train", rows), ("validation", validation))):
        table = pa.table(
            {
                "image": pa.array([png(image) for image in made(count, number, shape)], pa.binary()),
                "label": (np.arange(count) % 2).astype(np.float32),
                "_position": np.arange(count) + (number << 56),
            }
        )
        path = folder / split / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(table, path, row_group_size=20, write_page_checksum=True)
        groups = tuple(min(20, count - first) for first in range(0, count, 20))
        file = DataFile(path=f"{split}/{path.name}", row_groups=groups, bytes=0, sha256="", first_position=number << 56)
        splits[split] = SplitFiles(rows=count, classes={"label": {}}, files=(file,))
    features = Features(images=(ImageFeature(name="image", shape=shape),))
    content = {"splits": splits, "labels": (LabelFeature(**label),)}
    manifest = manifest_of(splits["train"].files, features).model_copy(update=content)
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True), encoding="utf-8")
    return manifest
