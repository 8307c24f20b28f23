"""Training: lakefit's stage `train` beside Keras on arrays in memory, Petastorm as documented, TFRecord, PyDataset.

1 M rows (at most 8,000 batches) of 39 float32 columns and a binary label, Dense 128-64-1, Adam; every contender trains
the same model on the same columns. `lakefit` is the stage as `lakefit train` runs it, with TensorBoard, checkpoints and
receipts; `lakefit-unkept` without checkpoints; `lakefit-nondeterministic` without determinism; `lakefit-metered` with
clocks in its input, too, which determinism forbids. `keras-in-memory` is a bare `fit` on arrays, in the very order of
lakefit's first epoch, with the same validation: their losses after it must be equal.

The machine is not always as fast, so all contenders of a batch size are alive at once and take turns, an epoch each:
the others are stopped (SIGSTOP) with all their threads meanwhile. The first epoch warms up, and the fastest of RUNS=7
counts: whatever disturbs (neighbours, TensorFlow's autotuner, for which a bare `fit` waits at an epoch's end) only
adds. Of the contenders that would take minutes, what comes in 20 s. Per contender and batch size: rows/s, the share of
the time in which the model waited for input, CPU seconds per million rows, peak anonymous memory, the ratio to
keras-in-memory, the loss after the first epoch.

ROWS=1000000, BATCHES=32,256,1024, CONTENDERS=lakefit,keras-in-memory,... choose.
"""

import json
import os
import re
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import ROOT, watching

COLUMNS = [f"f{i}" for i in range(39)]
ROWS = int(os.environ.get("ROWS", "1000000"))
BATCHES = 8_000
VALIDATION_ROWS = 1_000
ROWS_OF_GROUP = 100_000
EPOCHS = 1 + int(os.environ.get("RUNS", "7"))
SECONDS = 20.0
LAYERS = [
    {"Dense": {"units": 128, "activation": "relu"}},
    {"Dense": {"units": 64, "activation": "relu"}},
    {"Dense": {"units": 1, "activation": "sigmoid"}},
]


def rows_of(folder: Path) -> int:
    return int(folder.name)


def write_data(folder: Path) -> None:
    """Write a training and a validation split as `prepare` does, and the training rows as TFRecord."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    for number, (split, rows) in enumerate((("train", rows_of(folder)), ("validation", VALIDATION_ROWS))):
        path = folder / split / "part-00000.parquet"
        if path.exists():
            continue
        path.parent.mkdir(parents=True, exist_ok=True)
        dice = np.random.default_rng(number)
        columns = {name: dice.normal(size=rows).astype(np.float32) for name in COLUMNS}
        score = sum(columns[name] for name in COLUMNS[:8])
        columns |= {"label": (dice.normal(size=rows) * 2 < score).astype(np.float32)}
        columns |= {"_position": np.arange(rows) + (number << 56)}
        pq.write_table(
            pa.table(columns), path, row_group_size=ROWS_OF_GROUP, use_dictionary=False,
            column_encoding={"_position": "DELTA_BINARY_PACKED"}, write_page_checksum=True,
        )  # fmt: skip
    records = folder / "rows.tfrecord"
    if not records.exists():
        import tensorflow as tf

        table = pq.read_table(folder / "train").slice(0, 200_000)
        values = np.stack([table[name].to_numpy() for name in COLUMNS], axis=1)
        label = table["label"].to_numpy()
        with tf.io.TFRecordWriter(str(records)) as writer:
            for row in range(len(label)):
                feature = {
                    "numeric": tf.train.Feature(float_list=tf.train.FloatList(value=values[row])),
                    "label": tf.train.Feature(float_list=tf.train.FloatList(value=label[row : row + 1])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def manifest(folder: Path) -> Any:
    from feeds import manifest_of
    from lakefit.dataset.features import Features, NumericFeature
    from lakefit.dataset.manifest import DataFile, SplitFiles

    splits = {}
    for number, (split, rows) in enumerate((("train", rows_of(folder)), ("validation", VALIDATION_ROWS))):
        groups = tuple(min(ROWS_OF_GROUP, rows - first) for first in range(0, rows, ROWS_OF_GROUP))
        path = f"{split}/part-00000.parquet"
        size = (folder / path).stat().st_size
        file = DataFile(path=path, row_groups=groups, bytes=size, sha256="", first_position=number << 56)
        splits[split] = SplitFiles(rows=rows, classes={"label": {}}, files=(file,))
    features = Features(numeric=tuple(NumericFeature(name=name, fill=0.0) for name in COLUMNS))
    return manifest_of(list(splits["train"].files), features).model_copy(update={"splits": splits})


def pipeline(batch: int, deterministic: bool) -> Any:
    from lakefit.config import Features, Fit, Label, Model, Numeric, Output, Pipeline, Source, Table, Train

    schema = ", ".join(f"{name} FLOAT" for name in COLUMNS)
    return Pipeline(
        name="bench",
        source=Source(tables={"t": Table(path="-", format="csv", schema=f"{schema}, y INT")}, rows="t"),
        features=Features(numeric=Numeric(columns=COLUMNS)),
        label=Label(expression="y > 0"),
        output=Output(path="-"),
        train=Train(
            devices="cpu",
            deterministic=deterministic,
            model=Model(sequential=LAYERS),
            fit=Fit(epochs=EPOCHS, batch_size=batch),
        ),
    )


class Clock:
    """Wall and CPU time, and the time spent waiting for input, at each epoch's end, when the turn goes to another."""

    def __init__(self) -> None:
        self.waited: Any = None
        self._last = (0.0, 0.0, 0.0)

    def metered(self, data: Any) -> Any:
        """Return the dataset with a clock before and after each batch is asked of it."""
        import tensorflow as tf
        from tensorflow.python.data.ops.map_op import _MapDataset

        with tf.device("CPU:0"):
            self.waited = tf.Variable(0.0, dtype=tf.float64, trainable=False)
        # On the thread that asks: a clock that waits for another thread would count that.
        now = _MapDataset(tf.data.Dataset.range(1 << 60), lambda _: tf.timestamp(), use_inter_op_parallelism=False)

        def noted(before: Any, batch: Any, after: Any) -> Any:
            with tf.control_dependencies([self.waited.assign_add(after - before)]):
                return tf.nest.map_structure(tf.identity, batch)

        timed = tf.data.Dataset.zip((now, data, now))
        return _MapDataset(timed, noted, use_inter_op_parallelism=False)

    def start(self) -> None:
        self._last = self._now()

    def epoch(self, rows: int, loss: float) -> None:
        now = self._now()
        seconds, cpu, waited = (a - b for a, b in zip(now, self._last, strict=True))
        shown = waited if self.waited is not None else None
        print(json.dumps({"rows": rows, "seconds": seconds, "cpu": cpu, "waited": shown, "loss": loss}), flush=True)
        os.kill(os.getpid(), signal.SIGSTOP)

    def _now(self) -> tuple[float, float, float]:
        waited = 0.0 if self.waited is None else float(self.waited.numpy())
        return time.perf_counter(), time.process_time(), waited

    def callback(self, rows: int) -> Any:
        """Return a callback that notes epochs; it is not called at batches, which would slow Keras down."""
        import keras

        clock = self

        class Timer(keras.callbacks.Callback):
            def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
                clock.start()

            def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
                clock.epoch(rows, float(logs["loss"]))

        return Timer()


def lakefit_metered(folder: Path, batch: int, clock: Clock) -> None:
    """The stage with clocks in its input, which TensorFlow refuses where operations must be deterministic."""
    from lakefit.train import stage

    plain = stage.batches_for

    def metered(built: Any, feed: Any, devices: Any, **options: Any) -> Any:
        data = plain(built, feed, devices, **options)
        return clock.metered(data) if feed.split == "train" else data

    stage.batches_for = metered
    lakefit_contender(folder, batch, clock, deterministic=False)


def lakefit_unkept(folder: Path, batch: int, clock: Clock) -> None:
    """The stage without checkpoints: what they cost."""
    from lakefit.train.keeper import Keeper

    Keeper._keep = lambda self, checkpoint: None  # type: ignore[method-assign]
    Keeper._snapshot = lambda self, epoch, batch: None  # type: ignore[method-assign,assignment,return-value]
    lakefit_contender(folder, batch, clock)


def lakefit_contender(folder: Path, batch: int, clock: Clock, *, deterministic: bool = True) -> None:
    """Run the stage as it is; its epochs are timed by the lines that it prints, validation included."""
    import shutil

    from lakefit.config import PipelineSource
    from lakefit.console import Console
    from lakefit.launch.stop import Stop
    from lakefit.train.stage import TrainJob, train

    run_dir = folder / f"run-{batch}-{os.getpid()}"
    shutil.rmtree(run_dir, ignore_errors=True)
    run_dir.mkdir()

    class Timed(Console):
        def event(self, kind: str, message: str, **fields: Any) -> None:
            if kind == "epoch":
                clock.epoch(rows_of(folder), fields["loss"])
                clock.start()

    clock.start()
    given = pipeline(batch, deterministic)
    job = TrainJob(given, PipelineSource("bench", {}, {}, ""), manifest(folder), folder, run_dir, fingerprint="1")
    train(job, Timed(None), Stop())


def model() -> Any:
    import keras

    keras.utils.set_random_seed(0)
    inputs = keras.Input((len(COLUMNS),), name="numeric")
    x = inputs
    for layer in LAYERS:
        ((name, arguments),) = layer.items()
        x = getattr(keras.layers, name)(**arguments)(x)
    made = keras.Model(inputs, x)
    made.compile(optimizer="adam", loss="binary_crossentropy")
    return made


def keras_in_memory(folder: Path, batch: int, clock: Clock) -> None:
    import numpy as np

    from lakefit.feed.split import SplitFeed

    def arrays(split: str, **options: Any) -> list[Any]:
        parts = list(SplitFeed(folder, manifest(folder), split, batch_size=batch, **options))
        return [np.concatenate([part[name] for part in parts]) for name in ("numeric", "label")]

    held_out = tuple(arrays("validation", shuffle=False))
    fit(clock, rows_of(folder), *arrays("train"), batch_size=batch, shuffle=False, validation_data=held_out)


def fit(clock: Clock, rows: int, *data: Any, **options: Any) -> None:
    """Fit and note the epochs, which have so many rows."""
    import tensorflow as tf

    # As the stage does.
    tf.config.experimental.enable_op_determinism()
    model().fit(*data, epochs=EPOCHS, verbose=0, callbacks=[clock.callback(rows)], **options)


def in_epochs(folder: Path, batch: int, clock: Clock, data: Any) -> None:
    """Train on a dataset of batches for as long as it lasts, or SECONDS of an epoch."""
    steps = rows_of(folder) // batch
    made, metered = model(), clock.metered(data)
    done = 0

    import keras

    class Timer(keras.callbacks.Callback):
        def on_train_batch_end(self, number: int, logs: Any = None) -> None:
            nonlocal done
            done = number + 1
            if done == 1:
                clock.start()  # the first step builds the graph
            elif time.perf_counter() - clock._last[0] > SECONDS:
                self.model.stop_training = True

    made.fit(metered, epochs=1, steps_per_epoch=steps, verbose=0, callbacks=[Timer()])
    clock.epoch((done - 1) * batch, 0.0)


def petastorm_documented(folder: Path, batch: int, clock: Clock) -> None:
    import tensorflow as tf

    import lakefit.petastorm

    lakefit.petastorm.install()
    from petastorm import make_batch_reader
    from petastorm.tf_utils import make_petastorm_dataset

    with make_batch_reader(f"file://{folder / 'train'}", schema_fields=[*COLUMNS, "label"], num_epochs=None) as reader:

        def stacked(row: Any) -> Any:
            return tf.stack([getattr(row, name) for name in COLUMNS], axis=0), row.label

        rows = make_petastorm_dataset(reader).unbatch().shuffle(10_000).map(stacked)
        in_epochs(folder, batch, clock, rows.batch(batch))


def tfrecord(folder: Path, batch: int, clock: Clock) -> None:
    import tensorflow as tf

    described = {
        "numeric": tf.io.FixedLenFeature((len(COLUMNS),), tf.float32),
        "label": tf.io.FixedLenFeature((1,), tf.float32),
    }

    def parsed(rows: Any) -> Any:
        values = tf.io.parse_example(rows, described)
        return values["numeric"], values["label"]

    data = tf.data.TFRecordDataset(str(folder / "rows.tfrecord")).repeat().shuffle(10_000).batch(batch)
    in_epochs(folder, batch, clock, data.map(parsed, num_parallel_calls=2).prefetch(2))


def pydataset(folder: Path, batch: int, clock: Clock) -> None:
    """Keras's own way for data on disk: a PyDataset whose items are batches, cut from a row group kept in memory."""
    import keras
    import numpy as np
    import pyarrow.parquet as pq

    file = pq.ParquetFile(folder / "train/part-00000.parquet")

    class Rows(keras.utils.PyDataset):
        def __init__(self) -> None:
            super().__init__(workers=2, use_multiprocessing=False)
            self._groups: dict[int, Any] = {}
            self._lock = threading.Lock()

        def __len__(self) -> int:
            return rows_of(folder) // batch

        def __getitem__(self, number: int) -> Any:
            group, first = divmod(number * batch, ROWS_OF_GROUP)
            with self._lock:  # a Parquet file is read by one thread
                x, y = self._group(group)
            return x[first : first + batch], y[first : first + batch, None]

        def _group(self, group: int) -> Any:
            if group not in self._groups:
                table = file.read_row_group(group, columns=[*COLUMNS, "label"])
                x = np.stack([table[name].to_numpy() for name in COLUMNS], axis=1)
                self._groups = {**dict(list(self._groups.items())[-1:]), group: (x, table["label"].to_numpy())}
            return self._groups[group]

    fit(clock, rows_of(folder) // batch * batch, Rows(), shuffle=False)


CONTENDERS: dict[str, Callable[[Path, int, Clock], None]] = {
    "keras-in-memory": keras_in_memory,
    "lakefit": lakefit_contender,
    "lakefit-metered": lakefit_metered,
    "lakefit-nondeterministic": partial(lakefit_contender, deterministic=False),
    "lakefit-unkept": lakefit_unkept,
    "petastorm-documented": petastorm_documented,
    "tfrecord": tfrecord,
    "pydataset": pydataset,
}


class Turns:
    """A contender in a process of its own, which is stopped after each of its epochs."""

    def __init__(self, contender: str, folder: Path, batch: int) -> None:
        self.contender, self.batch = contender, batch
        self.peak = 0.0
        self._output, self._error = folder / f"{contender}-{batch}.out", folder / f"{contender}-{batch}.err"
        command = [sys.executable, __file__, contender, str(batch), str(folder)]
        with self._output.open("w") as output, self._error.open("w") as error:
            self._process = subprocess.Popen(command, stdout=output, stderr=error)
        self.over = False
        self._wait()

    def take(self) -> None:
        """Let it run its next epoch, if it has one."""
        if not self.over:
            self._process.send_signal(signal.SIGCONT)
            self._wait()

    def _wait(self) -> None:
        with watching(self._look):
            _, status = os.waitpid(self._process.pid, os.WUNTRACED)
        self.over = not os.WIFSTOPPED(status)
        if self.over:
            self._process.returncode = os.waitstatus_to_exitcode(status)
            if self._process.returncode:
                raise SystemExit(f"{self.contender} failed:\n{self._error.read_text()[-3000:]}")

    def _look(self) -> None:
        with suppress(OSError):  # it may have ended
            status = Path(f"/proc/{self._process.pid}/status").read_text()
            found = re.search(r"RssAnon:\s+(\d+)", status)
            self.peak = max(self.peak, int(found[1]) / 1e3 if found else 0.0)

    def epochs(self) -> list[dict[str, Any]]:
        """Return what its clock has said, an epoch a line."""
        return [json.loads(line) for line in self._output.read_text().splitlines() if line.startswith('{"rows"')]


def result(turns: Turns) -> dict[str, Any]:
    """Return a contender's fastest epoch after its first, and the loss of that."""
    epochs = turns.epochs()
    fastest = max(epochs[1:] or epochs, key=lambda epoch: epoch["rows"] / epoch["seconds"])
    waited = fastest["waited"]
    return {
        "contender": turns.contender,
        "batch": turns.batch,
        "rows_per_s": fastest["rows"] / fastest["seconds"],
        "waiting": waited / fastest["seconds"] if waited is not None else None,
        "cpu_per_m": fastest["cpu"] / fastest["rows"] * 1e6,
        "peak_mb": round(turns.peak),
        "first_loss": epochs[0]["loss"],
    }


def results(contenders: list[str], batch: int) -> list[dict[str, Any]]:
    folder = ROOT / "build/bench/train" / str(min(ROWS, BATCHES * batch))
    write_data(folder)
    running = [Turns(name, folder, batch) for name in contenders]
    while not all(turns.over for turns in running):
        for turns in running:
            turns.take()
    found = [result(turns) for turns in running]
    return [{**row, "ratio": row["rows_per_s"] / found[0]["rows_per_s"]} for row in found]


def main() -> None:
    if len(sys.argv) == 4:
        CONTENDERS[sys.argv[1]](Path(sys.argv[3]), int(sys.argv[2]), Clock())
        return
    contenders = os.environ.get("CONTENDERS", ",".join(CONTENDERS)).split(",")
    batches = [int(batch) for batch in os.environ.get("BATCHES", "32,256,1024").split(",")]
    print(f"{'contender':26}{'batch':>7}{'rows/s':>11}{'waiting':>9}{'CPU s/M':>9}{'peak MB':>9}{'ratio':>7}  loss")
    found: list[dict[str, Any]] = []
    for batch in batches:
        for row in results(contenders, batch):
            found.append(row)
            waiting = f"{row['waiting']:.1%}" if row["waiting"] is not None else ""
            loss = f"{row['first_loss']:.6f}" if row["first_loss"] else ""
            print(
                f"{row['contender']:26}{row['batch']:>7,}{row['rows_per_s']:>11,.0f}{waiting:>9}{row['cpu_per_m']:>9.2f}"
                f"{row['peak_mb']:>9,}{row['ratio']:>7.2f}  {loss}",
                flush=True,
            )
    (ROOT / "build/bench/train.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
