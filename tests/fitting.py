"""The stage `train` by itself on a small dataset, here or in a process that can be killed."""

import hashlib
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

FEATURES = ("x", "y", "z")


def write_dataset(folder: Path, rows: int = 330, validation: int = 70) -> Path:
    """Write a training and a validation split, and their manifest, as `prepare` would; return the folder."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    from feeds import manifest_of
    from lakefit.dataset.features import Features, NumericFeature
    from lakefit.dataset.manifest import DataFile, SplitFiles

    splits = {}
    for number, (split, count) in enumerate((("train", rows), ("validation", validation))):
        dice = np.random.default_rng(number)
        columns = {name: dice.normal(size=count).astype(np.float32) for name in FEATURES}
        columns["label"] = (columns["x"] + dice.normal(size=count) > 0).astype(np.float32)
        columns["_position"] = np.arange(count) + (number << 56)
        path = folder / split / "part-00000.parquet"
        path.parent.mkdir(parents=True)
        pq.write_table(pa.table(columns), path, row_group_size=64)
        groups = tuple(min(64, count - first) for first in range(0, count, 64))
        file = DataFile(path=f"{split}/{path.name}", row_groups=groups, bytes=0, sha256="", first_position=number << 56)
        splits[split] = SplitFiles(rows=count, classes={"label": {}}, files=(file,))
    features = Features(numeric=tuple(NumericFeature(name=name, fill=0.0) for name in FEATURES))
    manifest = manifest_of(splits["train"].files, features).model_copy(update={"splits": splits})
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True), encoding="utf-8")
    return folder


def fit(folder: Path, run_dir: Path, section: dict[str, Any]) -> dict[str, list[float]]:
    """Train on the dataset in a folder by a pipeline file's train section; return the history."""
    from lakefit.config import PipelineSource
    from lakefit.config.pipeline import Pipeline
    from lakefit.console import Console
    from lakefit.dataset.manifest import read_manifest
    from lakefit.launch.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    from lakefit.train.stage import TrainJob, train

    pipeline = Pipeline.model_validate_json(
        json.dumps(
            {
                "name": "fitting",
                "source": {"tables": {"t": {"path": "-", "format": "parquet"}}, "rows": "t"},
                "features": {"numeric": {"columns": FEATURES}},
                "label": {"expression": "y > 0"},
                "output": {"path": "-"},
                "train": section,
            }
        ),
        strict=True,
    )
    run_dir.mkdir(parents=True, exist_ok=True)
    job = TrainJob(pipeline, PipelineSource("p.yaml", {}, {}, ""), read_manifest(folder), folder, run_dir)
    return train(job, Console("json"))


def start(folder: Path, run_dir: Path, section: dict[str, Any]) -> "subprocess.Popen[str]":
    """Start `fit` in a process of its own."""
    return subprocess.Popen(
        [sys.executable, __file__, str(folder), str(run_dir), json.dumps(section)],
        stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, start_new_session=True,
    )  # fmt: skip


def weights(file: Path) -> str:
    """Return a digest of a file of weights by their names (the file itself holds times)."""
    import h5py
    import numpy as np

    digest = hashlib.sha256()
    with h5py.File(file) as found:
        found.visititems(
            lambda name, item: (
                digest.update(name.encode() + np.asarray(item).tobytes()) if isinstance(item, h5py.Dataset) else None
            )
        )
    return digest.hexdigest()


if __name__ == "__main__":
    sys.path.insert(0, os.path.dirname(__file__))
    fit(Path(sys.argv[1]), Path(sys.argv[2]), json.loads(sys.argv[3]))
