"""The files of conf/ are found in a checkout; tests/project/test_wheel.py holds the wheel to the same."""

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

import lakefit
from lakefit.errors import InputError
from lakefit.launch.conf import conf_path


def test_a_file_of_conf_is_found_by_its_name() -> None:
    path = conf_path("spark/spark-defaults.conf")
    assert path.is_absolute()
    assert "spark.sql.session.timeZone" in path.read_text(encoding="utf-8")


def test_a_name_that_conf_does_not_hold_is_refused_with_the_names_that_it_holds() -> None:
    with pytest.raises(InputError, match=r"'spark/spark-default\.conf'") as caught:
        conf_path("spark/spark-default.conf")
    assert "spark/spark-defaults.conf" in str(caught.value)


def test_a_package_that_carries_conf_uses_its_own(tmp_path: Path) -> None:
    package = Path(lakefit.__file__).parent
    (tmp_path / "lakefit" / "launch").mkdir(parents=True)
    (tmp_path / "lakefit" / "conf").mkdir()
    (tmp_path / "lakefit" / "conf" / "flights.yaml").write_text("name: flights\n")
    for name in ("__init__.py", "errors.py", "launch/__init__.py", "launch/conf.py"):
        shutil.copy(package / name, tmp_path / "lakefit" / name)
    found = subprocess.run(
        [sys.executable, "-c", "from lakefit.launch.conf import conf_path; print(conf_path('flights.yaml'))"],
        cwd=tmp_path,
        env={"PYTHONPATH": str(tmp_path)},
        capture_output=True,
        text=True,
        check=True,
    )
    assert Path(found.stdout.strip()) == tmp_path / "lakefit" / "conf" / "flights.yaml"
