"""`make package`: executors that have no Python of Lakefit's run on what it makes."""

import subprocess
import sys
from pathlib import Path

import pytest

from faulty import Shop
from lakefit.launch.package import package
from shop import ROOT, events
from standalone import standalone

pytestmark = pytest.mark.slow


def test_executors_run_on_the_environment_that_is_made_for_them(tmp_path: Path) -> None:
    pip = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--wheel-dir"]
    subprocess.run([*pip, str(tmp_path), str(ROOT)], check=True)
    (wheel,) = tmp_path.glob("lakefit-*.whl")
    archive = package(tmp_path / "environment", ROOT / "requirements-cpu.lock", wheel)
    shop = Shop(tmp_path / "shop", 1000)
    with standalone(tmp_path, 1, {"PYSPARK_PYTHON": "./environment/bin/python"}) as cluster:
        process = cluster.submit("run", "shop.yaml", "--json", cwd=shop.folder, spark_archives=f"{archive}#environment")
        output, _ = process.communicate(timeout=600)
    log = (tmp_path / "submit.log").read_text(errors="replace")[-3000:]
    said = [line for line in output.splitlines() if line.startswith("{")]
    assert process.returncode == 0, (said[-1:], log)
    assert events("\n".join(said))[-1]["ledger"]["rows_in"] == 1082
    assert shop.dataset()
