"""Preparation: lakefit, without and with SQL, beside a bare Spark copy, PySpark as people write it, DuckDB and polars.

13 float columns with 2 % nulls, 26 integer categories, a label, 5 % exact duplicates, as CSV and as Parquet. Each
contender removes duplicates, fills nulls by medians, splits, scales by the training split and writes three Parquet
sets; spark-copy only reads and writes. All have the same cores and memory and write snappy; what they wrote is checked.
ROWS=100000,1000000 sets sizes, INPUT=csv,parquet the forms, CONTENDERS=lakefit,duckdb those that run, RUNS=1 how often.
"""

import os
import shutil
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from harness import run_benchmark, stopwatch

FLOATS = [f"f{i}" for i in range(13)]
CATEGORIES = [f"c{i}" for i in range(26)]
SCHEMA = ", ".join([*(f"{name} DOUBLE" for name in FLOATS), *(f"{name} INT" for name in CATEGORIES), "y INT"])
PIECE = 1_000_000
MEMORY = "8GB"


def write_data(folder: Path, rows: int) -> None:
    """Write raw.csv, raw.parquet and the table that is joined, once, from fixed seeds and a million rows at a time."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.csv as pc_csv
    import pyarrow.parquet as pq

    if (folder / "side.csv").exists():
        return
    csv = parquet = None
    for start in range(0, rows, PIECE):
        dice = np.random.default_rng(start)
        here = min(PIECE, rows - start)
        unique = here - here // 20
        columns = {}
        for name in FLOATS:
            values = np.round(dice.lognormal(size=unique), 4)
            columns[name] = pa.array(values, mask=dice.random(unique) < 0.02)
        columns |= {name: pa.array((dice.zipf(1.5, unique) % 10_000).astype(np.int32)) for name in CATEGORIES}
        columns["y"] = pa.array((dice.random(unique) < 0.3).astype(np.int32))
        table = pa.table(columns)
        table = pa.concat_tables([table, table.take(pa.array(dice.integers(0, unique, here - unique)))])
        csv = csv or pc_csv.CSVWriter(folder / "raw.csv", table.schema)
        parquet = parquet or pq.ParquetWriter(folder / "raw.parquet", table.schema)
        csv.write(table)
        parquet.write_table(table, row_group_size=100_000)
    for writer in (csv, parquet):
        if writer is not None:
            writer.close()
    side = pa.table({"c0": pa.array(np.arange(10_000), pa.int32()), "w": np.random.default_rng(1).normal(size=10_000)})
    pc_csv.write_csv(side, folder / "side.csv")


def _session() -> Any:
    from lakefit.launch.session import spark_session

    return spark_session()


def _table(folder: Path, form: str) -> dict[str, Any]:
    if form == "parquet":
        return {"path": str(folder / "raw.parquet"), "format": "parquet"}
    return {"path": str(folder / "raw.csv"), "format": "csv", "options": {"header": True}, "schema": SCHEMA}


WITH_SQL = {
    "reject": [{"when": "f0 * f1 > 1e9", "because": "too large"}, {"when": "c1 + c2 < 0", "because": "negative"}],
    "label": {"expression": "y + 0 > 0"},
}


def lakefit(folder: Path, form: str, sql: bool) -> float:
    """The whole job: ledger, rejects, duplicates, statistics, vocabularies and checksums included."""
    from lakefit.config import validate_pipeline
    from lakefit.config.file import PipelineSource
    from lakefit.prepare.stage import Job, prepare
    from lakefit.run.validate import check_inputs

    tables, query = {"t": _table(folder, form)}, None
    if sql:
        side = {"path": str(folder / "side.csv"), "format": "csv", "options": {"header": True}}
        tables["side"] = {**side, "schema": "c0 INT, w DOUBLE"}
        query = "SELECT t.*, side.w FROM t LEFT JOIN side ON side.c0 = t.c0"
    data = {
        "name": "bench",
        "source": {"tables": tables, "rows": "t", "query": query},
        "deduplicate": {},
        "features": {"numeric": {"columns": FLOATS}, "categorical": {"columns": CATEGORIES}},
        "label": {"expression": "y"},
        "output": {"path": str(folder / "lake")},
        "train": {"model": {"sequential": ["Dense"]}, "fit": {"epochs": 1, "batch_size": 1}},
        **(WITH_SQL if sql else {}),
    }
    source = PipelineSource("bench", data, {}, "")
    valid = check_inputs(validate_pipeline(source), source)
    target = folder / "lake" / "dataset"
    shutil.rmtree(target, ignore_errors=True)
    with _session() as spark:
        spark.range(1).collect()
        seconds = stopwatch()
        manifest = prepare(spark, Job(valid.pipeline, valid.source, valid.inputs, "bench", target))
        taken = seconds()
    assert manifest.reader.startswith("Spark" if sql else "Arrow"), manifest.reader
    check(folder, [target / split for split in ("train", "validation", "test")])
    return taken


def _frame(spark: Any, folder: Path, form: str) -> Any:
    if form == "parquet":
        return spark.read.parquet(str(folder / "raw.parquet"))
    return spark.read.csv(str(folder / "raw.csv"), header=True, schema=SCHEMA)


def spark_copy(folder: Path, form: str) -> float:
    """Read, write Parquet: what any Spark job pays."""
    with _session() as spark:
        spark.range(1).collect()
        seconds = stopwatch()
        _frame(spark, folder, form).write.mode("overwrite").parquet(str(folder / "copy"))
        return seconds()


def usual_pyspark(folder: Path, form: str) -> float:
    """dropDuplicates, medians, randomSplit, StandardScaler, three writes."""
    from pyspark.ml.feature import StandardScaler, VectorAssembler

    with _session() as spark:
        spark.range(1).collect()
        seconds = stopwatch()
        frame = _frame(spark, folder, form).dropDuplicates()
        medians = frame.approxQuantile(FLOATS, [0.5], 0.001)
        frame = frame.fillna({name: value[0] for name, value in zip(FLOATS, medians, strict=True)})
        splits = frame.randomSplit([0.7, 0.15, 0.15], seed=1)
        assembled = [VectorAssembler(inputCols=FLOATS, outputCol="v").transform(split) for split in splits]
        scaler = StandardScaler(inputCol="v", outputCol="x", withMean=True).fit(assembled[0])
        for name, split in zip(("train", "validation", "test"), assembled, strict=True):
            scaler.transform(split).drop("v").write.mode("overwrite").parquet(str(folder / "usual" / name))
        taken = seconds()
    check(folder, [folder / "usual" / name for name in ("train", "validation", "test")])
    return taken


def duckdb(folder: Path, form: str) -> float:
    import duckdb as engine

    out = folder / "duckdb"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    types = {**dict.fromkeys(FLOATS, "DOUBLE"), **dict.fromkeys(CATEGORIES, "INTEGER"), "y": "INTEGER"}
    csv = f"read_csv('{folder}/raw.csv', columns={types})"
    read = f"read_parquet('{folder}/raw.parquet')" if form == "parquet" else csv
    connection = engine.connect(config={"threads": os.cpu_count(), "memory_limit": MEMORY, "temp_directory": str(out)})
    seconds = stopwatch()
    hashed = f"hash({', '.join([*FLOATS, *CATEGORIES])})"
    connection.execute(f"CREATE TABLE t AS SELECT *, {hashed} % 100 AS u FROM (SELECT DISTINCT * FROM {read})")
    medians = connection.execute(f"SELECT {', '.join(f'median({n})' for n in FLOATS)} FROM t WHERE u < 70").fetchone()
    filled = [f"coalesce({name}, {median!r})" for name, median in zip(FLOATS, medians, strict=True)]
    facts = ", ".join(f"avg({value}), stddev_pop({value})" for value in filled)
    moments = connection.execute(f"SELECT {facts} FROM t WHERE u < 70").fetchone()
    scaled = [
        f"CAST(({value} - {moments[2 * i]!r}) / {moments[2 * i + 1]!r} AS FLOAT) AS {FLOATS[i]}"
        for i, value in enumerate(filled)
    ]
    select = f"SELECT {', '.join([*scaled, *CATEGORIES, 'y'])} FROM t"
    for name, where in (("train", "u < 70"), ("validation", "u >= 70 AND u < 85"), ("test", "u >= 85")):
        connection.execute(f"COPY ({select} WHERE {where}) TO '{out}/{name}.parquet' (COMPRESSION snappy)")
    taken = seconds()
    check(folder, [out / f"{name}.parquet" for name in ("train", "validation", "test")])
    return taken


def polars(folder: Path, form: str) -> float:
    import polars as engine

    out = folder / "polars"
    shutil.rmtree(out, ignore_errors=True)
    out.mkdir()
    types = dict.fromkeys(FLOATS, engine.Float64) | dict.fromkeys([*CATEGORIES, "y"], engine.Int32)
    seconds = stopwatch()
    raw = folder / f"raw.{form}"
    scan = engine.scan_parquet(raw) if form == "parquet" else engine.scan_csv(raw, schema=types)
    frame = scan.unique().collect()
    part = frame.hash_rows(seed=1) % 100
    training = frame.filter(part < 70)
    filled = {name: training[name].fill_null(training[name].median()) for name in FLOATS}
    values = {name: engine.col(name).fill_null(training[name].median()) for name in FLOATS}
    scaled = [((values[name] - filled[name].mean()) / filled[name].std(ddof=0)).cast(engine.Float32) for name in FLOATS]
    for name, mine in (("train", part < 70), ("validation", (part >= 70) & (part < 85)), ("test", part >= 85)):
        frame.filter(mine).with_columns(scaled).write_parquet(out / f"{name}.parquet", compression="snappy")
    taken = seconds()
    check(folder, [out / f"{name}.parquet" for name in ("train", "validation", "test")])
    return taken


def check(folder: Path, splits: list[Path]) -> None:
    """Hold what was written to the unique rows of the raw data; the first of the splits trains."""
    import pyarrow.parquet as pq

    sizes = [sum(pq.read_metadata(f).num_rows for f in ([s] if s.is_file() else s.glob("*.parquet"))) for s in splits]
    unique = sum(sizes)
    raw = pq.read_metadata(folder / "raw.parquet").num_rows
    # Of 20 rows one is a copy; by chance a few more are equal.
    assert 0.949 * raw < unique <= 0.951 * raw, f"{unique:,} rows written of {raw:,}"
    assert 0.67 < sizes[0] / unique < 0.73, sizes


CONTENDERS: dict[str, Callable[[Path, str], float]] = {
    "lakefit": partial(lakefit, sql=False),
    "lakefit-sql": partial(lakefit, sql=True),
    "spark-copy": spark_copy,
    "usual-pyspark": usual_pyspark,
    "duckdb": duckdb,
    "polars": polars,
}

if __name__ == "__main__":
    sizes = [int(rows) for rows in os.environ.get("ROWS", "100000,1000000").split(",")]
    wanted = os.environ.get("CONTENDERS", ",".join(CONTENDERS)).split(",")
    forms = os.environ.get("INPUT", "csv,parquet").split(",")
    run_benchmark(__file__, {name: CONTENDERS[name] for name in wanted}, write_data, sizes, forms)
