"""`lakefit doctor`: all is well here, and what is not is named with what to do."""

import contextlib
import io
from pathlib import Path
from typing import Any

import pytest

from lakefit.cli import main
from lakefit.run import doctor
from shop import events

CHECKS = ["python", "java", "storage", "spark", "executors", "prepare", "devices", "train", "score"]


def examined(*arguments: str) -> tuple[int, dict[str, dict[str, Any]]]:
    out = io.StringIO()
    with contextlib.redirect_stdout(out):
        code = main(["doctor", "--json", *arguments])
    return code, {event["name"]: event for event in events(out.getvalue()) if event["event"] == "check"}


def test_a_hundred_rows_go_through_all_of_it_and_nothing_is_left(spark: Any, tmp_path: Path) -> None:
    code, checks = examined("--path", str(tmp_path))
    assert list(checks) == CHECKS
    assert all(check["ok"] for check in checks.values()), checks
    assert code == 0
    assert checks["executors"]["found"].startswith("100 rows through")
    assert checks["score"]["found"].startswith("100 rows scored")
    assert not list(tmp_path.iterdir())


def test_executors_with_other_packages_are_named(spark: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    # The driver believes that it has another version than its executors, which import the module anew.
    versions = doctor._versions()
    monkeypatch.setattr(doctor, "_versions", lambda: {**versions, "pyarrow": "1.0.0"})
    _, checks = examined("--path", str(tmp_path))
    assert checks["executors"]["ok"] is False
    assert "has pyarrow " in checks["executors"]["found"]
    assert "and the driver has 1.0.0" in checks["executors"]["found"]
    assert "make package" in checks["executors"]["advice"]


@pytest.mark.parametrize(
    ("master", "said"),
    [
        ("spark://127.0.0.1:1", "no Spark master answers at spark://127.0.0.1:1: [Errno 111] Connection refused"),
        ("sc://127.0.0.1:1", "no Spark Connect server answers at sc://127.0.0.1:1: [Errno 111] Connection refused"),
    ],
)
def test_a_master_that_does_not_answer_is_named_and_what_stands_on_it_is_not_tried(
    tmp_path: Path, master: str, said: str, lakefit: Any
) -> None:
    done = lakefit("doctor", "--json", "--master", master, "--path", str(tmp_path / "new"), cwd=tmp_path)
    assert done.returncode == 2, done.stdout
    checks = {event["name"]: event for event in events(done.stdout)}
    assert checks["storage"]["ok"]
    assert (checks["spark"]["ok"], checks["spark"]["found"]) == (False, said)
    assert {name for name, check in checks.items() if check["ok"] is None} == {"executors", "prepare", "train", "score"}


def test_a_place_that_can_not_be_written_is_named(spark: Any, tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    code, checks = examined("--path", str(tmp_path / "file"))
    assert code == 2
    assert not checks["storage"]["ok"]
    assert "can't be written" in checks["storage"]["found"]
