"""Two runs on one output: one is refused by name, and a run that has lost its lock takes nothing into use."""

import json
import os
import signal
import time
from pathlib import Path

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


def test_a_run_suspended_until_another_machine_took_its_lock_takes_nothing_into_use(tmp_path: Path) -> None:
    shop = Shop(tmp_path / "shop", ROWS, "prepare", pipeline=PLAIN)
    process = shop.start()
    while not shop.has("shop/datasets/.staging-*") and process.poll() is None:
        time.sleep(0.01)
    os.killpg(process.pid, signal.SIGSTOP)
    lock = shop.folder / "lake/shop/lock"
    other = {**json.loads(lock.read_text()), "pid": 4711, "host": "other", "flock": "its own", "token": "other"}
    lock.write_text(json.dumps(other))
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
