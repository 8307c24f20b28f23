"""What the driver holds of a plan does not grow with the rows, and little with the files."""

import json
import subprocess
import sys

import pytest

from shop import ROOT


@pytest.mark.parametrize("name", ["inputs", "feed"])
def test_a_hundred_thousand_part_files_are_planned_in_half_a_gigabyte(name: str) -> None:
    command = [sys.executable, str(ROOT / "tests/benchmarks/many_files.py"), name]
    planned = json.loads(subprocess.run(command, capture_output=True, text=True, check=True).stdout)
    assert planned["files"] == 100_000
    assert planned["megabytes"] < 500
    assert planned.get("tasks", 0) <= 100_000
    assert planned.get("row_groups", 800_000) == 800_000
