"""SIGKILL at any instant, then the same command: the same dataset, byte for byte, and the same model."""

import hashlib
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

from shop import events, parquet_bytes, write_shop

ROWS = 6_000


class Shop:
    """A folder with raw data in which runs are started, killed and finished."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True)
        self.folder = folder
        write_shop(folder, ROWS)
        # The fingerprint holds modification times: equal ones, so that both folders make the same dataset.
        for file in folder.glob("*.csv"):
            os.utime(file, ns=(10**18, 10**18))

    def start(self) -> subprocess.Popen[str]:
        command = [sys.executable, "-m", "lakefit", "run", "shop.yaml", "--json", "--set", "train.fit.epochs=6"]
        with open(self.folder / "stderr.txt", "w", encoding="utf-8") as errors:
            return subprocess.Popen(
                command, cwd=self.folder, stdout=subprocess.PIPE, stderr=errors, text=True, start_new_session=True
            )

    def finish(self, process: subprocess.Popen[str] | None = None) -> dict[str, bytes | str]:
        """Run to the end (a run that was started, or a new one); return the dataset's bytes and the weights' digest."""
        process = process or self.start()
        output, _ = process.communicate(timeout=300)
        assert process.returncode == 0, output + (self.folder / "stderr.txt").read_text()
        paths = events(output)[-1]["paths"]
        dataset = self.folder / paths["dataset"]
        assert not list((self.folder / "lake").rglob(".staging-*"))
        current = json.loads((self.folder / "lake/shop/current.json").read_text())
        assert current["dataset"] == dataset.name
        return {**parquet_bytes(dataset), "weights": weights(self.folder / paths["run"] / "model.keras")}

    def kill(self, when: Callable[[float], bool]) -> bool:
        """Start a run and kill it, with all its children, once `when(seconds)`; say whether it was still running."""
        process = self.start()
        began = time.monotonic()
        while process.poll() is None and not when(time.monotonic() - began):
            time.sleep(0.02)
        running = process.poll() is None
        os.killpg(process.pid, signal.SIGKILL)
        process.communicate()
        manifests = [p for p in (self.folder / "lake").rglob("manifest.json") if ".staging-" not in str(p)]
        for manifest in manifests:
            # What is visible is whole.
            for split in json.loads(manifest.read_text())["splits"].values():
                for file in split["files"]:
                    content = (manifest.parent / file["path"]).read_bytes()
                    assert hashlib.sha256(content).hexdigest() == file["sha256"]
        return running

    def stop(self, when: Callable[[], bool]) -> None:
        """Start a run and send it SIGTERM once `when()`: exit code 4 and the command to go on with."""
        process = self.start()
        while process.poll() is None and not when():
            time.sleep(0.02)
        process.terminate()
        output, _ = process.communicate(timeout=120)
        assert process.returncode == 4, output
        last = events(output)[-1]
        assert last["exit_code"] == 4
        assert last["again"].startswith("To go on: lakefit run shop.yaml")
        run = json.loads(next((self.folder / "lake/shop/runs").glob("*/run.json")).read_text())
        assert run["exit_code"] == 4
        assert run["stages"]["train"]["state"] == "failed"

    def has(self, pattern: str) -> bool:
        return any((self.folder / "lake").glob(pattern))


def weights(model: Path) -> str:
    """Return a digest of a .keras file's weights (the archive itself holds a date)."""
    import io
    import zipfile

    import h5py
    import numpy as np

    digest = hashlib.sha256()
    with h5py.File(io.BytesIO(zipfile.ZipFile(model).read("model.weights.h5"))) as file:
        file.visititems(
            lambda name, item: (
                digest.update(name.encode() + np.asarray(item).tobytes()) if isinstance(item, h5py.Dataset) else None
            )
        )
    return digest.hexdigest()


def test_a_run_killed_in_prepare_stopped_and_killed_in_train_ends_as_one_never_killed(tmp_path: Path) -> None:
    whole, killed = Shop(tmp_path / "whole"), Shop(tmp_path / "killed")
    beside = whole.start()  # waited for at the end
    assert killed.kill(lambda _: killed.has("shop/datasets/.staging-*/.scratch/train-*"))
    assert not killed.has("shop/datasets/[!.]*")
    killed.stop(lambda: killed.has("shop/runs/*/checkpoints/epoch-00001.npz"))
    assert killed.kill(lambda _: killed.has("shop/runs/*/checkpoints/epoch-00003.npz"))
    assert not killed.has("shop/artifacts/[!.]*")
    assert killed.finish() == whole.finish(beside)


@pytest.mark.fault
def test_runs_killed_at_random_instants_end_as_one_never_killed(tmp_path: Path) -> None:
    """`make fault KILLS=n`; the seed is printed, so that a failure can be repeated."""
    kills = int(os.environ.get("KILLS", "20"))
    seed = int(os.environ.get("SEED", str(time.time_ns() % 10**6)))
    dice = random.Random(seed)
    print(f"\nKILLS={kills} SEED={seed}")
    whole = Shop(tmp_path / "whole")
    began = time.monotonic()
    expected = whole.finish()
    seconds = time.monotonic() - began
    done = 0
    round_number = 0
    while done < kills:
        round_number += 1
        shop = Shop(tmp_path / f"killed-{round_number}")
        for _ in range(min(3, kills - done)):
            instant = dice.uniform(0.5, seconds)
            running = shop.kill(lambda elapsed, instant=instant: elapsed > instant)  # type: ignore[misc]
            done += 1
            print(f"kill {done}: after {instant:.1f} s, {'running' if running else 'had ended'}")
        assert shop.finish() == expected
        print(f"folder {round_number}: same dataset, same weights")
