"""SIGKILL at any instant, then the same command: the same dataset, byte for byte, and the same model."""

import json
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from faulty import KILLS, Shop, dice
from fitting import weights
from shop import events

ROWS = 6_000


class Run(Shop):
    """A shop in which all stages are run."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder, ROWS, "run", "--set", "train.fit.epochs=6")

    def end(self, process: subprocess.Popen[str] | None = None) -> dict[str, Any]:
        """Run to the end (a run that was started, or a new one); return the dataset's bytes and the weights' digest."""
        dataset = self.finish(process)
        return {**dataset, "weights": weights(self.folder / self.result["paths"]["run"] / "model.weights.h5")}

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


def test_a_run_killed_in_prepare_stopped_and_killed_in_train_ends_as_one_never_killed(tmp_path: Path) -> None:
    whole, killed = Run(tmp_path / "whole"), Run(tmp_path / "killed")
    beside = whole.start()  # waited for at the end
    assert killed.kill(lambda _: killed.has("shop/datasets/.staging-*/.scratch-*/train-*"))
    assert not killed.has("shop/datasets/[!.]*")
    killed.stop(lambda: killed.has("shop/runs/*/checkpoints/epoch-00001-*.npz"))
    assert killed.kill(lambda _: killed.has("shop/runs/*/checkpoints/epoch-00003-*.npz"))
    assert not killed.has("shop/artifacts/[!.]*")
    assert killed.end() == whole.end(beside)


@pytest.mark.fault
def test_runs_killed_at_random_instants_end_as_one_never_killed(tmp_path: Path) -> None:
    random = dice()
    whole = Run(tmp_path / "whole")
    began = time.monotonic()
    expected = whole.end()
    seconds = time.monotonic() - began
    done = folders = 0
    while done < KILLS:
        folders += 1
        shop = Run(tmp_path / f"killed-{folders}")
        for _ in range(min(3, KILLS - done)):
            # What was done is not done again: a run that goes on after a kill is in later stages at the same instant.
            instant = random.uniform(0.5, seconds * 0.7)
            if not shop.kill(lambda elapsed, instant=instant: elapsed > instant):  # type: ignore[misc]
                break
            done += 1
            print(f"kill {done}: after {instant:.1f} s")
        assert shop.end() == expected
        print(f"folder {folders}: same dataset, same weights")
