"""What tests of faults share: a shop in which commands are started, disturbed and finished, and how often."""

import contextlib
import glob
import hashlib
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from lakefit.cli import main
from shop import events, parquet_bytes, write_shop

KILLS = int(os.environ.get("KILLS", "20"))
"""The long version's number of cases: `make fault KILLS=n`."""
MANY = pytest.param(KILLS, marks=pytest.mark.fault, id="many")

PLAIN = """
name: shop
source:
  tables:
    orders:
      path: orders-*.csv
      format: csv
      options: {header: true, nullValue: NA}
      schema: "id INT, day INT, city STRING, amount DOUBLE, weight DOUBLE, stamp INT, late INT"
  rows: orders
deduplicate: {key: [id], keep: last by stamp}
reject:
  - {when: "amount < 0", because: refunded}
split: {by: [day], train: 0.6, validation: 0.2, test: 0.2, seed: 3}
features:
  numeric: {columns: [amount, weight], indicator: true}
  categorical: {columns: [city], min_count: 2}
label: {expression: late > 0}
output: {path: lake, rows_per_file: 500, rows_per_group: 100}
train: {model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}, fit: {epochs: 1, batch_size: 64}}
"""
"""The shop without SQL, which Arrow reads."""


def dice() -> random.Random:
    """Return a generator whose seed is printed: SEED=n repeats a failure."""
    seed = int(os.environ.get("SEED", str(time.time_ns() % 10**6)))
    print(f"\nSEED={seed}")
    return random.Random(seed)


class Shop:
    """A folder with raw data in which `lakefit COMMAND` is started, killed and finished."""

    def __init__(self, folder: Path, rows: int, *command: str, pipeline: str | None = None) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        self.command = command
        self.env = dict(os.environ)
        self.said = ""
        write_shop(folder, rows)
        if pipeline is not None:
            (folder / "shop.yaml").write_text(pipeline, encoding="utf-8")
        # The fingerprint holds modification times: equal ones, so that all folders make the same dataset.
        for file in folder.glob("*.csv"):
            os.utime(file, ns=(10**18, 10**18))

    @property
    def errors(self) -> str:
        return (self.folder / "stderr.txt").read_text(encoding="utf-8")

    def has(self, pattern: str) -> bool:
        # Not pathlib's, for which a folder that goes meanwhile is an error.
        return bool(glob.glob(pattern, root_dir=self.folder / "lake"))

    def here(self, *arguments: str) -> int:
        """Run `lakefit prepare` in this process and its session; return the exit code. `said` is what it said."""
        out = io.StringIO()
        with contextlib.chdir(self.folder), contextlib.redirect_stdout(out), contextlib.redirect_stderr(out):
            code = main(["prepare", "shop.yaml", *arguments])
        self.said = out.getvalue()
        return code

    def start(self, *arguments: str) -> subprocess.Popen[str]:
        name, *given = self.command
        command = [sys.executable, "-m", "lakefit", name, "shop.yaml", "--json", *given, *arguments]
        with open(self.folder / "stderr.txt", "w", encoding="utf-8") as errors:
            return subprocess.Popen(
                command, cwd=self.folder, env=self.env, stdout=subprocess.PIPE, stderr=errors, text=True,
                start_new_session=True,
            )  # fmt: skip

    def finish(self, process: subprocess.Popen[str] | None = None) -> dict[str, bytes]:
        """Run to the end (a run that was started, or a new one); return the dataset's bytes."""
        process = process or self.start()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output + self.errors
        self.result = events(output)[-1]
        return self.dataset()

    def dataset(self) -> dict[str, bytes]:
        """Return the bytes of the dataset in use; nothing lies beside what its manifest lists, nor in staging."""
        assert not list((self.folder / "lake").rglob(".staging-*"))
        current = json.loads((self.folder / "lake/shop/current.json").read_text())
        folder = self.folder / "lake/shop/datasets" / current["dataset"]
        assert {path.relative_to(folder) for path in folder.rglob("*") if path.is_file()} == {
            Path("manifest.json"), *(Path(file["path"]) for file in _files(folder))
        }  # fmt: skip
        return parquet_bytes(folder)

    def killed_at(self, pattern: str) -> None:
        """Start a run that is killed before it renames anything to a path that matches; its JVM ends by itself."""
        self.env = hooked(self.folder, KILLED_BEFORE_RENAME_TO=pattern)
        process = self.start()
        process.communicate(timeout=300)
        assert process.returncode == -signal.SIGKILL, self.errors
        self.env = dict(os.environ)
        for _ in range(600):
            if not _alive(process.pid):
                break
            time.sleep(0.05)
        assert not _alive(process.pid)
        self.assert_whole()

    def kill(self, when: Callable[[float], bool]) -> bool:
        """Start a run and kill it, with all its children, once `when(seconds)`; say whether it was still running."""
        process = self.start()
        began = time.monotonic()
        while process.poll() is None and not when(time.monotonic() - began):
            time.sleep(0.01)
        running = process.poll() is None
        # It may have ended by itself, and its children with it.
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        self.assert_whole()
        return running

    def assert_whole(self) -> None:
        """Whatever is visible is whole, and so is what is in use."""
        lake = self.folder / "lake/shop"
        for manifest in lake.glob("datasets/[!.]*/manifest.json"):
            for file in _files(manifest.parent):
                assert hashlib.sha256((manifest.parent / file["path"]).read_bytes()).hexdigest() == file["sha256"]
        assert not [folder for folder in lake.glob("datasets/[!.]*") if not (folder / "manifest.json").is_file()]
        if (lake / "current.json").exists():
            current = json.loads((lake / "current.json").read_text())
            assert (lake / "datasets" / current["dataset"] / "manifest.json").is_file()


def _alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


def _files(dataset: Path) -> list[dict[str, str]]:
    manifest = json.loads((dataset / "manifest.json").read_text())
    kept = [file for split in manifest["splits"].values() for file in split["files"]]
    return [*kept, *manifest["duplicates"], *manifest["rejects"]]


HOOK = """
import glob, os, re, signal, sys, time

armed = os.environ["FAULTS"]

def claimed(fault):
    try:
        os.unlink(os.path.join(armed, fault))
    except OSError:
        return False
    return True

def hook(event, arguments):
    if event != "os.rename":
        return
    source, target = map(str, arguments[:2])
    if re.search(os.environ.get("KILLED_BEFORE_RENAME_TO", "^$"), target):
        os.kill(os.getpid(), signal.SIGKILL)
    # Not where a run has ended, whose attempts may still be at it.
    part = re.search(r"/part-\\d+[.]parquet$", target)
    if part and glob.glob(os.path.join(glob.escape(os.path.dirname(target)), "../.scratch-*")):
        with open(os.path.join(armed, "written"), "a") as written:
            written.write(target + "\\n")
        if claimed("slow"):
            time.sleep(60)
        if claimed("killed after its file was written"):
            os.link(source, target)
            os.kill(os.getpid(), signal.SIGKILL)

sys.addaudithook(hook)
"""
"""What goes wrong inside Python processes; files in the folder FAULTS say what, each once."""


def hooked(folder: Path, **environment: str) -> dict[str, str]:
    """Return an environment in which Python processes do what HOOK says, armed by files in `folder`/hooks."""
    hooks = folder / "hooks"
    hooks.mkdir(exist_ok=True)
    (hooks / "sitecustomize.py").write_text(HOOK, encoding="utf-8")
    path = os.pathsep.join([str(hooks), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, "FAULTS": str(hooks), **environment}
