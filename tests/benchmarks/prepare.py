"""Preparation: lakefit against a bare Spark copy and PySpark as people write it, on the same CSV and the same session.

13 float columns with 2 % nulls, 26 integer categories, a label, 5 % exact duplicates. ROWS=100000,1000000 sets sizes.
"""

import os
import shutil
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import run_benchmark, stopwatch

FLOATS = [f"f{i}" for i in range(13)]
CATEGORIES = [f"c{i}" for i in range(26)]
SCHEMA = ", ".join([*(f"{name} DOUBLE" for name in FLOATS), *(f"{name} INT" for name in CATEGORIES), "y INT"])


def write_data(folder: Path, rows: int) -> None:
    """Write raw.csv once, from a fixed seed."""
    import numpy as np
    import pyarrow as pa
    import pyarrow.compute as pc
    import pyarrow.csv as pc_csv

    path = folder / "raw.csv"
    if path.exists():
        return
    dice = np.random.default_rng(0)
    unique = rows - rows // 20
    columns = {}
    for name in FLOATS:
        values = np.round(dice.lognormal(size=unique), 4)
        columns[name] = pa.array(values, mask=dice.random(unique) < 0.02)
    columns |= {name: pa.array(dice.zipf(1.5, unique) % 10_000) for name in CATEGORIES}
    columns["y"] = pa.array((dice.random(unique) < 0.3).astype(np.int32))
    table = pa.table(columns)
    again = table.take(pa.array(dice.integers(0, unique, rows - unique)))
    pc_csv.write_csv(pa.concat_tables([table, again]), path)
    assert pc.sum(table["y"]).as_py() > 0


def _session():
    from lakefit.launch.session import spark_session

    return spark_session()


def lakefit(folder: Path) -> float:
    """The whole job: ledger, rejects, duplicates, statistics, vocabularies and checksums included."""
    from lakefit.config import validate_pipeline
    from lakefit.config.file import PipelineSource
    from lakefit.prepare.stage import Job, prepare
    from lakefit.run.validate import check_inputs

    data = {
        "name": "bench",
        "source": {
            "tables": {
                "t": {"path": str(folder / "raw.csv"), "format": "csv", "options": {"header": True}, "schema": SCHEMA}
            },
            "rows": "t",
        },
        "deduplicate": {},
        "features": {"numeric": {"columns": FLOATS}, "categorical": {"columns": CATEGORIES}},
        "label": {"expression": "y"},
        "output": {"path": str(folder / "lake")},
        "train": {"model": {"sequential": ["Dense"]}, "fit": {"epochs": 1, "batch_size": 1}},
    }
    source = PipelineSource("bench", data, {}, "")
    valid = check_inputs(validate_pipeline(source), source)
    target = folder / "lake" / "dataset"
    shutil.rmtree(target, ignore_errors=True)
    with _session() as spark:
        spark.range(1).collect()
        seconds = stopwatch()
        prepare(spark, Job(valid.pipeline, valid.source, valid.inputs, "bench", target))
        return seconds()


def spark_copy(folder: Path) -> float:
    """Read the CSV, write it as Parquet: what any Spark job pays."""
    with _session() as spark:
        spark.range(1).collect()
        seconds = stopwatch()
        frame = spark.read.csv(str(folder / "raw.csv"), header=True, schema=SCHEMA)
        frame.write.mode("overwrite").parquet(str(folder / "copy"))
        return seconds()


def usual_pyspark(folder: Path) -> float:
    """dropDuplicates, medians, randomSplit, StandardScaler, three writes."""
    from pyspark.ml.feature import StandardScaler, VectorAssembler

    with _session() as spark:
        spark.range(1).collect()
        seconds = stopwatch()
        frame = spark.read.csv(str(folder / "raw.csv"), header=True, schema=SCHEMA).dropDuplicates()
        medians = frame.approxQuantile(FLOATS, [0.5], 0.001)
        frame = frame.fillna({name: value[0] for name, value in zip(FLOATS, medians, strict=True)})
        splits = frame.randomSplit([0.7, 0.15, 0.15], seed=1)
        assembled = [VectorAssembler(inputCols=FLOATS, outputCol="v").transform(split) for split in splits]
        scaler = StandardScaler(inputCol="v", outputCol="x", withMean=True).fit(assembled[0])
        for name, split in zip(("train", "validation", "test"), assembled, strict=True):
            scaler.transform(split).drop("v").write.mode("overwrite").parquet(str(folder / "usual" / name))
        return seconds()


if __name__ == "__main__":
    sizes = [int(rows) for rows in os.environ.get("ROWS", "100000,1000000").split(",")]
    contenders = {"lakefit": lakefit, "spark-copy": spark_copy, "usual-pyspark": usual_pyspark}
    run_benchmark(__file__, contenders, write_data, sizes, input="csv")
