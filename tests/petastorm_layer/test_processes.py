"""The layer is there in every process that Petastorm or Spark starts, with no setting and no file for it."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from lakefit.launch.java import java_environment
from lakefit.petastorm.processes import fetch

SCRIPT = '''
"""A user's script: one import, and Petastorm as its own documentation shows it."""
import json, sys
import lakefit.petastorm
import numpy as np
from pyspark.sql import SparkSession
from petastorm import make_reader
from petastorm.codecs import NdarrayCodec, ScalarCodec
from petastorm.etl.dataset_metadata import materialize_dataset
from petastorm.etl.rowgroup_indexers import SingleFieldIndexer
from petastorm.etl.rowgroup_indexing import build_rowgroup_index
from petastorm.selectors import SingleIndexSelector
from petastorm.spark_utils import dataset_as_rdd
from petastorm.unischema import Unischema, UnischemaField, dict_to_spark_row
from pyspark.sql.types import LongType, StringType

Rows = Unischema("Rows", [
    UnischemaField("id", np.int64, (), ScalarCodec(LongType()), False),
    UnischemaField("key", np.str_, (), ScalarCodec(StringType()), False),
    UnischemaField("matrix", np.float32, (2, 2), NdarrayCodec(), False),
])

def row(i):
    return {"id": np.int64(i), "key": f"k{i // 10}", "matrix": np.full((2, 2), i, np.float32)}

if __name__ == "__main__":
    url = sys.argv[1]
    spark = SparkSession.builder.master("local[2]").config("spark.ui.enabled", "false").getOrCreate()
    with materialize_dataset(spark, url, Rows):
        rdd = spark.sparkContext.parallelize(range(40), 4).map(row).map(lambda values: dict_to_spark_row(Rows, values))
        spark.createDataFrame(rdd, Rows.as_spark_schema()).write.mode("overwrite").parquet(url)
    with make_reader(url, reader_pool_type="process", workers_count=2) as reader:
        through_processes = sorted((int(r.id), float(r.matrix.sum())) for r in reader)
    build_rowgroup_index(url, spark.sparkContext, [SingleFieldIndexer("by_key", "key")])
    lakefit.petastorm.trust_pickle = True
    with make_reader(url, rowgroup_selector=SingleIndexSelector("by_key", ["k2"]), workers_count=1) as reader:
        selected = sorted(int(r.id) for r in reader)
    as_rdd = sorted(dataset_as_rdd(url, spark, [Rows.id]).map(lambda r: int(r.id)).collect())
    print(json.dumps([through_processes, selected, as_rdd]))
'''


def test_materialize_read_index_and_select_as_in_petastorms_documentation(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    environment = {**os.environ, **java_environment(), "PYSPARK_PYTHON": sys.executable, "SPARK_LOCAL_IP": "127.0.0.1"}

    run = subprocess.run(
        [sys.executable, str(script), (tmp_path / "dataset").as_uri()],
        env=environment, capture_output=True, text=True, cwd=tmp_path,
    )  # fmt: skip

    assert run.returncode == 0, run.stderr[-3000:]
    through_processes, selected, as_rdd = json.loads(run.stdout.splitlines()[-1])
    assert through_processes == [[i, 4.0 * i] for i in range(40)]
    assert selected == list(range(20, 30))
    assert as_rdd == list(range(40))


def test_sparks_pickler_brings_the_layer_along(petastorm: Any) -> None:
    from petastorm import codecs, unischema
    from pyspark import cloudpickle

    def user_function() -> Any:
        return unischema.Unischema, codecs.NdarrayCodec(), unischema.dict_to_spark_row

    sent = cloudpickle.dumps(user_function)

    # In a process that has never heard of it.
    script = "import pickle, sys; print(pickle.loads(bytes.fromhex(sys.argv[1]))())"
    run = subprocess.run([sys.executable, "-c", script, sent.hex()], capture_output=True, text=True)
    assert run.returncode == 0, run.stderr
    assert "petastorm.unischema.Unischema" in run.stdout
    assert cloudpickle.loads(sent)()[0] is unischema.Unischema


def test_what_is_not_petastorms_is_pickled_as_ever(petastorm: Any) -> None:
    from pyspark import cloudpickle

    assert b"lakefit" not in cloudpickle.dumps([json.dumps, Path, json, print, lambda: 1])


@pytest.mark.parametrize("name", ["", "Unischema", "Unischema.as_spark_schema"])
def test_fetch_finds_modules_and_dotted_names(petastorm: Any, name: str) -> None:
    found = fetch("petastorm.unischema", name)

    assert found.__name__ == (name.rpartition(".")[2] or "petastorm.unischema")
