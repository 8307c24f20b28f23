"""Feed from an object store: `make bench BENCH=feed_store` (needs moto: `make petastorm-suite` installs it).

The wide table of `feed.py` (2 M rows of 13 float32, 26 int32 and a label) in an S3 server on loopback, in a process of
its own, without latency and with 50 ms before each answer; from the cache, and from the folder. Two cores for all of
it. The best of three epochs each, after one that warms up; rows/s, and the ratio to the same server without latency.
"""

import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import ROOT

ROWS = 2_000_000
LATENCY_S = 0.05


def measure(address: str, **options: Any) -> float:
    """Return the rows/s of the best of three epochs, read in TensorFlow's graph."""
    import tensorflow as tf

    import lakefit

    columns = {
        "numeric": [f"f{number}" for number in range(13)],
        "categorical": [f"c{number}" for number in range(26)],
        "y": "label",
    }
    data = lakefit.open_dataset(address, **options).to_tf("all", batch_size=1024, columns=columns, label="y")

    @tf.function
    def consume(data: Any) -> Any:
        rows = tf.constant(0, tf.int64)
        for _, label in data:
            rows += tf.size(label, tf.int64)
        return rows

    seconds = []
    for _ in range(4):
        began = time.perf_counter()
        assert int(consume(data)) == ROWS
        seconds.append(time.perf_counter() - began)
    return ROWS / min(seconds[1:])


def in_own_process(address: str, **options: Any) -> float:
    from object_store import CREDENTIALS

    command = [sys.executable, __file__, address, json.dumps(options)]
    environment = {**os.environ, **CREDENTIALS, "TF_CPP_MIN_LOG_LEVEL": "3"}
    run = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, env=environment)
    return float(run.stdout.splitlines()[-1])


def main() -> None:
    if len(sys.argv) == 3:
        print(measure(sys.argv[1], **json.loads(sys.argv[2])))
        return
    import feed
    from lakefit.dataset.index import index_folder
    from object_store import CREDENTIALS, object_store

    os.environ |= CREDENTIALS
    feed.ROWS = ROWS
    folder = ROOT / "build" / "bench" / "feed" / str(ROWS)
    feed.write_data(folder, [])
    index_folder(folder / "train")
    found = {"folder": in_own_process(str(folder / "train"))}
    with tempfile.TemporaryDirectory() as cache:
        for latency_s, name in ((0.0, "store"), (LATENCY_S, "store, 50 ms")):
            with object_store(latency_s) as store:
                store.upload(folder / "train", "lake")
                found[name] = in_own_process(store.address("lake"))
                if latency_s:
                    found["store, 50 ms, from the cache"] = in_own_process(store.address("lake"), cache=cache)
    print(f"{'read from':32}{'M rows/s':>10}{'x store':>9}")
    for name, speed in found.items():
        print(f"{name:32}{speed / 1e6:>10.3f}{speed / found['store']:>9.2f}")


if __name__ == "__main__":
    main()
