"""Two runs on one output: one is refused by name, and a run that has lost its lock takes nothing into use."""

import json
import os
import shutil
import signal
import subprocess
import time
from pathlib import Path
from typing import Any

from faulty import PLAIN, Shop
from shop import events

ROWS = 1_000


def test_of_two_runs_on_one_output_one_is_refused_and_the_other_ends_well(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ROWS, "prepare", pipeline=PLAIN)
    two = [shop.start(), shop.start()]
    outputs = [process.communicate(timeout=300)[0] for process in two]
    assert sorted(process.returncode for process in two) == [0, 2]
    refused = next(i for i, process in enumerate(two) if process.returncode == 2)
    last = events(outputs[refused])[-1]
    assert f"another run is writing to this output (process {two[1 - refused].pid}, since 2" in last["message"]
    shop.assert_whole()
    assert shop.dataset()


def suspended(shop: Shop, at: str) -> tuple[subprocess.Popen[str], dict[str, Any]]:
    """Start a run and suspend it once there is a file that matches, and let another machine take its lock; return the
    run, and what that machine has written."""
    process = shop.start()
    while not shop.has(at) and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    lock = shop.folder / "lake/shop/lock"
    other = {**json.loads(lock.read_text()), "pid": 4711, "host": "other", "flock": "its own", "token": "other"}
    lock.write_text(json.dumps(other))
    return process, other


def test_a_run_suspended_until_another_machine_took_its_lock_takes_nothing_into_use(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ROWS, "prepare", pipeline=PLAIN)
    process, other = suspended(shop, "shop/datasets/.staging-*")
    lock = shop.folder / "lake/shop/lock"
    os.killpg(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 3, output + shop.errors
    assert "this run has lost its lock" in events(output)[-1]["message"]
    assert "process 4711" in events(output)[-1]["message"]
    assert not shop.has("shop/current.json")
    assert json.loads(lock.read_text()) == other
    # The other machine is alive for all that anyone knows: a further run waits, and goes on once it is dead.
    nearly_over = time.time() - other["lease_s"] + 20
    os.utime(lock, (nearly_over, nearly_over))
    waiting = shop.start()
    assert waiting.stdout is not None
    said = (json.loads(line) for line in waiting.stdout)
    assert "to see whether it lives" in next(event["message"] for event in said if event["event"] == "waiting")
    assert shop.finish(waiting)


def test_a_run_whose_files_the_next_one_has_removed_says_that_it_has_lost_its_lock(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ROWS, "prepare", pipeline=PLAIN)
    process, other = suspended(shop, "shop/datasets/.staging-*/.scratch-*/*")
    for staging in (shop.folder / "lake/shop/datasets").glob(".staging-*"):
        # Spark's Python workers are in a group of their own, and may write still.
        shutil.rmtree(staging, ignore_errors=True)
    os.killpg(process.pid, signal.SIGCONT)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 3, output + shop.errors
    assert "this run has lost its lock" in events(output)[-1]["message"]
    assert not shop.has("shop/current.json")
    assert not shop.has("shop/datasets/[!.]*"), "its stage failed"
    assert json.loads((shop.folder / "lake/shop/lock").read_text()) == other
