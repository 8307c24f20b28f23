"""Petastorm works on today's stack, nobody else notices, and its thread pool loses no rows."""

import importlib.metadata
import json
import pickle
import subprocess
import sys
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.fs
import pyarrow.parquet as pq
import pytest

from lakefit.errors import InputError, LakefitError
from lakefit.feed import petastorm_compat
from lakefit.feed.petastorm_compat import hook, legacy_parquet

ROWS = 400


@pytest.fixture(scope="module")
def petastorm() -> Any:
    petastorm_compat.install()
    import petastorm

    return petastorm


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """400 rows in 4 files and 16 row groups, with a mark of Spark's beside them."""
    folder = tmp_path_factory.mktemp("plain")
    for file in range(4):
        ids = np.arange(file * 100, file * 100 + 100)
        table = pa.table({"id": ids, "name": [f"row {i}" for i in ids], "share": (ids / ROWS).astype(np.float32)})
        pq.write_table(table, folder / f"part-{file}.parquet", row_group_size=25)
    (folder / "_SUCCESS").touch()
    return folder


def in_new_process(script: str, *arguments: str) -> str:
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


def read_batches(petastorm: Any, dataset: Path, **options: Any) -> list[Any]:
    with petastorm.make_batch_reader(dataset.as_uri(), **options) as reader:
        return list(reader)


@pytest.mark.parametrize("pool", ["thread", "dummy"])
def test_make_batch_reader_reads_every_row_of_plain_parquet(petastorm: Any, dataset: Path, pool: str) -> None:
    batches = read_batches(petastorm, dataset, reader_pool_type=pool, workers_count=2)

    ids = np.concatenate([batch.id for batch in batches])
    assert sorted(ids) == list(range(ROWS))
    assert [f"row {i}" for i in ids] == np.concatenate([batch.name for batch in batches]).tolist()
    assert np.concatenate([batch.share for batch in batches]).tolist() == (ids / ROWS).astype(np.float32).tolist()


def test_a_list_of_files_and_a_file_system_of_pyarrow_are_read_too(petastorm: Any, dataset: Path) -> None:
    urls = [(dataset / f"part-{file}.parquet").as_uri() for file in (2, 0)]

    with petastorm.make_batch_reader(
        urls,
        schema_fields=["id"],
        shuffle_row_groups=False,
        reader_pool_type="dummy",
        filesystem=pa.fs.LocalFileSystem(),
    ) as reader:
        ids = np.concatenate([batch.id for batch in reader])

    assert ids.tolist() == [*range(200, 300), *range(100)]


def test_key_value_folders_are_refused_because_their_column_would_be_lost(petastorm: Any, tmp_path: Path) -> None:
    pq.write_to_dataset(pa.table({"id": [1, 2], "day": ["mon", "tue"]}), tmp_path, partition_cols=["day"])

    with pytest.raises(LakefitError, match=r"day=mon.*give the files as a list"):
        read_batches(petastorm, tmp_path)


def test_filters_are_refused_because_they_would_not_be_applied(petastorm: Any, dataset: Path) -> None:
    with pytest.raises(LakefitError, match=r"filters=.*id.*predicate="):
        read_batches(petastorm, dataset, filters=[("id", "<", 10)])


def test_a_folder_without_parquet_files_is_named(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=str(tmp_path)):
        legacy_parquet.ParquetDataset(str(tmp_path))


SURROUNDINGS = """
import json, sys
from lakefit.feed import petastorm_compat, reader
heavy = {"petastorm", "pyarrow", "pandas", "fsspec", "packaging", "pyspark", "tensorflow"}
at_import = sorted(heavy & sys.modules.keys())

# Submodules that Petastorm and pandas load anyway become names of their package: load them before looking.
import numpy.ma, numpy.random, pandas, pyarrow, pyarrow.compute, pyarrow.parquet
watched = [numpy, pyarrow, pyarrow.parquet, pyarrow.lib]
before = [dict(vars(module)) for module in watched]
petastorm_compat.install()
petastorm_compat.install()
import petastorm
group = reader.RowGroup(sys.argv[2], 0, 25, 0)
with reader.read_row_groups(sys.argv[1], [group], reader.Columns(("share",), (), None)) as blocks:
    rows = sum(len(block.position) for block in blocks)

changed = {
    module.__name__: sorted(k for k in was.keys() | vars(module).keys() if was.get(k) is not vars(module).get(k))
    for module, was in zip(watched, before)
}
print(json.dumps({
    "at_import": at_import,
    "rows": rows,
    "changed": {name: names for name, names in changed.items() if names},
    "invented": sorted({"pyarrow.filesystem", "pyarrow.hdfs"} & sys.modules.keys()),
    "finders": sum(type(finder).__module__.startswith("lakefit") for finder in sys.meta_path),
    "other_engines": sorted({"pyspark", "tensorflow", "keras", "torch"} & sys.modules.keys()),
}))
"""


@pytest.fixture(scope="module")
def surroundings(dataset: Path) -> dict[str, Any]:
    """What a new process looked like before and after a read through the layer."""
    printed: dict[str, Any] = json.loads(in_new_process(SURROUNDINGS, str(dataset), "part-0.parquet"))
    assert printed["rows"] == 25
    return printed


def test_importing_the_layer_and_the_reader_loads_no_heavy_library(surroundings: dict[str, Any]) -> None:
    assert surroundings["at_import"] == []


def test_numpy_and_pyarrow_keep_exactly_their_names(surroundings: dict[str, Any]) -> None:
    assert surroundings["changed"] == {}
    assert surroundings["invented"] == []


def test_reading_loads_neither_spark_nor_tensorflow(surroundings: dict[str, Any]) -> None:
    assert surroundings["other_engines"] == []


def test_installing_twice_is_installing_once(surroundings: dict[str, Any]) -> None:
    assert surroundings["finders"] == 1


def test_petastorm_alone_sees_the_old_names(petastorm: Any) -> None:
    from petastorm import unischema

    assert unischema.np.unicode_ is np.str_
    assert unischema.np.arange is np.arange
    assert not hasattr(np, "unicode_")
    assert not hasattr(pa, "localfs")


def test_a_facade_travels_to_another_process_by_name(petastorm: Any) -> None:
    from petastorm import unischema

    assert pickle.loads(pickle.dumps(unischema.np)) is unischema.np


def test_petastorm_half_imported_without_the_layer_is_refused() -> None:
    printed = in_new_process(
        "try:\n"
        "    import petastorm\n"
        "except ImportError:\n"
        "    pass\n"
        "from lakefit.errors import LakefitError\n"
        "from lakefit.feed import petastorm_compat\n"
        "try:\n"
        "    petastorm_compat.install()\n"
        "except LakefitError as error:\n"
        "    print(error)\n"
    )
    assert "petastorm.errors" in printed
    assert "call lakefit.feed.petastorm_compat.install() before the first import of petastorm" in printed


def test_one_stray_module_is_refused_even_after_installing(petastorm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "petastorm.stray", ModuleType("petastorm.stray"))

    with pytest.raises(LakefitError, match=r"loaded: petastorm\.stray"):
        petastorm_compat.install()


@pytest.mark.parametrize("version", ["0.12.1", "0.14.0", "1.0.0"])
def test_another_release_of_petastorm_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, hook._Finder)])
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)

    with pytest.raises(InputError, match=rf"{version} is installed.*pip install petastorm==0\.13\.1"):
        petastorm_compat.install()


def test_a_missing_petastorm_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, hook._Finder)])
    monkeypatch.setattr(importlib.metadata, "version", not_found)

    with pytest.raises(InputError, match="not installed"):
        petastorm_compat.install()


def test_the_thread_pool_waits_for_an_item_ventilated_while_it_asks_whether_all_is_done(petastorm: Any) -> None:
    from petastorm.workers_pool.thread_pool import ThreadPool

    class LastItemAtTheWorstMoment:
        """Ventilates its only item between the pool's two questions, as the ventilator's thread may."""

        ventilated = False

        def start(self) -> None: ...
        def stop(self) -> None: ...
        def processed_item(self) -> None: ...

        def completed(self) -> bool:
            if not self.ventilated:
                self.ventilated = True
                pool.ventilate("the last row group")
            return True

    class Echo:
        worker_id = 0

        def __init__(self, _: int, publish: Any, __: object) -> None:
            self.publish_func = publish

        def process(self, item: str) -> None:
            self.publish_func(item)

    pool = ThreadPool(1)
    pool.start(Echo, ventilator=LastItemAtTheWorstMoment())
    try:
        assert pool.get_results() == "the last row group"
    finally:
        pool.stop()
        pool.join()


def test_the_thread_pool_loses_no_rows_where_it_lost_them_in_4_runs_of_10(petastorm: Any, dataset: Path) -> None:
    options = {"reader_pool_type": "thread", "workers_count": 1, "seed": 7, "schema_fields": ["id"]}

    rows = [sum(len(batch.id) for batch in read_batches(petastorm, dataset, **options)) for _ in range(40)]

    assert rows == [ROWS] * 40
