"""A full disk, wherever it is: one clear error, nothing published, and the next run clears up."""

import json
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import fitting
from faulty import MANY, PLAIN, Shop, dice
from shop import events

ROWS = 2_000
AMPLE = 512 << 20


def assert_names(said: str, place: Path | str) -> None:
    assert re.search(rf"^error: {re.escape(str(place))}\S*: the disk is full: .* MB are free now\.", said, re.MULTILINE)
    assert "Make room there, or name another folder" in said
    assert said.count("No space left") == 0
    assert "Traceback" not in said


@pytest.mark.parametrize("disks", [3, MANY])
def test_wherever_a_preparation_fills_its_output_the_version_in_use_stays_and_the_next_run_clears_up(
    spark: Any,
    tmp_path: Path,
    small_disk: Callable[[Path, int], None],
    disks: int,
) -> None:
    random = dice()
    shop = Shop(tmp_path / "shop", ROWS, pipeline=PLAIN)
    lake = shop.folder / "lake"
    small_disk(lake, AMPLE)
    assert shop.here() == 0
    full = 0
    for number in range(disks):
        old = shop.dataset()
        # The raw rows of a bucket are staged first, then files are written from them.
        free = (20_000, 160_000, 260_000)[number] if number < 3 else random.randrange(400_000)
        small_disk(lake, shutil.disk_usage(lake).used + free)
        again = ("--set", f"split.seed={100 + number}")
        code = shop.here(*again)
        print(f"disk {number + 1}: {free:,} bytes free, exit code {code}")
        if code:
            full += 1
            assert code == 3
            assert_names(shop.said, "lake/shop")
            shop.assert_whole()
            assert shop.dataset() == old
            small_disk(lake, AMPLE)
            assert shop.here(*again) == 0
        assert shop.dataset() != old
    assert full >= disks / 2


def test_a_result_that_can_not_be_taken_into_use_for_want_of_room_is_taken_by_the_next_run(
    spark: Any, tmp_path: Path, small_disk: Callable[[Path, int], None]
) -> None:
    shop = Shop(tmp_path / "shop", ROWS, pipeline=PLAIN)
    lake = shop.folder / "lake"
    small_disk(lake, AMPLE)
    assert shop.here() == 0
    new = shop.dataset()
    assert shop.here("--set", "split.seed=4") == 0
    old = shop.dataset()
    small_disk(lake, shutil.disk_usage(lake).used)
    # The new version is there: current.json alone is to be written.
    assert shop.here() == 3
    assert_names(shop.said, "lake/shop")
    assert shop.dataset() == old
    small_disk(lake, AMPLE)
    assert shop.here() == 0
    assert shop.dataset() == new


def test_a_full_disk_of_sparks_own_files_is_named(tmp_path: Path, small_disk: Callable[[Path, int], None]) -> None:
    shop = Shop(tmp_path / "shop", ROWS, "prepare", pipeline=PLAIN)
    local = shop.folder / "local"
    small_disk(local, 64 << 10)
    shop.env = {**os.environ, "SPARK_LOCAL_DIRS": str(local)}
    process = shop.start()
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 3
    assert f"{local}: the disk is full" in output
    assert "SPARK_LOCAL_DIRS" in output
    assert "No space left" not in shop.errors
    assert not list((shop.folder / "lake/shop/datasets").iterdir())
    assert not shop.has("shop/current.json")
    assert not list(local.iterdir())


def test_a_disk_without_room_for_checkpoints_does_not_cost_the_training(
    tmp_path: Path, small_disk: Callable[[Path, int], None]
) -> None:
    shop = Shop(tmp_path / "shop", ROWS, "run", pipeline=PLAIN)
    shop.finish()
    paths = shop.result["paths"]
    weights = shop.folder / paths["run"] / "model.weights.h5"
    first, trained = weights.stat().st_mtime_ns, fitting.weights(weights)
    small_disk(shop.folder / paths["run"] / "checkpoints", 4096)
    process = shop.start("--fresh")
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 3
    said = events(output)
    assert any(event["event"] == "checkpoint_failed" for event in said)
    assert {event["stage"] for event in said if event["event"] == "done"} == {"train", "evaluate", "export"}
    assert said[-1]["exit_code"] == 3
    assert "a checkpoint could not be written: the disk is full. " in said[-1]["message"]
    assert "What was trained is finished and in its place." in said[-1]["message"]
    run = json.loads((shop.folder / paths["run"] / "run.json").read_text())
    assert (run["exit_code"], run["stages"]["train"]["state"]) == (3, "done")
    assert weights.stat().st_mtime_ns > first, "--fresh trains again"
    assert fitting.weights(weights) == trained
    shop.finish()
