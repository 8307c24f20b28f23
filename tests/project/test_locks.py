"""The lock files against pyproject.toml and what is installed, without the network. `make lock` mends what fails."""

import re
import tomllib
from collections.abc import Iterable
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[2]
TOGETHER = tuple(f"requirements-{name}.lock" for name in ("bench", "build", "cpu", "dev", "gpu", "java", "suite"))
# Each an environment of its own.
LOCKS = (
    *TOGETHER,
    "requirements-audit.lock",
    "requirements-deploy.lock",
    "requirements-old-stack.lock",
    "requirements-pandas3.lock",
)
PYPROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
EXTRAS: dict[str, list[str]] = PYPROJECT["project"]["optional-dependencies"]
RUNTIME: list[str] = PYPROJECT["project"]["dependencies"]

# What each lock is made from.
SOURCES = {
    "requirements-bench.lock": PYPROJECT["dependency-groups"]["bench"],
    "requirements-build.lock": PYPROJECT["dependency-groups"]["build"],
    "requirements-audit.lock": PYPROJECT["dependency-groups"]["audit"],
    "requirements-cpu.lock": [*RUNTIME, *EXTRAS["cpu"], *EXTRAS["demo"], *EXTRAS["s3"]],
    "requirements-deploy.lock": PYPROJECT["dependency-groups"]["deploy"],
    "requirements-gpu.lock": [*RUNTIME, *EXTRAS["gpu"], *EXTRAS["demo"], *EXTRAS["s3"]],
    "requirements-dev.lock": [*RUNTIME, *EXTRAS["cpu"], *EXTRAS["demo"], *EXTRAS["dev"]],
    "requirements-java.lock": EXTRAS["java"],
    "requirements-old-stack.lock": PYPROJECT["dependency-groups"]["old-stack"],
    "requirements-pandas3.lock": PYPROJECT["dependency-groups"]["pandas3"],
    "requirements-suite.lock": PYPROJECT["dependency-groups"]["suite"],
}


@pytest.mark.parametrize("name", LOCKS)
def test_every_requirement_is_locked_to_a_version_within_its_bounds(name: str) -> None:
    pins = _pins(name)
    for requirement in _requirements(SOURCES[name]):
        pin = pins.get(canonicalize_name(requirement.name))
        assert pin is not None, f"{name} lacks {requirement.name}, which pyproject.toml asks for: make lock"
        assert requirement.specifier.contains(pin), f"{name} has {requirement.name} {pin}, not {requirement}: make lock"


@pytest.mark.parametrize("name", ["requirements-build.lock", "requirements-cpu.lock", "requirements-dev.lock"])
def test_a_lock_holds_all_that_its_packages_ask_for_and_nothing_that_none_asks_for(name: str) -> None:
    pins = _pins(name)
    asked = _asked_for(SOURCES[name])
    assert asked.keys() - pins.keys() == set(), f"asked for and not in {name}: make lock"
    assert pins.keys() - asked.keys() == set(), f"in {name} and asked for by nothing: make lock"
    for package, requirements in asked.items():
        for requirement in requirements:
            assert requirement.specifier.contains(pins[package], prereleases=True), f"{requirement}: {pins[package]}"


def test_this_environment_is_the_one_of_the_lock() -> None:
    pins = _pins("requirements-dev.lock")
    installed = {package: Version(distribution(package).version) for package in pins}
    assert installed == pins, "the environment differs from its lock: make setup"


def test_the_locks_agree_on_every_package_that_they_share() -> None:
    together: dict[str, set[Version]] = {}
    for name in TOGETHER:
        for package, pin in _pins(name).items():
            together.setdefault(package, set()).add(pin)
    assert {package: pins for package, pins in together.items() if len(pins) > 1} == {}


@pytest.mark.parametrize("name", LOCKS)
def test_every_package_of_a_lock_has_hashes(name: str) -> None:
    for entry in re.split(r"^(?=[a-z0-9])", _text(name), flags=re.MULTILINE)[1:]:
        assert re.search(r"^    --hash=sha256:[0-9a-f]{64}\b", entry, re.MULTILINE), entry.splitlines()[0]


@pytest.mark.parametrize("name", LOCKS)
def test_a_lock_names_no_index_no_address_and_no_folder_of_a_machine(name: str) -> None:
    odd = re.compile(r"://|^\s*(-i|-f|-e|--(extra-)?index-url|--find-links|--trusted-host)\b| /|\\\\|@ ", re.MULTILINE)
    assert odd.search(_text(name)) is None


def test_the_group_java_says_the_same_as_the_extra_java() -> None:
    assert PYPROJECT["dependency-groups"]["java"] == EXTRAS["java"]


def test_the_group_build_holds_the_build_backend_as_it_is_asked_for() -> None:
    assert set(PYPROJECT["build-system"]["requires"]) <= set(PYPROJECT["dependency-groups"]["build"])


def _text(name: str) -> str:
    return (ROOT / name).read_text(encoding="utf-8")


def _pins(name: str) -> dict[str, Version]:
    pins = re.findall(r"^([A-Za-z0-9._-]+)==([^\s;\\]+)", _text(name), re.MULTILINE)
    assert pins, f"{name} holds no package"
    return {canonicalize_name(package): Version(version) for package, version in pins}


def _requirements(lines: Iterable[str]) -> list[Requirement]:
    """Those that hold on this Python and machine; our own extras are replaced by what they list."""
    found: list[Requirement] = []
    for line in lines:
        requirement = Requirement(line)
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        if requirement.name == PYPROJECT["project"]["name"]:
            found += _requirements(line for extra in requirement.extras for line in EXTRAS[extra])
        else:
            found.append(requirement)
    return found


def _asked_for(lines: Iterable[str]) -> dict[str, list[Requirement]]:
    """Every package that is asked for, directly or by another package (as installed here), with all that ask for it."""
    asked: dict[str, list[Requirement]] = {}
    expanded: set[tuple[str, str]] = set()
    waiting = _requirements(lines)
    while waiting:
        requirement = waiting.pop()
        package = canonicalize_name(requirement.name)
        asked.setdefault(package, []).append(requirement)
        for extra in {"", *requirement.extras}:
            if (package, extra) in expanded:
                continue
            expanded.add((package, extra))
            try:
                wanted = [Requirement(line) for line in distribution(package).requires or ()]
            except PackageNotFoundError:
                continue  # reported by the test of the environment
            waiting += [need for need in wanted if need.marker is None or need.marker.evaluate({"extra": extra})]
    return asked
