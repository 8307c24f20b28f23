"""The start: seconds from the command to the end of the first training step, with cold and with warm files.

`lakefit-train` is `lakefit train` on a prepared dataset (conf/classification.yaml); `lakefit-run` prepares it first, so
Spark's start and the check of the model are in it; `keras-alone` is a script that imports Keras and does one step on an
array. Cold: the files of Python's packages and of Java are pushed out of the page cache first (those that another
process maps stay). Medians of RUNS=3.
"""

import json
import os
import statistics
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT, RUNS

LAKEFIT = Path(sys.executable).with_name("lakefit")
FOLDER = ROOT / "build/bench/start"
PIPELINE = "conf/classification.yaml"
KERAS_ALONE = """
import numpy, keras
layers = [keras.layers.Dense(128, "relu"), keras.layers.Dense(64, "relu"), keras.layers.Dense(1, "sigmoid")]
model = keras.Sequential([keras.Input((30,)), *layers])
model.compile("adam", "binary_crossentropy")
model.fit(numpy.zeros((32, 30), "float32"), numpy.zeros((32, 1), "float32"), verbose=0)
from lakefit.train.keeper import since_start
print(since_start())
"""


def evict() -> None:
    """Push what a start reads out of the page cache."""
    java = Path(os.environ["JAVA_HOME"]) if "JAVA_HOME" in os.environ else Path("/usr/lib/jvm")
    os.sync()
    for root in (Path(sys.prefix), Path(sys.base_prefix) / "lib", java):
        for folder, _, names in os.walk(root):
            for name in names:
                try:
                    file = os.open(os.path.join(folder, name), os.O_RDONLY)
                except OSError:
                    continue
                os.posix_fadvise(file, 0, 0, os.POSIX_FADV_DONTNEED)
                os.close(file)


def output_of(*command: str | Path) -> str:
    process = subprocess.run(command, cwd=FOLDER, capture_output=True, text=True, check=False)
    if process.returncode:
        raise SystemExit(f"{command} failed:\n{process.stdout[-2000:]}\n{process.stderr[-2000:]}")
    return process.stdout


def first_step(*command: str) -> float:
    lines = output_of(LAKEFIT, *command, "--json").splitlines()
    return next(event["seconds"] for event in map(json.loads, lines) if event["event"] == "first_step")


def main() -> None:
    (FOLDER / "conf").mkdir(parents=True, exist_ok=True)
    # Few epochs: what comes after the first step is not measured.
    text = (ROOT / PIPELINE).read_text(encoding="utf-8")
    (FOLDER / PIPELINE).write_text(text, encoding="utf-8")
    output_of(LAKEFIT, "example", "classification", "data/classification")
    few = ("--set", "train.fit.epochs=1")
    output_of(LAKEFIT, "prepare", PIPELINE, *few)
    number = os.getpid()

    def another(key: str) -> tuple[str, ...]:
        nonlocal number
        number += 1
        return (*few, "--set", f"{key}={number}")

    contenders = {
        "keras-alone": lambda: float(output_of(sys.executable, "-c", KERAS_ALONE)),
        "lakefit-train": lambda: first_step("train", PIPELINE, *another("train.seed")),
        "lakefit-run": lambda: first_step("run", PIPELINE, *another("split.seed")),
    }
    print(f"{'contender':16}{'cold s':>8}{'warm s':>8}{'ratio':>7}")
    results = []
    for name, contender in contenders.items():
        cold, warm = [], []
        for _ in range(RUNS):
            evict()
            cold.append(contender())
            warm.append(contender())
        row = {"contender": name, "cold": statistics.median(cold), "warm": statistics.median(warm)}
        results.append(row)
        ratio = row["warm"] / results[0]["warm"]
        print(f"{name:16}{row['cold']:>8.1f}{row['warm']:>8.1f}{ratio:>7.2f}", flush=True)
    (ROOT / "build/bench/start.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
