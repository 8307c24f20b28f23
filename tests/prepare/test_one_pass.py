"""The raw files are read once and the rows are shuffled once, by Spark's own count."""

from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from lakefit.config import validate_pipeline
from lakefit.config.file import PipelineSource
from lakefit.prepare.direct import _tasks
from lakefit.prepare.stage import BLOCK_ROWS, FLUSH_BYTES, Job, block_sizes, bucket_bits, prepare
from lakefit.run.validate import Validated, check_inputs

ROWS = 24_000
NUMBERS = [f"x{i}" for i in range(12)]
SCHEMA = f"id BIGINT, {', '.join(f'{name} DOUBLE' for name in NUMBERS)}, city STRING, day DATE, y INT"
VERBS: dict[str, dict[str, Any]] = {
    "read by Arrow": {},
    "duplicates by all columns": {"deduplicate": {}},
    "SQL": {
        "clean": [
            {"column": "twice", "derive": "x0 * 2 + x1"},
            {"column": "city", "text": ["trim", "upper"]},
            {"column": "x2", "clip": {"max": 3}},
        ],
        "deduplicate": {"key": ["id"], "keep": "last by x3"},
        "reject": [{"when": "x4 * x5 > 20", "because": "too much"}],
        "require": [{"that": "sqrt(x6) >= 0", "because": "a root"}],
        "expect": {"input": ["rows >= 10"], "result": ["null_share(x1) < 0.5", "unique(id)"]},
        "split": {"by": ["city", "day"]},
        "label": {"expression": "y + 0 > 0"},
    },
    "a query": {"query": "SELECT t.*, x1 + x2 AS sum FROM t"},
}


@pytest.fixture(scope="module")
def raw(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("raw")
    dice = np.random.Generator(np.random.PCG64(3))
    columns: dict[str, Any] = {"id": np.arange(ROWS)}
    columns |= {name: np.round(dice.lognormal(size=ROWS), 6) for name in NUMBERS}
    columns["city"] = np.array(["Oslo", "Rome", "Bonn"])[dice.integers(0, 3, ROWS)]
    columns["day"] = pa.array(dice.integers(18_000, 19_000, ROWS), pa.int32()).cast(pa.date32())
    columns["y"] = dice.integers(0, 2, ROWS)
    table = pa.table(columns)
    for number in range(4):
        pyarrow.csv.write_csv(table.slice(number * ROWS // 4, ROWS // 4), folder / f"{number}.csv")
    return folder


def valid(raw: Path, folder: Path, sections: dict[str, Any]) -> Validated:
    table = {"path": str(raw), "format": "csv", "options": {"header": True}, "schema": SCHEMA}
    sections = dict(sections)
    data = {
        "name": "t",
        "source": {"tables": {"t": table}, "rows": "t", "query": sections.pop("query", None)},
        "features": {"numeric": {"columns": NUMBERS}, "categorical": {"columns": ["city"]}},
        "label": {"expression": "y"},
        "output": {"path": str(folder / "lake")},
        "train": {"model": {"sequential": ["Dense"]}, "fit": {"epochs": 1, "batch_size": 1}},
        **sections,
    }
    source = PipelineSource("test", data, {}, "")
    return check_inputs(validate_pipeline(source), source)


@pytest.fixture
def stages(spark: Any) -> Callable[[], list[tuple[int, int]]]:
    """Return the bytes read and the bytes shuffled of each stage that ended since the last call."""
    store, jvm, seen = spark.sparkContext._jsc.sc().statusStore(), spark.sparkContext._jvm, set[int]()

    def since() -> list[tuple[int, int]]:
        spark.sparkContext._jsc.sc().listenerBus().waitUntilEmpty()
        defaults = (getattr(store, f"stageList$default${place}")() for place in (4, 5))
        found = store.stageList(jvm.java.util.ArrayList(), False, False, *defaults)
        new = [one for one in map(found.apply, range(found.size())) if one.stageId() not in seen]
        seen.update(one.stageId() for one in new)
        return [(one.inputBytes(), one.shuffleWriteBytes()) for one in new]

    since()
    return since


@pytest.mark.parametrize("verbs", VERBS)
def test_rows_are_read_once_and_shuffled_once(
    spark: Any, stages: Callable[[], list[tuple[int, int]]], raw: Path, tmp_path: Path, verbs: str
) -> None:
    found = valid(raw, tmp_path, VERBS[verbs])
    manifest = prepare(spark, Job(found.pipeline, found.source, found.inputs, "one", tmp_path / "lake/d"))
    assert manifest.ledger.rows_in == ROWS
    ended = stages()
    size = sum(file.stat().st_size for file in raw.iterdir())
    # What Arrow reads Spark doesn't see.
    by_arrow = manifest.reader == "Arrow"
    assert by_arrow == ("SQL" not in verbs and "query" not in verbs)
    assert [read for read, _ in ended if read] == ([] if by_arrow else [size])
    (shuffled,) = [written for _, written in ended if written]
    width = {"double": 8, "bigint": 8, "string": len("Oslo") + 4, "date": 4, "int": 4}
    one_copy = ROWS * sum(width[column.type] for column in manifest.statistics.values())
    assert ROWS // (4 * 4) >= BLOCK_ROWS
    assert shuffled <= 1.2 * one_copy


@pytest.mark.parametrize("cores", [1, 2, 7])
def test_the_tasks_of_arrow_share_every_byte_and_every_row_group(raw: Path, tmp_path: Path, cores: int) -> None:
    files = valid(raw, tmp_path, {}).inputs["t"]
    pq.write_table(pa.table({"x": np.arange(10_000)}), tmp_path / "a.parquet", row_group_size=100)
    parquet = [type(files[0])(path=str(tmp_path / "a.parquet"), name="a.parquet", size=10**8, modified_ns=0)]
    for some, row_groups in ((files, False), (parquet, True)):
        ranges = [part for task in _tasks(some, row_groups, cores, 1 << 16) for part in task]
        for file in some:
            mine = sorted((part.start, part.end) for part in ranges if part.path == file.path)
            assert mine[0][0] == 0
            assert mine[-1][1] == (100 if row_groups else file.size)
            assert all(before[1] == after[0] for before, after in pairwise(mine))


@pytest.mark.parametrize("columns", [5, 40, 2_000])
@pytest.mark.parametrize("rows", [10**4, 10**7, 10**9, 10**12])
def test_blocks_have_a_thousand_rows_at_any_size(rows: int, columns: int) -> None:
    raw_bytes = 4 * columns * rows
    buckets = bucket_bits(raw_bytes, 64 << 20)
    partition_bits, flush_bytes = block_sizes(raw_bytes, columns, buckets)
    assert partition_bits <= buckets
    assert flush_bytes // (8 * columns + 64) >> partition_bits >= BLOCK_ROWS
    # What a task holds grows only where there are terabytes.
    assert flush_bytes == FLUSH_BYTES or raw_bytes > 64 << 30
