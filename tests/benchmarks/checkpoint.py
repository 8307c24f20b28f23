"""What a checkpoint costs: how long the training stands still for one, and what writing it takes beside.

Dense models of some sizes with Adam, on this machine's disk. Per size: megabytes of the file; milliseconds in which the
training stands still, the median of RUNS=5; CPU and wall time of the thread that writes; and what share of the time the
training stands still at the default interval of ten minutes.
"""

import json
import os
import shutil
import statistics
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT

RUNS = int(os.environ.get("RUNS", "5"))
INTERVAL_S = 600
FOLDER = ROOT / "build/bench/checkpoint"
WIDTHS = ((128, 64), (1024, 1024), (4096, 4096), (8192, 4096))


def trained(widths: tuple[int, ...]) -> Any:
    import keras
    import numpy as np

    layers = [keras.layers.Dense(width, "relu") for width in widths]
    model = keras.Sequential([keras.Input((39,)), *layers, keras.layers.Dense(1, "sigmoid")])
    model.compile("adam", "binary_crossentropy", metrics=["auc"])
    model.fit(np.zeros((32, 39), "float32"), np.zeros((32, 1), "float32"), verbose=0)
    return model


def measure(widths: tuple[int, ...]) -> dict[str, Any]:
    import tensorflow as tf

    from lakefit.train.checkpoint import CheckpointFolder, snapshot
    from lakefit.train.workers import Workers

    shutil.rmtree(FOLDER, ignore_errors=True)
    FOLDER.mkdir(parents=True)

    def failed(error: Exception) -> None:
        raise SystemExit(f"no checkpoint could be written: {error}")

    model, folder = trained(widths), CheckpointFolder(FOLDER, 2, failed)
    alone = Workers(tf.distribute.get_strategy())
    still, writing, cpu = [], [], []
    for number in range(RUNS):
        start = time.perf_counter()
        folder.save(snapshot(0, number, model, [], {"history": {}}, alone))
        saved = time.perf_counter()
        still.append(saved - start)
        before = time.process_time()
        folder.flush()
        writing.append(time.perf_counter() - saved)
        cpu.append(time.process_time() - before)
    size = max(path.stat().st_size for path in FOLDER.iterdir())
    return {
        "parameters": int(model.count_params()),
        "mb": size / 1e6,
        "still_ms": statistics.median(still) * 1e3,
        "writing_ms": statistics.median(writing) * 1e3,
        "writing_cpu_ms": statistics.median(cpu) * 1e3,
        "share": statistics.median(still) / INTERVAL_S,
    }


def main() -> None:
    print(
        f"{'parameters':>12}{'file MB':>9}{'still ms':>10}{'writing ms':>12}{'its CPU ms':>12}{'share at 10 min':>17}"
    )
    found = []
    for widths in WIDTHS:
        row = measure(widths)
        found.append(row)
        print(
            f"{row['parameters']:>12,}{row['mb']:>9,.1f}{row['still_ms']:>10,.1f}{row['writing_ms']:>12,.1f}"
            f"{row['writing_cpu_ms']:>12,.1f}{row['share']:>17.4%}",
            flush=True,
        )
    (ROOT / "build/bench/checkpoint.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
