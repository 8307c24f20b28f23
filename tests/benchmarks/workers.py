"""What it takes a step to be shared by two processes on this machine, by the size of the model.

Dense models of some sizes with Adam, batches of 512 rows of 39 numbers. Each process has one thread. `half`: one
process alone with half of the rows, which is what each of two has to compute; `two`: milliseconds of a step of two that
share the batch, and so what remains is the price of sharing it. The fastest of ROUNDS=5 rounds of STEPS=30 steps. On
paper: what a ring of 8 GPUs has to move a step, 2 x 7/8 of the gradients' bytes through each link, by its bandwidth.
"""

import json
import os
import subprocess
import sys
import time
from itertools import pairwise
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT

ROUNDS = int(os.environ.get("ROUNDS", "5"))
STEPS = int(os.environ.get("STEPS", "30"))
ROWS, COLUMNS = 512, 39
WIDTHS = ((128, 64), (1024, 1024), (2048, 2048), (4096, 4096))
GBITS = (10, 25, 100, 400)


def measure(rows: int, widths: tuple[int, ...]) -> float:
    """Return the seconds of a step in this process, with rows for it alone."""
    import tensorflow as tf

    from lakefit.config import PipelineSource
    from lakefit.launch.place import place
    from lakefit.launch.threads import budget_threads
    from lakefit.train.devices import strategy
    from lakefit.train.distributed_fit import build_without_data, reduce_logs_here
    from lakefit.train.workers import Workers, distributed

    budget_threads(1)
    at = place()
    devices = strategy("cpu", PipelineSource("", {}, {}, ""), 2 if at is not None else 1)
    workers = Workers(devices, at.worker, at.workers) if at is not None else Workers(devices)
    reduce_logs_here()
    data = tf.data.Dataset.from_tensors((tf.random.normal((rows, COLUMNS)), tf.zeros((rows, 1)))).repeat()
    import keras

    with devices.scope():
        layers = [keras.layers.Dense(width, "relu") for width in widths]
        model = keras.Sequential([keras.Input((COLUMNS,)), *layers, keras.layers.Dense(1, "sigmoid")])
        model.compile("adam", "binary_crossentropy")
        model.optimizer.build(model.trainable_variables)
        build_without_data(model, data)
    taken: list[float] = []

    class Clock(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
            self.began = time.perf_counter()

        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            taken.append((time.perf_counter() - self.began) / STEPS)

    model.fit(
        distributed(data, devices, workers), epochs=ROUNDS + 1, steps_per_epoch=STEPS, verbose=0, callbacks=[Clock()]
    )
    return min(taken[1:])


def timed(rows: int, widths: tuple[int, ...], processes: int) -> float:
    """Return the seconds of a step of so many processes, the slowest one's."""
    sys.path.insert(0, str(Path(__file__).parents[1]))
    from fitting import places

    command = [sys.executable, __file__, str(rows), json.dumps(widths)]
    running = [
        subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env={**os.environ, **at})
        for at in (places(processes) if processes > 1 else [{}])
    ]
    ended = [process.communicate() for process in running]
    if any(process.returncode for process in running):
        raise SystemExit(ended[0][1][-3000:])
    return max(float(output) for output, _ in ended)


def main() -> None:
    if sys.argv[1:]:
        print(measure(int(sys.argv[1]), tuple(json.loads(sys.argv[2]))))
        return
    results = []
    head = ("parameters", "gradients", "half ms", "two ms", "sharing ms")
    print("".join(f"{name:>13}" for name in head) + "   8 GPUs on paper, ms on a network of")
    print(" " * 13 * len(head) + "".join(f"{gbit:>5} Gbit/s" for gbit in GBITS))
    for widths in WIDTHS:
        sizes = (COLUMNS, *widths, 1)
        parameters = sum((before + 1) * after for before, after in pairwise(sizes))
        half, two = timed(ROWS // 2, widths, 1), timed(ROWS // 2, widths, 2)
        ring = {gbit: 2 * 7 / 8 * 4 * parameters * 8 / (gbit * 1e9) for gbit in GBITS}
        milliseconds = (1e3 * seconds for seconds in (half, two, two - half))
        row = f"{parameters:>13,}{4e-6 * parameters:>10.2f} MB" + "".join(f"{value:>13.2f}" for value in milliseconds)
        print(row + "".join(f"{1e3 * seconds:>12.2f}" for seconds in ring.values()), flush=True)
        results.append({"parameters": parameters, "half_s": half, "two_s": two, "ring_s": ring})
    out = ROOT / "build/bench/workers.json"
    out.parent.mkdir(parents=True, exist_ok=True)
    out.write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
