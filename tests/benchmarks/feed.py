"""The feed: lakefit beside bare pyarrow, Petastorm as documented, tuned and converted, TFRecord, DuckDB, polars, HF.

4 M rows of 13 float32, 26 int32 and a label; each contender hands out the same columns of the same Parquet files (their
rows as TFRecord for `tfrecord`), two cores, the page cache warm. The first epoch warms up; then epochs, or what comes
in 20 s of one, are counted. Per contender and batch size: rows/s, CPU seconds per million rows, peak anonymous memory
(RssAnon, file pages apart), what the receipt takes of the feed's CPU, and the ratio to pyarrow-1.
ROWS=4000000 sets the size, BATCHES=256,1024,8192 the batch sizes, CONTENDERS=lakefit-graph,tfrecord those that run,
RUNS=3 how often, of which the median counts. Without CONTENDERS, other shapes follow: feed_shapes.py.
"""

import json
import os
import re
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
sys.path.insert(0, str(Path(__file__).parents[1]))
from harness import ROOT, watching

FLOATS = [f"f{i}" for i in range(13)]
CATEGORIES = [f"c{i}" for i in range(26)]
COLUMNS = [*FLOATS, *CATEGORIES, "label"]
ROWS = int(os.environ.get("ROWS", "4000000"))
ROWS_OF_FILE, ROWS_OF_GROUP = 1_000_000, 100_000
TFRECORD_ROWS = 200_000
SECONDS = 20.0
THREADS = 2


def part(folder: Path, number: int) -> Path:
    return folder / "train" / f"part-{number:05}.parquet"


def write_data(folder: Path, contenders: list[str]) -> None:
    """Write the files of a training split as `prepare` does, and what some contenders read in their place."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.parquet as pq

    (folder / "train").mkdir(parents=True, exist_ok=True)
    for number in range(-(-ROWS // ROWS_OF_FILE)):
        rows = min(ROWS_OF_FILE, ROWS - number * ROWS_OF_FILE)
        if part(folder, number).exists():
            continue
        dice = np.random.default_rng(number)
        columns = {name: dice.normal(size=rows).astype(np.float32) for name in FLOATS}
        columns |= {name: (dice.zipf(1.5, rows) % 10_000).astype(np.int32) for name in CATEGORIES}
        columns |= {"label": (dice.random(rows) < 0.3).astype(np.float32)}
        columns |= {"_position": np.arange(rows) + (number << 40)}
        pq.write_table(
            pa.table(columns), part(folder, number), row_group_size=ROWS_OF_GROUP, use_dictionary=CATEGORIES,
            column_encoding={"_position": "DELTA_BINARY_PACKED"}, write_page_checksum=True,
        )  # fmt: skip
    for path in files(folder):
        if "lakefit-packed-graph" in contenders and not packed(path).exists():
            write_packed(path)
    if "tfrecord" in contenders and not (folder / "rows.tfrecord").exists():
        import tensorflow as tf

        table = pq.ParquetFile(part(folder, 0)).read_row_groups(range(-(-TFRECORD_ROWS // ROWS_OF_GROUP)))
        numeric = np.stack([table[name].to_numpy() for name in FLOATS], axis=1)
        categorical = np.stack([table[name].to_numpy() for name in CATEGORIES], axis=1)
        label = table["label"].to_numpy()
        with tf.io.TFRecordWriter(str(folder / "rows.tfrecord")) as writer:
            for row in range(min(TFRECORD_ROWS, len(label))):
                feature = {
                    "numeric": tf.train.Feature(float_list=tf.train.FloatList(value=numeric[row])),
                    "categorical": tf.train.Feature(int64_list=tf.train.Int64List(value=categorical[row])),
                    "label": tf.train.Feature(float_list=tf.train.FloatList(value=label[row : row + 1])),
                }
                writer.write(tf.train.Example(features=tf.train.Features(feature=feature)).SerializeToString())


def packed(path: Path) -> Path:
    return path.parents[1] / "packed" / "train" / path.name


def write_packed(path: Path) -> None:
    """Write the rows of a file again in the packed layout, as `prepare` does."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    from lakefit.dataset.packed import CATEGORICAL, NUMERIC, pack

    table = pq.read_table(path)
    columns = {NUMERIC: pack([table[name] for name in FLOATS]), CATEGORICAL: pack([table[name] for name in CATEGORIES])}
    columns |= {name: table[name] for name in ("label", "_position")}
    packed(path).parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(
        pa.table(columns), packed(path), row_group_size=ROWS_OF_GROUP, use_dictionary=False,
        compression={NUMERIC: "none", CATEGORICAL: "none", "label": "snappy", "_position": "snappy"},
        column_encoding={"_position": "DELTA_BINARY_PACKED"}, write_page_checksum=True,
    )  # fmt: skip


def files(folder: Path) -> list[Path]:
    return [part(folder, number) for number in range(-(-ROWS // ROWS_OF_FILE))]


def row_groups(folder: Path) -> list[tuple[Path, int]]:
    import pyarrow.parquet as pq

    return [(path, index) for path in files(folder) for index in range(pq.read_metadata(path).num_row_groups)]


def read(group: tuple[Path, int]) -> Any:
    import pyarrow.parquet as pq

    return pq.ParquetFile(group[0]).read_row_group(group[1], columns=COLUMNS, use_threads=False)


def pyarrow_1(folder: Path, batch: int) -> Iterator[int]:
    for group in row_groups(folder):
        yield len(read(group))


def pyarrow_2(folder: Path, batch: int) -> Iterator[int]:
    with ThreadPoolExecutor(THREADS) as threads:
        for table in threads.map(read, row_groups(folder)):
            yield len(table)


def lakefit_feed(folder: Path, batch: int) -> Any:
    """Return the feed, the same in each epoch, as in a training run."""
    if "feed" not in KEPT:
        KEPT["feed"] = new_feed(folder, batch)
    return KEPT["feed"]


def new_feed(folder: Path, batch: int, layout: Any = "wide") -> Any:
    from feeds import manifest_of
    from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
    from lakefit.dataset.manifest import DataFile
    from lakefit.feed.split import SplitFeed

    found = []
    for number, path in enumerate(files(folder)):
        rows = min(ROWS_OF_FILE, ROWS - number * ROWS_OF_FILE)
        groups = tuple(min(ROWS_OF_GROUP, rows - first) for first in range(0, rows, ROWS_OF_GROUP))
        name = str(path.relative_to(folder))
        found.append(DataFile(path=name, row_groups=groups, bytes=0, sha256="", first_position=number << 40))
    features = Features(
        numeric=tuple(NumericFeature(name=name, fill=0.0) for name in FLOATS),
        categorical=tuple(CategoricalFeature(name=name, vocabulary=(), counts=(), rare=0) for name in CATEGORIES),
    )
    place = folder / "packed" if layout == "packed" else folder
    return SplitFeed(place, manifest_of(found, features, layout), "train", batch_size=batch)


def lakefit_numpy(folder: Path, batch: int) -> Iterator[int]:
    feed = lakefit_feed(folder, batch)
    for values in feed:
        yield len(values["label"])
    feed.check()


def lakefit_loop(folder: Path, batch: int) -> Iterator[int]:
    feed = lakefit_feed(folder, batch)
    if "data" not in KEPT:
        KEPT["data"] = feed.to_tf()
    for _, label in KEPT["data"]:
        yield len(label)
    feed.check()


def lakefit_graph(folder: Path, batch: int) -> Iterator[int]:
    feed = lakefit_feed(folder, batch)
    if "data" not in KEPT:
        KEPT["data"] = feed.to_tf()
    yield in_graph(KEPT["data"])
    feed.check()


def lakefit_packed_graph(folder: Path, batch: int) -> Iterator[int]:
    KEPT.setdefault("feed", new_feed(folder, batch, "packed"))
    yield from lakefit_graph(folder, batch)


def in_graph(data: Any) -> int:
    """Return the rows of a dataset of (..., label), read inside TensorFlow's graph, which is built once."""
    import tensorflow as tf

    if "consume" not in KEPT:

        @tf.function
        def consume(data: Any) -> Any:
            rows = tf.constant(0, tf.int64)
            for row in data:
                rows += tf.size(row[-1], tf.int64)
            return rows

        KEPT["consume"] = consume
    return int(KEPT["consume"](data))


def counted(data: Any) -> Iterator[int]:
    """Read a dataset of (..., label) in the graph, some batches at a time, as long as it is asked for."""
    import tensorflow as tf

    batches = iter(data)

    @tf.function
    def some() -> Any:
        rows = tf.constant(0, tf.int64)
        for _ in tf.range(64):
            rows += tf.size(next(batches)[-1], tf.int64)
        return rows

    while True:
        try:
            yield int(some())
        except tf.errors.OutOfRangeError:
            return


def tf_data(folder: Path, batch: int) -> Iterator[int]:
    """TensorFlow around pyarrow, no Petastorm: row groups in a random order, their rows permuted."""
    import numpy as np
    import tensorflow as tf

    groups = row_groups(folder)

    def decoded(number: Any) -> Any:
        table = read(groups[number])
        order = np.random.default_rng(number).permutation(len(table))
        numeric = np.stack([table[name].to_numpy() for name in FLOATS], axis=1)[order]
        categorical = np.stack([table[name].to_numpy() for name in CATEGORIES], axis=1)[order]
        return numeric, categorical, table["label"].to_numpy()[order]

    def block(number: Any) -> Any:
        numeric, categorical, label = tf.numpy_function(decoded, [number], (tf.float32, tf.int32, tf.float32))
        shapes = ((numeric, (None, 13)), (categorical, (None, 26)), (label, (None,)))
        return tuple(tf.ensure_shape(values, shape) for values, shape in shapes)

    data = tf.data.Dataset.range(len(groups)).shuffle(len(groups))
    yield in_graph(data.map(block, num_parallel_calls=THREADS).prefetch(2).rebatch(batch))


def petastorm_reader(folder: Path, **options: Any) -> Any:
    import lakefit.petastorm

    lakefit.petastorm.install()
    from petastorm import make_batch_reader

    return make_batch_reader(f"file://{folder / 'train'}", schema_fields=COLUMNS, num_epochs=1, **options)


def petastorm_documented(folder: Path, batch: int) -> Iterator[int]:
    """As its README feeds Keras: rows, one by one, through a shuffle buffer into batches."""
    with petastorm_reader(folder) as reader:
        from petastorm.tf_utils import make_petastorm_dataset

        data = make_petastorm_dataset(reader).unbatch().shuffle(10_000)
        yield from counted(data.map(lambda row: (row.f0, row.label)).batch(batch))


def petastorm_tuned(folder: Path, batch: int) -> Iterator[int]:
    """Two workers in place of ten, and columns stacked before batches are cut."""
    import tensorflow as tf

    with petastorm_reader(folder, workers_count=THREADS, shuffle_rows=True) as reader:
        from petastorm.tf_utils import make_petastorm_dataset

        def stacked(row: Any) -> Any:
            numeric = tf.stack([getattr(row, name) for name in FLOATS], axis=1)
            categorical = tf.stack([getattr(row, name) for name in CATEGORIES], axis=1)
            return numeric, categorical, row.label

        yield in_graph(make_petastorm_dataset(reader).map(stacked).rebatch(batch))


def petastorm_converter(folder: Path, batch: int) -> Iterator[int]:
    """The Spark converter, which writes the table as Parquet once (not counted) and makes a dataset of it."""
    import lakefit.petastorm

    lakefit.petastorm.install()
    from petastorm.spark import SparkDatasetConverter, make_spark_converter

    from lakefit.launch.session import spark_session

    if "converter" not in KEPT:
        KEPT["session"] = spark_session()
        spark = KEPT["session"].__enter__()
        spark.conf.set(SparkDatasetConverter.PARENT_CACHE_DIR_URL_CONF, f"file://{folder / 'converter'}")
        KEPT["converter"] = make_spark_converter(spark.read.parquet(str(folder / "train")).select(*COLUMNS))
    with KEPT["converter"].make_tf_dataset(batch_size=batch, num_epochs=1, workers_count=THREADS) as data:
        yield from counted(data.map(lambda row: (row.f0, row.label)))


def tfrecord(folder: Path, batch: int) -> Iterator[int]:
    import tensorflow as tf

    described = {
        "numeric": tf.io.FixedLenFeature((13,), tf.float32),
        "categorical": tf.io.FixedLenFeature((26,), tf.int64),
        "label": tf.io.FixedLenFeature((), tf.float32),
    }

    def parsed(rows: Any) -> Any:
        values = tf.io.parse_example(rows, described)
        return values["numeric"], tf.cast(values["categorical"], tf.int32), values["label"]

    data = tf.data.TFRecordDataset(str(folder / "rows.tfrecord")).shuffle(10_000).batch(batch)
    yield in_graph(data.map(parsed, num_parallel_calls=THREADS).prefetch(2))


def stacked_rows(table: Any) -> int:
    """Return the rows of an Arrow table or batch after its columns were put side by side."""
    import numpy as np

    np.stack([table.column(name).to_numpy() for name in FLOATS], axis=1)
    np.stack([table.column(name).to_numpy() for name in CATEGORIES], axis=1)
    return len(table.column("label").to_numpy())


def duckdb_reader(folder: Path, batch: int) -> Iterator[int]:
    import duckdb

    connection = duckdb.connect()
    connection.sql(f"SET threads = {THREADS}")
    query = f"SELECT {', '.join(COLUMNS)} FROM read_parquet('{folder / 'train'}/*.parquet')"
    for rows in connection.sql(query).to_arrow_reader(batch):
        yield stacked_rows(rows)


def polars_reader(folder: Path, batch: int) -> Iterator[int]:
    import numpy as np
    import polars

    for rows in polars.scan_parquet(folder / "train").select(COLUMNS).collect_batches(chunk_size=batch):
        np.ascontiguousarray(rows.select(FLOATS).to_numpy())
        np.ascontiguousarray(rows.select(CATEGORIES).to_numpy())
        yield len(rows["label"].to_numpy())


def hf(folder: Path, batch: int) -> Iterator[int]:
    from datasets import load_dataset

    names = [str(path) for path in files(folder)]
    data = load_dataset("parquet", data_files=names, split="train", streaming=True).select_columns(COLUMNS)
    for rows in data.shuffle(seed=0, buffer_size=10_000).with_format("numpy").iter(batch_size=batch):
        yield len(rows["label"])


CONTENDERS: dict[str, Callable[[Path, int], Iterator[int]]] = {
    "pyarrow-1": pyarrow_1,
    "pyarrow-2": pyarrow_2,
    "lakefit-graph": lakefit_graph,
    "lakefit-packed-graph": lakefit_packed_graph,
    "lakefit-loop": lakefit_loop,
    "lakefit-numpy": lakefit_numpy,
    "tf-data": tf_data,
    "petastorm-tuned": petastorm_tuned,
    "petastorm-documented": petastorm_documented,
    "petastorm-converter": petastorm_converter,
    "tfrecord": tfrecord,
    "duckdb": duckdb_reader,
    "polars": polars_reader,
    "hf": hf,
}
KEPT: dict[str, Any] = {}


def epoch(contender: str, folder: Path, batch: int) -> dict[str, float]:
    """Read an epoch, or what comes of it in SECONDS."""
    began, cpu, rows = time.perf_counter(), time.process_time(), 0
    for some in CONTENDERS[contender](folder, batch):
        rows += some
        if time.perf_counter() - began > SECONDS:
            break
    return {"rows": rows, "seconds": time.perf_counter() - began, "cpu": time.process_time() - cpu}


def measure(contender: str, folder: Path, batch: int) -> None:
    """Print what three epochs of a contender took; the parent looks at the memory."""
    receipt = timed_receipt() if contender.startswith("lakefit") else []
    os.environ["POLARS_MAX_THREADS"] = str(THREADS)
    first = epoch(contender, folder, batch)
    runs = []
    for _ in range(int(os.environ.get("RUNS", "3")) if first["seconds"] < SECONDS else 1):
        receipt.clear()
        run = epoch(contender, folder, batch)
        runs.append(run | {"receipt": sum(receipt)})
    expected = min(ROWS, TFRECORD_ROWS) if contender == "tfrecord" else ROWS
    assert first["seconds"] > SECONDS or {run["rows"] for run in runs} == {expected}, runs
    print(json.dumps(sorted(runs, key=lambda run: run["seconds"] / run["rows"])[len(runs) // 2]))


def timed_receipt() -> list[float]:
    """Return the list to which all that the receipt does in Python adds the CPU seconds that it took.

    But for `mix`, a multiplication that rides on a copy that is made anyway.
    """
    import lakefit.feed.split
    import lakefit.feed.tf_data

    seconds: list[float] = []

    def time_calls(owner: Any, name: str) -> None:
        function = getattr(owner, name)

        def timed(*arguments: Any) -> Any:
            began = time.thread_time()
            result = function(*arguments)
            seconds.append(time.thread_time() - began)
            return result

        setattr(owner, name, timed)

    time_calls(lakefit.feed.split, "unmix")
    time_calls(lakefit.feed.split.Receipt, "add")
    time_calls(lakefit.feed.split.Receipt, "check")
    time_calls(lakefit.feed.tf_data.Arrivals, "leave")
    time_calls(lakefit.feed.tf_data.Arrivals, "check")
    return seconds


def run(contender: str, folder: Path, batch: int) -> dict[str, float]:
    """Measure a contender in a process of its own."""
    command = [sys.executable, __file__, contender, str(batch), str(folder)]
    environment = {**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
    child = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment)
    peak = 0.0

    def look() -> None:
        nonlocal peak
        status = Path(f"/proc/{child.pid}/status")
        found = re.search(r"RssAnon:\s+(\d+)", status.read_text() if status.exists() else "")
        peak = max(peak, int(found[1]) / 1e3 if found else 0.0)

    with watching(look):
        output, errors = child.communicate()
    if child.returncode:
        raise SystemExit(f"{contender} failed:\n{errors[-3000:]}")
    return {**json.loads(output.splitlines()[-1]), "peak_mb": peak}


def main() -> None:
    if len(sys.argv) == 4:
        measure(sys.argv[1], Path(sys.argv[3]), int(sys.argv[2]))
        return
    folder = ROOT / "build" / "bench" / "feed" / str(ROWS)
    wanted = os.environ.get("CONTENDERS", ",".join(CONTENDERS)).split(",")
    write_data(folder, wanted)
    for path in folder.rglob("*"):
        if path.is_file():
            path.read_bytes()
    results = []
    title = f"{'contender':22}{'batch':>7}{'M rows/s':>10}{'CPU s/M':>9}{'peak MB':>9}{'receipt':>9}{'x pyarrow-1':>13}"
    print(title, flush=True)
    for batch in [int(size) for size in os.environ.get("BATCHES", "256,1024,8192").split(",")]:
        for contender in wanted:
            found = run(contender, folder, batch)
            speed = found["rows"] / found["seconds"] / 1e6
            cpu = found["cpu"] / found["rows"] * 1e6
            results.append({"contender": contender, "batch": batch, **found, "m_rows_per_s": speed, "cpu_s_per_m": cpu})
            base = [r["m_rows_per_s"] for r in results if r["contender"] == "pyarrow-1"]
            share = f"{found['receipt'] / found['cpu']:.2%}" if found["receipt"] else ""
            ratio = f"{speed / statistics.median(base):.3f}" if base else ""
            print(
                f"{contender:22}{batch:>7,}{speed:>10.3f}{cpu:>9.3f}{found['peak_mb']:>9,.0f}{share:>9}{ratio:>13}",
                flush=True,
            )
    (folder.parent.parent / "feed.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")
    if "CONTENDERS" not in os.environ:
        import feed_shapes

        feed_shapes.main()


if __name__ == "__main__":
    main()
