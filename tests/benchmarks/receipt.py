"""What the receipt costs of the feed's CPU time: 1 M rows of 13 float32, 26 int32 and a label, by batch size.

`numpy` is the feed as arrays, with the time inside Receipt; `tf.data` the same behind `to_tf`, with the operations that
compare what TensorFlow hands out, timed on positions alone. ROWS=1000000 sets the size.
"""

import json
import os
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from harness import ROOT

sys.path.insert(0, str(ROOT / "tests"))
from feeds import manifest_of
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
from lakefit.dataset.manifest import DataFile, Manifest
from lakefit.feed.receipt import Receipt
from lakefit.feed.split import SplitFeed, _Arrivals, row_groups

GROUP = 100_000
FLOATS, CATEGORIES = [f"f{i}" for i in range(13)], [f"c{i}" for i in range(26)]


def write_data(folder: Path, rows: int) -> Manifest:
    """Write a split of one file as `prepare` does, and return its manifest."""
    dice = np.random.default_rng(0)
    columns = {name: dice.normal(size=rows).astype(np.float32) for name in FLOATS}
    columns |= {name: (dice.zipf(1.5, rows) % 10_000).astype(np.int32) for name in CATEGORIES}
    columns |= {"label": (dice.random(rows) < 0.3).astype(np.float32), "_position": np.arange(rows)}
    pq.write_table(
        pa.table(columns), folder / "part-0.parquet", row_group_size=GROUP, use_dictionary=CATEGORIES,
        column_encoding={"_position": "DELTA_BINARY_PACKED"}, write_page_checksum=True,
    )  # fmt: skip
    groups = tuple(min(GROUP, rows - first) for first in range(0, rows, GROUP))
    file = DataFile(path="part-0.parquet", row_groups=groups, bytes=0, sha256="", first_position=0)
    features = Features(
        numeric=tuple(NumericFeature(name=name, fill=0.0) for name in FLOATS),
        categorical=tuple(CategoricalFeature(name=name, vocabulary=(), counts=(), rare=0) for name in CATEGORIES),
    )
    return manifest_of([file], features)


class Timed(Receipt):
    """A receipt that knows how long it took."""

    seconds = 0.0

    def _sum(self) -> None:
        began = time.thread_time()
        super()._sum()
        Timed.seconds += time.thread_time() - began

    def check(self, what: str) -> None:
        if self._held_rows:
            self._sum()
        began = time.thread_time()
        super().check(what)
        Timed.seconds += time.thread_time() - began


def epoch(feed: SplitFeed, *, through_tensorflow: bool) -> tuple[float, float]:
    """Return the CPU seconds of an epoch, and those inside the receipt."""
    Timed.seconds = 0.0
    data = feed.to_tf() if through_tensorflow else feed
    began = time.process_time()
    for _ in data:
        pass
    return time.process_time() - began, Timed.seconds


def comparison(feed: SplitFeed) -> float:
    """Return the CPU seconds of an epoch that the operations behind `to_tf` take.

    On one thread, and over many epochs: else threads that wait for work and the optimizing of a graph are measured.
    """
    import tensorflow as tf

    size, arrivals = feed.batch_size, _Arrivals(feed.groups, feed.batches)
    positions = tf.range(feed.rows, dtype=tf.int64)
    one_thread = tf.data.Options()
    one_thread.threading.private_threadpool_size = 1
    one_thread.threading.max_intra_op_parallelism = 1
    epochs = 1 + 20_000 // feed.batches
    taken = {}
    for noted in (False, True):
        slot = arrivals.place(arrivals.begin(), 0)

        def received(number: Any, noted: bool = noted, slot: Any = slot) -> Any:
            number %= feed.batches
            position = positions[number * size : (number + 1) * size]
            place = slot + tf.stack([[0, number]])
            operations = [arrivals.arrives(position, place)] if noted else []
            with tf.control_dependencies([*operations, position, place]):
                return tf.identity(number)

        data = tf.data.Dataset.range(feed.batches * epochs).map(received).with_options(one_thread)
        runs = []
        for _ in range(3):
            began = time.process_time()
            data.reduce(np.int64(0), lambda count, _: count + 1)
            runs.append(time.process_time() - began)
        taken[noted] = sorted(runs)[1] / epochs
    return taken[True] - taken[False]


if __name__ == "__main__":
    import lakefit.feed.split

    lakefit.feed.split.Receipt = Timed
    rows = int(os.environ.get("ROWS", "1000000"))
    folder = ROOT / "build" / "bench" / "receipt"
    folder.mkdir(parents=True, exist_ok=True)
    manifest = write_data(folder, rows)
    assert len(row_groups(manifest, "train")) == -(-rows // GROUP)
    results = []
    print(f"{'feed':10}{'batch':>8}{'CPU s/M rows':>14}{'receipt':>10}{'comparison':>12}{'share':>8}")
    for batch_size in (256, 1024, 8192):
        for kind in ("numpy", "tf.data"):
            through = kind == "tf.data"
            feed = SplitFeed(folder, manifest, "train", batch_size=batch_size)
            runs = sorted(epoch(feed, through_tensorflow=through) for _ in range(3))
            compared = comparison(feed) if through else 0.0
            total, inside = runs[1]
            result = {"feed": kind, "batch": batch_size, "cpu_s": total, "receipt_s": inside, "comparison_s": compared}
            results.append(result)
            million = rows / 1e6
            print(
                f"{kind:10}{batch_size:>8,}{total / million:>14.3f}{inside / million:>10.4f}"
                f"{compared / million:>12.4f}{(inside + compared) / total:>8.2%}",
                flush=True,
            )
    (folder.parent / "receipt.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
