"""What the driver needs to plan 100,000 part files: seconds and memory, of raw ones and of those of a dataset.

Their footers are simulated: each raw file has the same columns, and the manifest is written here. `python many_files.py
inputs|feed` measures one of the two in a process of its own, and prints JSON.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

FILES = 100_000
COLUMNS = {**{f"x{number}": "DOUBLE" for number in range(40)}, "late": "INT"}
GROUPS = 10
"""Row groups of a file of a dataset, as rows_per_file and rows_per_group make them."""


def plan_inputs(folder: Path) -> dict[str, Any]:
    """List raw files of 64 MB each, check their columns, take their fingerprint, and share them out to tasks."""
    from lakefit.config import (
        Features,
        Fit,
        Label,
        Model,
        Numeric,
        Output,
        Pipeline,
        PipelineSource,
        Source,
        Table,
        Train,
    )
    from lakefit.dataset.fingerprint import dataset_fingerprint
    from lakefit.prepare.direct import _tasks
    from lakefit.run.validate import check_inputs

    for number in range(FILES):
        # A file has no more than 65,000 names.
        first = folder / f"part-{number // 50_000 * 50_000:06d}.parquet"
        if number % 50_000:
            os.link(first, folder / f"part-{number:06d}.parquet")
        else:
            first.touch()
    layers: Any = [{"Dense": {"units": 1, "activation": "sigmoid"}}]
    pipeline = Pipeline(
        name="many",
        source=Source(tables={"rows": Table(path=str(folder), format="parquet")}, rows="rows"),
        features=Features(numeric=(Numeric(columns=("x1", "x2")),)),
        label=(Label(expression="late"),),
        output=Output(path="lake"),
        train=Train(model=Model(sequential=layers), fit=Fit(epochs=1, batch_size=32)),
    )
    with patch("lakefit.run.validate.file_columns", lambda path, kind: dict(COLUMNS)):
        began = time.monotonic()
        valid = check_inputs(pipeline, PipelineSource("many", pipeline.dump(), {}, ""))
        dataset_fingerprint(pipeline, valid.inputs, "")
        files = [replace(file, size=64 << 20) for file in valid.inputs["rows"]]
        tasks = list(_tasks(files, True, cores=1_000, task_bytes=200 << 20))
        seconds = time.monotonic() - began
    return {"files": sum(map(len, tasks)), "tasks": len(tasks), "seconds": seconds}


def plan_feed(folder: Path) -> dict[str, Any]:
    """Read the manifest of a dataset of 10^11 rows, and plan an epoch of it for a worker."""
    import lakefit
    from lakefit.feed.plan import feed_plan

    write_manifest(folder)
    began = time.monotonic()
    dataset = lakefit.open_dataset(folder)
    plan = feed_plan(dataset, "train", batch_size=8_192, lanes=8, remainder="keep", workers=1)
    files = sum(len(split.files) for split in dataset.manifest.splits.values())
    return {"files": files, "row_groups": plan.row_groups, "seconds": time.monotonic() - began}


def write_manifest(folder: Path) -> None:
    """Write it piece by piece: what is measured is the reading."""
    from lakefit.dataset.manifest import FORMAT_VERSION

    shares = {"train": FILES * 8 // 10, "validation": FILES // 10, "test": FILES // 10}

    def files(split: str, place: int, count: int) -> Iterator[str]:
        for number in range(count):
            file = {
                "path": f"{split}/part-{number:05d}.parquet",
                "row_groups": [100_000] * GROUPS,
                "bytes": 104 * 100_000 * GROUPS,
                "sha256": f"{number:064x}",
                "first_position": (place << 56) + (number << 40),
            }
            yield json.dumps(file)

    rows = {split: count * GROUPS * 100_000 for split, count in shares.items()}
    ledger: dict[str, Any] = {"rows_in": sum(rows.values()), "kept": rows, "rejected": {}, "duplicates": 0}
    ledger |= {"not_finite": 0, "unparsable": {}, "files": {}}
    head: dict[str, Any] = {
        "format_version": FORMAT_VERSION, "fingerprint": "0" * 16, "name": "many", "created": "", "versions": {},
        "inputs": [], "excluded": [], "reader": "Arrow", "pipeline": {}, "layout": "wide", "features": {}, "labels": [],
        "statistics": {}, "duplicates": [], "rejects": [], "corrections": [], "strata": [], "expectations": [],
        "ledger": ledger,
    }  # fmt: skip
    with open(folder / "manifest.json", "w", encoding="utf-8") as sink:
        sink.write(json.dumps(head)[:-1] + ', "splits": {')
        for place, (split, count) in enumerate(shares.items()):
            sink.write(f'{"," if place else ""}"{split}": {{"rows": {rows[split]}, "classes": {{}}, "files": [')
            for number, file in enumerate(files(split, place, count)):
                sink.write(f"{',' if number else ''}{file}")
            sink.write("]}")
        sink.write("}}")


def peak_mb() -> float:
    status = Path("/proc/self/status").read_text(encoding="ascii")
    return int(status.partition("VmHWM:")[2].split()[0]) / 1024


MEASURED: dict[str, Callable[[Path], dict[str, Any]]] = {"inputs": plan_inputs, "feed": plan_feed}


def measure(name: str) -> dict[str, Any]:
    """Return what one of the two took in a process of its own; megabytes is all of its memory at most."""
    done = subprocess.run([sys.executable, __file__, name], capture_output=True, text=True, check=True)
    return json.loads(done.stdout)  # type: ignore[no-any-return]


def main() -> None:
    if sys.argv[1:]:
        with tempfile.TemporaryDirectory() as folder:
            found = MEASURED[sys.argv[1]](Path(folder))
        print(json.dumps({**found, "megabytes": peak_mb()}))
        return
    results = {name: measure(name) for name in MEASURED}
    print(f"{'planned':<8} {'files':>8} {'seconds':>8} {'MB':>6}")
    for name, found in results.items():
        print(f"{name:<8} {found['files']:>8,} {found['seconds']:>8.1f} {found['megabytes']:>6.0f}")
    out = Path(__file__).parents[2] / "build/bench/many_files.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
