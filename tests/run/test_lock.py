"""One run at a time on an output; a lock never outlives its process."""

import json
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from lakefit.errors import InputError
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
    with run_lock(path):
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
