"""One run at a time on an output; a lock never outlives its process, nor its machine for long."""

import errno
import fcntl
import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from lakefit.errors import InputError, LakefitError
from lakefit.run.lock import run_lock

HOLDER = """
import sys, time
from pathlib import Path
from lakefit.run.lock import run_lock
with run_lock(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "new folder" / "lock"


@pytest.fixture
def holder(path: Path) -> Iterator[subprocess.Popen[str]]:
    command = [sys.executable, "-c", HOLDER, str(path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        assert process.stdout.readline() == "held\n"
        yield process
        process.kill()


def test_a_second_run_is_refused_and_told_by_whom(path: Path, holder: subprocess.Popen[str]) -> None:
    with pytest.raises(InputError, match=rf"another run .*process {holder.pid}, since 2") as refused, run_lock(path):
        pass
    assert refused.value.exit_code == 2
    assert "output.path" in str(refused.value)


def test_a_killed_run_lets_go(path: Path, holder: subprocess.Popen[str]) -> None:
    os.kill(holder.pid, signal.SIGKILL)
    holder.wait()
    with run_lock(path, waiting=pytest.fail):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_run_that_ends_or_fails_lets_go(path: Path) -> None:
    with pytest.raises(RuntimeError), run_lock(path):
        raise RuntimeError
    with run_lock(path), pytest.raises(InputError, match=f"process {os.getpid()}"), run_lock(path):
        pass


def test_a_holder_that_did_not_say_who_it_is_is_refused_too(path: Path) -> None:
    with run_lock(path):
        path.write_text("")
        with pytest.raises(InputError, match="did not say which it is"), run_lock(path):
            pass


def test_a_holder_that_has_just_taken_the_lock_is_told_by_name(path: Path) -> None:
    with run_lock(path):
        said = path.read_text()
        path.write_text("")
        says = threading.Timer(0.2, path.write_text, [said])
        says.start()
        with pytest.raises(InputError, match=f"process {os.getpid()}"), run_lock(path):
            pass
        says.join()


ELSEWHERE = {
    "pid": 4711, "host": "other", "since": "2026-01-01T00:00:00+00:00", "renewed": "2026-01-01T00:10:00+00:00",
    "lease_s": 120, "flock": "another kernel:1:2", "token": "other",
}  # fmt: skip


def left_by_another_machine(path: Path, seconds_ago: float, **fields: Any) -> float:
    """Write the lock of another machine; return when it was written, as its file says."""
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({**ELSEWHERE, **fields}))
    at = time.time() - seconds_ago
    os.utime(path, (at, at))
    return at


def test_a_run_on_another_machine_is_respected_while_it_renews_its_lease(path: Path) -> None:
    left_by_another_machine(path, seconds_ago=100)
    said: list[str] = []
    renewal = threading.Timer(0.2, os.utime, [path])
    renewal.start()
    refusal = r"process 4711, since 2026-01-01.*, on other, renewed "
    with pytest.raises(InputError, match=refusal), run_lock(path, waiting=said.append):
        pass
    renewal.join()
    assert json.loads(path.read_text()) == ELSEWHERE
    (waiting,) = said
    assert re.search(r"waiting up to (20|21) s to see whether it lives", waiting)


def test_a_run_that_was_killed_on_another_machine_is_waited_for_until_its_lease_is_over(path: Path) -> None:
    at = left_by_another_machine(path, seconds_ago=119)
    said: list[str] = []
    with run_lock(path, waiting=said.append):
        assert time.time() - at >= ELSEWHERE["lease_s"]
        assert json.loads(path.read_text())["pid"] == os.getpid()
    (waiting,) = said
    assert "is held by another run (process 4711" in waiting
    assert os.listdir(path.parent) == ["lock"]


def test_a_run_that_ends_on_another_machine_while_it_is_waited_for_leaves_the_lock(path: Path) -> None:
    left_by_another_machine(path, seconds_ago=60)
    happened: list[str] = []

    def let_go() -> None:
        happened.append("let go")
        path.write_text("")

    end = threading.Timer(0.2, let_go)

    def waiting(_: str) -> None:
        happened.append("waiting")
        end.start()

    with run_lock(path, waiting=waiting):
        happened.append("taken")
        assert json.loads(path.read_text())["pid"] == os.getpid()
    assert happened == ["waiting", "let go", "taken"]
    assert os.listdir(path.parent) == ["lock"]


def test_a_lease_that_another_machine_has_not_renewed_is_taken_over(path: Path) -> None:
    left_by_another_machine(path, seconds_ago=121)
    with run_lock(path):
        assert json.loads(path.read_text())["pid"] == os.getpid()


def test_a_lease_that_can_not_be_read_is_respected_as_long(path: Path) -> None:
    left_by_another_machine(path, seconds_ago=100)
    path.write_text('{"pid": 4711, "ho')
    renewal = threading.Timer(0.2, os.utime, [path])
    renewal.start()
    with pytest.raises(InputError, match="did not say which it is"), run_lock(path):
        pass
    renewal.join()


def test_a_lease_is_renewed_several_times_before_it_would_run_out_while_its_run_lasts(path: Path) -> None:
    with run_lock(path, lease_s=6):
        written = {path.stat().st_mtime}
        for _ in range(200):
            written.add(path.stat().st_mtime)
            if len(written) == 3:
                break
            time.sleep(0.05)
        assert len(written) == 3
        # One that fails or comes late then does not end the lease.
        assert max(written) - min(written) < 6
    assert path.read_text() == ""


def test_a_run_whose_lease_was_taken_over_learns_it_and_leaves_the_lock_alone(path: Path) -> None:
    with run_lock(path, lease_s=0.6) as lease:
        lease.check()
        left_by_another_machine(path, seconds_ago=0)
        time.sleep(0.3)  # three renewals
        with pytest.raises(LakefitError, match=r"has lost its lock.*process 4711") as lost:
            lease.check()
        assert lost.value.exit_code == 3
    assert json.loads(path.read_text()) == ELSEWHERE


def test_where_the_file_system_has_no_flock_the_lease_alone_tells(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unsupported(*_: object) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", unsupported)
    # It is refused at the first renewal that it sees.
    with run_lock(path, lease_s=6), pytest.raises(InputError, match=f"process {os.getpid()}"), run_lock(path):
        pass
    with run_lock(path):
        pass
