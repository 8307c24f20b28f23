"""Run the tests that ship in Petastorm's wheel, and hold their outcome against known.txt.

    python tests/petastorm_suite/run.py                         through Lakefit's layer, in this environment
    python tests/petastorm_suite/run.py --reference PYTHON      without it, in an environment of Petastorm's own time

Each file runs in a process of its own, two at a time, unforked. Exit code 1: a test does not pass that known.txt does
not name, one passes that it names, or a file has another number of tests. A reference run only prints.
"""

import argparse
import os
import subprocess
import sys
import tarfile
import xml.etree.ElementTree as ET
from collections import Counter
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

HERE = Path(__file__).resolve().parent
OUT = HERE.parent.parent / "build" / "petastorm-suite"
FOLDERS = ("tests", "workers_pool/tests", "hdfs/tests")
TIMEOUT_S = 600


def main() -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--reference", metavar="PYTHON", help="the interpreter of an environment with old versions")
    parser.add_argument("files", nargs="*", help="of these files alone: test_reader.py")
    options = parser.parse_args()
    # As it is named: a virtual environment is known by its link.
    python = os.path.abspath(options.reference) if options.reference else sys.executable
    package = Path(subprocess.check_output(
        [python, "-c", "import importlib.util as u; print(u.find_spec('petastorm').submodule_search_locations[0])"],
        text=True,
    ).strip())  # fmt: skip
    _add_legacy_datasets(package)
    files = [file for folder in FOLDERS for file in sorted((package / folder).glob("test_*.py"))]
    files = [file for file in files if file.name != "test_common.py"]
    if unknown := set(options.files) - {file.name for file in files}:
        parser.error(f"no such file of tests: {', '.join(sorted(unknown))}")
    files = [file for file in files if not options.files or file.name in options.files]
    folder = OUT / ("reference" if options.reference else "layer")
    folder.mkdir(parents=True, exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        found = dict(zip(files, pool.map(lambda file: _run(python, file, folder), files), strict=True))
    for file, outcomes in found.items():
        counts = Counter(outcomes.values())
        shown = ", ".join(f"{counts[kind]} {kind}" for kind in ("failed", "skipped") if counts[kind])
        print(f"{file.name:40} {counts['passed']:3} of {len(outcomes):3} passed{'; ' + shown if shown else ''}")
    total = Counter(outcome for outcomes in found.values() for outcome in outcomes.values())
    print(f"{'in all':40} {total['passed']:3} of {total.total():3} passed")
    if options.reference is not None:
        for outcomes in found.values():
            for test, outcome in outcomes.items():
                if outcome == "failed":
                    print(f"fails on the old stack: {test}")
        return 0
    return _compare({file.name: outcomes for file, outcomes in found.items()})


def known() -> tuple[dict[str, str], dict[str, int]]:
    """Return test -> cause, and file -> number of tests, of known.txt."""
    causes: dict[str, str] = {}
    counts: dict[str, int] = {}
    cause = ""
    for line in (HERE / "known.txt").read_text(encoding="utf-8").splitlines():
        if line.startswith("# "):
            cause = line.removeprefix("# ")
        elif "::" in line:
            causes[line] = cause
        elif line:
            name, count = line.split()
            counts[name] = int(count)
    return causes, counts


def _compare(found: Mapping[str, Mapping[str, str]]) -> int:
    causes, counts = known()
    wrong = []
    for file, outcomes in sorted(found.items()):
        if len(outcomes) != counts.get(file):
            wrong.append(f"ANOTHER NUMBER OF TESTS: {file}: {len(outcomes)}, not {counts.get(file)}")
        for test, outcome in outcomes.items():
            cause = causes.get(test)
            if outcome != "passed" and cause is None:
                wrong.append(f"NEW FAILURE: {test} {outcome}")
            elif outcome == "passed" and cause is not None and not cause.startswith("flaky"):
                wrong.append(f"UNEXPECTED PASS: {test} ({cause}): take it out of known.txt")
    print("\n".join(wrong) if wrong else "As known.")
    return 1 if wrong else 0


def _run(python: str, file: Path, folder: Path) -> dict[str, str]:
    """Return test -> passed, failed or skipped; a file that can't be imported is one failed test."""
    report = folder / f"{file.stem}.xml"
    report.unlink(missing_ok=True)
    layer = ["-p", "layer" if folder.name == "layer" else "old_names"]
    environment = {**os.environ, "PYTHONPATH": str(HERE), "PYSPARK_PYTHON": python, "TF_CPP_MIN_LOG_LEVEL": "3"}
    environment |= {"SPARK_LOCAL_IP": "127.0.0.1", "TF_ENABLE_ONEDNN_OPTS": "0"}
    with open(folder / f"{file.stem}.log", "wb") as log:
        # Its assertion rewriter would load their modules past the hook.
        command = [python, "-m", "pytest", "-c", os.devnull, "--assert=plain", *layer, "-p", "no:cacheprovider"]
        command += ["-p", "no:forked", "-p", "no:xdist", "-W", "ignore", "--tb=short", "-q", f"--junitxml={report}"]
        try:
            subprocess.run(
                [*command, str(file)], stdout=log, stderr=log, env=environment, cwd=folder, timeout=TIMEOUT_S
            )
        except subprocess.TimeoutExpired:
            return {f"{file.name}::(timeout)": "failed"}
    if not report.exists():
        return {f"{file.name}::(no report)": "failed"}
    outcomes = {}
    for case in ET.parse(report).iter("testcase"):
        kinds = {child.tag for child in case}
        outcome = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = case.get("name", "") if case.get("classname") else "(import)"
        # Parameters may be addresses and folders, which change.
        test = f"{file.name}::{name}"
        outcomes[test if test not in outcomes else f"{test}#{len(outcomes)}"] = outcome
    return outcomes


def _add_legacy_datasets(package: Path) -> None:
    """Put the datasets of Petastorm's earliest releases where a test looks for them: its wheel leaves them out."""
    target = package / "tests" / "data"
    if not target.exists():
        with tarfile.open(HERE / "legacy.tar.xz") as archive:
            archive.extractall(target, filter="data")


if __name__ == "__main__":
    sys.exit(main())
