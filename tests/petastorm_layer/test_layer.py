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

import lakefit.petastorm
from lakefit.errors import InputError, LakefitError
from lakefit.petastorm import hook

ROWS = 400


def in_new_process(script: str, *arguments: str) -> str:
    run = subprocess.run([sys.executable, "-c", script, *arguments], capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stderr
    return run.stdout


@pytest.mark.parametrize("pool", ["thread", "dummy", "process"])
def test_make_batch_reader_reads_every_row_of_plain_parquet(petastorm: Any, dataset: Path, pool: str) -> None:
    with petastorm.make_batch_reader(dataset.as_uri(), reader_pool_type=pool, workers_count=2) as reader:
        batches = list(reader)

    ids = np.concatenate([batch.id for batch in batches])
    assert sorted(ids) == list(range(ROWS))
    assert [f"row {i}" for i in ids] == np.concatenate([batch.name for batch in batches]).tolist()
    assert np.concatenate([batch.share for batch in batches]).tolist() == (ids / ROWS).astype(np.float32).tolist()


SURROUNDINGS = """
import builtins, json, sys
import lakefit.petastorm
from lakefit.feed import reader
heavy = {"petastorm", "pyarrow", "pandas", "fsspec", "packaging", "pyspark", "tensorflow"}
at_import = sorted(heavy & sys.modules.keys())

# Submodules that Petastorm and pandas load anyway become names of their package: load them before looking.
import numpy.ma, numpy.random, pandas, pyarrow, pyarrow.compute, pyarrow.parquet
watched = [numpy, pyarrow, pyarrow.parquet, pyarrow.lib]
before = [dict(vars(module)) for module in watched]
modules_before, import_before = set(sys.modules), builtins.__import__
lakefit.petastorm.install()
lakefit.petastorm.install()
import petastorm
group = reader.RowGroup(sys.argv[2], 0, 25, 0)
with reader.read_row_groups(sys.argv[1], [group], [reader.Field("share", ("share",), "float32")], held=1) as blocks:
    rows = sum(len(block.rows["share"]) for block in blocks)

changed = {
    module.__name__: sorted(k for k in was.keys() | vars(module).keys() if was.get(k) is not vars(module).get(k))
    for module, was in zip(watched, before)
}
print(json.dumps({
    "at_import": at_import,
    "rows": rows,
    "changed": {name: names for name, names in changed.items() if names},
    "invented": sorted(
        name for name in sys.modules.keys() - modules_before
        if not name.startswith("petastorm") and type(sys.modules[name]).__module__.startswith("lakefit")
    ),
    "gone": sorted(modules_before - sys.modules.keys()),
    "import_statement": builtins.__import__ is import_before,
    "finders": sum(type(finder).__module__.startswith("lakefit") for finder in sys.meta_path),
    "other_engines": sorted({"pyspark", "tensorflow", "keras", "torch"} & sys.modules.keys()),
}))
"""


@pytest.fixture(scope="module")
def surroundings(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What a new process looked like before and after a read through the layer."""
    folder = tmp_path_factory.mktemp("prepared")
    table = pa.table({"share": np.zeros(25, np.float32), "_position": np.arange(25)})
    pq.write_table(table, folder / "part-0.parquet")
    printed: dict[str, Any] = json.loads(in_new_process(SURROUNDINGS, str(folder), "part-0.parquet"))
    assert printed["rows"] == 25
    return printed


def test_importing_the_layer_and_the_reader_loads_no_heavy_library(surroundings: dict[str, Any]) -> None:
    assert surroundings["at_import"] == []


def test_numpy_pyarrow_and_the_table_of_modules_keep_exactly_their_names(surroundings: dict[str, Any]) -> None:
    assert surroundings["changed"] == {}
    assert surroundings["invented"] == surroundings["gone"] == []
    assert surroundings["import_statement"]


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
        "try:\n"
        "    import lakefit.petastorm\n"
        "except LakefitError as error:\n"
        "    print(error)\n"
    )
    assert "petastorm.errors" in printed
    assert "`import lakefit.petastorm` before the first import of petastorm" in printed


def test_one_stray_module_is_refused_even_after_installing(petastorm: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "petastorm.stray", ModuleType("petastorm.stray"))

    with pytest.raises(LakefitError, match=r"loaded: petastorm\.stray"):
        lakefit.petastorm.install()


@pytest.mark.parametrize("version", ["0.12.1", "0.13.0rc0", "0.13.2", "0.14.0", "1.0.0"])
def test_another_release_of_petastorm_is_refused(monkeypatch: pytest.MonkeyPatch, version: str) -> None:
    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, hook._Finder)])
    monkeypatch.setattr(importlib.metadata, "version", lambda _: version)

    with pytest.raises(InputError, match=rf"{version} is installed.*pip install petastorm==0\.13\.1"):
        lakefit.petastorm.install()


def test_a_missing_petastorm_is_an_input_error(monkeypatch: pytest.MonkeyPatch) -> None:
    def not_found(name: str) -> str:
        raise importlib.metadata.PackageNotFoundError(name)

    monkeypatch.setattr(sys, "meta_path", [f for f in sys.meta_path if not isinstance(f, hook._Finder)])
    monkeypatch.setattr(importlib.metadata, "version", not_found)

    with pytest.raises(InputError, match="not installed"):
        lakefit.petastorm.install()


def test_modules_of_petastorm_can_be_described_and_copied(petastorm: Any) -> None:
    import copy

    assert copy.copy(petastorm.__spec__).name == "petastorm"
    assert copy.deepcopy(petastorm.__spec__).name == "petastorm"
