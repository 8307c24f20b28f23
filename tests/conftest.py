"""What tests share: one Spark session, and the command as a process."""

import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

# Sessions that live for seconds: without the optimizing compiler they take a third less of a core's time.
os.environ.setdefault("JDK_JAVA_OPTIONS", "-XX:TieredStopAtLevel=1")


@pytest.fixture(scope="session")
def spark() -> Iterator[Any]:
    """The session that all in-process tests share; Lakefit finds it running and leaves it running."""
    from lakefit.launch.session import spark_session

    with spark_session() as session:
        yield session


@pytest.fixture(scope="session")
def session(spark: Any) -> Any:
    """A session as preparation sets it."""
    from lakefit.prepare.rows import own_session

    return own_session(spark)


@pytest.fixture(scope="session")
def lakefit() -> Callable[..., subprocess.CompletedProcess[str]]:
    """Run `lakefit` as a process of its own, in a given folder."""

    def run(*arguments: str, cwd: Path, env: dict[str, str] | None = None) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "lakefit", *arguments]
        return subprocess.run(
            command, cwd=cwd, env={**os.environ, **(env or {})}, capture_output=True, text=True, check=False
        )

    return run


@pytest.fixture
def small_disk() -> Iterator[Callable[[Path, int], None]]:
    """Return a function that mounts a small disk at a new folder, or gives it another size in bytes."""
    mounted: list[Path] = []

    def mount(folder: Path, size: int) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        option = f"{'remount,' if folder in mounted else ''}size={size}"
        done = subprocess.run(["mount", "-t", "tmpfs", "-o", option, "tmpfs", str(folder)], capture_output=True)
        if done.returncode:
            pytest.skip(f"no small disk can be mounted here: {done.stderr.decode().strip()}")
        mounted.append(folder)

    yield mount
    for folder in set(mounted):
        subprocess.run(["umount", "--lazy", str(folder)], check=True)
