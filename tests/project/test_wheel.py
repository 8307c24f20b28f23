"""What a wheel of this tree holds, built without the network by the build backend of the environment."""

import stat
import subprocess
import sys
import zipfile
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
BUILD = "import sys; from hatchling.build import build_wheel; print(build_wheel(sys.argv[1]))"


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Iterator[zipfile.ZipFile]:
    folder = tmp_path_factory.mktemp("wheel")
    built = subprocess.run([sys.executable, "-c", BUILD, folder], cwd=ROOT, capture_output=True, text=True, check=True)
    with zipfile.ZipFile(folder / built.stdout.strip().splitlines()[-1]) as opened:
        yield opened


def test_the_wheel_holds_every_module_and_every_file_of_conf(wheel: zipfile.ZipFile) -> None:
    modules = {str(path.relative_to(ROOT / "src")) for path in (ROOT / "src" / "lakefit").rglob("*.py")}
    settings = {f"lakefit/{path.relative_to(ROOT)}" for path in (ROOT / "conf").rglob("*") if path.is_file()}
    assert "lakefit/conf/spark/spark-defaults.conf" in settings
    assert modules | settings | {"lakefit/py.typed"} <= set(wheel.namelist())


def test_the_wheel_holds_nothing_beside_the_package_and_its_metadata(wheel: zipfile.ZipFile) -> None:
    assert {name.split("/")[0] for name in wheel.namelist()} == {"lakefit", "lakefit-0.1.0.dist-info"}
    assert not [name for name in wheel.namelist() if "__pycache__" in name]


def test_the_java_wrapper_is_still_executable(wheel: zipfile.ZipFile) -> None:
    mode = wheel.getinfo("lakefit/launch/small_java/bin/java").external_attr >> 16
    assert mode & stat.S_IXUSR


def test_the_wheel_installs_the_command(wheel: zipfile.ZipFile) -> None:
    assert "lakefit = lakefit.cli:main" in wheel.read("lakefit-0.1.0.dist-info/entry_points.txt").decode()
