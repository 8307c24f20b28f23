"""Petastorm's orders: a new one each epoch, the same for any number of workers, and each row with its own values."""

from collections import Counter
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

GROUPS = 16
ROWS = 25


@pytest.fixture
def read(petastorm: Any, dataset: Path) -> Any:
    """Returns the ids in the order in which a reader hands them out."""

    def read(url: str = dataset.as_uri(), *, rows: bool = False, **options: Any) -> list[int]:
        options = {"reader_pool_type": "thread", "workers_count": 2, "schema_fields": ["id", "name"], **options}
        make = petastorm.make_reader if rows else petastorm.make_batch_reader
        ids: list[int] = []
        with make(url, **options) as reader:
            for batch in reader:
                here, names = np.atleast_1d(batch.id).astype(int).tolist(), np.atleast_1d(batch.name).tolist()
                assert names == [f"row {i}" for i in here], "the values of several rows were mixed"
                ids += here
        return ids

    return read


pytestmark = pytest.mark.filterwarnings("ignore:Currently make_reader supports reading only Petastorm datasets")
KINDS = pytest.mark.parametrize("rows", [False, True], ids=["batches", "rows"])


def kept_cache(folder: Path) -> dict[str, Any]:
    """A cache on disk that outlives its reader."""
    return {
        "cache_type": "local-disk",
        "cache_location": str(folder / "cache"),
        "cache_size_limit": 10**8,
        "cache_row_size_estimate": 10,
        "cache_extra_settings": {"cleanup": False},
    }


def epochs(ids: list[int]) -> list[list[int]]:
    return [ids[start : start + GROUPS * ROWS] for start in range(0, len(ids), GROUPS * ROWS)]


def groups_of(ids: list[int]) -> list[int]:
    return [i // ROWS for i in ids[::ROWS]]


@KINDS
def test_row_groups_come_in_another_order_each_epoch(read: Any, rows: bool) -> None:
    first, second, third = epochs(read(seed=7, num_epochs=3, rows=rows))

    assert sorted(first) == sorted(second) == sorted(third) == list(range(GROUPS * ROWS))
    assert len({tuple(groups_of(epoch)) for epoch in (first, second, third)}) == 3


@KINDS
@pytest.mark.parametrize("pool", ["thread", "dummy", "process"])
def test_the_order_of_a_seed_depends_on_nothing_else(read: Any, rows: bool, pool: str) -> None:
    options = {"seed": 7, "num_epochs": 2, "shuffle_rows": True, "rows": rows}
    wanted = read(**options, workers_count=1)

    for workers in (2,) if pool == "process" else (1, 2, 4, 10):
        assert read(**options, workers_count=workers, reader_pool_type=pool) == wanted


@KINDS
def test_row_groups_of_equal_size_are_shuffled_differently(read: Any, rows: bool) -> None:
    ids = read(seed=7, num_epochs=2, shuffle_rows=True, shuffle_row_groups=False, workers_count=2, rows=rows)

    orders = {tuple(i % ROWS for i in ids[start : start + ROWS]) for start in range(0, len(ids), ROWS)}
    assert len(orders) == 2 * GROUPS


@KINDS
def test_seed_0_is_a_seed_and_no_seed_is_none(read: Any, rows: bool) -> None:
    options = {"shuffle_rows": True, "rows": rows}

    assert read(seed=0, **options) == read(seed=0, **options) != read(seed=1, **options)
    assert read(**options) != read(**options)


@KINDS
@pytest.mark.parametrize("seed", [None, 7])
def test_parts_of_shuffled_row_groups_make_up_the_whole(read: Any, rows: bool, seed: int | None) -> None:
    ids = read(seed=seed, shuffle_rows=True, shuffle_row_drop_partitions=3, num_epochs=2, rows=rows)

    assert Counter(ids) == dict.fromkeys(range(GROUPS * ROWS), 2)


@KINDS
@pytest.mark.parametrize("seed", [None, 7])
def test_a_predicate_and_shuffled_rows_mix_no_values(read: Any, rows: bool, seed: int | None) -> None:
    from petastorm.predicates import in_lambda

    # Of one row, or of a frame of rows.
    predicate = in_lambda(["id"], lambda value: value % 3 == 0)

    ids = read(seed=seed, shuffle_rows=True, predicate=predicate, rows=rows)

    assert sorted(ids) == list(range(0, GROUPS * ROWS, 3))


@KINDS
def test_what_the_cache_holds_does_not_change_the_order(read: Any, rows: bool, tmp_path: Path) -> None:
    options = {"seed": 7, "shuffle_rows": True, "num_epochs": 2, "rows": rows}
    cache = kept_cache(tmp_path)
    wanted = read(**options)

    assert [read(**options, **cache) for _ in range(2)] == [wanted, wanted]


@KINDS
def test_readers_of_other_fields_and_filters_share_a_cache(
    petastorm: Any, dataset: Path, tmp_path: Path, rows: bool
) -> None:
    cache = kept_cache(tmp_path)

    def count(**options: Any) -> int:
        make = petastorm.make_reader if rows else petastorm.make_batch_reader
        with make(dataset.as_uri(), workers_count=1, **cache, **options) as reader:
            return sum(np.size(batch.id) for batch in reader)

    assert count(filters=[("id", "<", 3)]) == 3
    assert count() == GROUPS * ROWS
    assert count(schema_fields=["id"]) == GROUPS * ROWS
    assert count(filters=[("id", "<", 5)]) == 5


@KINDS
@pytest.mark.parametrize("early", [False, True], ids=["arrow", "numpy"])
@pytest.mark.parametrize("place", [0, 2, 9])
def test_part_files_without_rows_end_nothing(read: Any, tmp_path: Path, rows: bool, early: bool, place: int) -> None:
    """uber/petastorm #507."""
    schema = pa.schema([("id", pa.int64()), ("name", pa.string())])
    for number in range(10):
        at = [] if number == place else range(number * 10, number * 10 + 10)
        table = pa.table({"id": list(at), "name": [f"row {i}" for i in at]}, schema)
        with pq.ParquetWriter(tmp_path / f"part-{number}.parquet", schema) as writer:
            # Spark writes no row group, others one of no rows.
            if number != place or rows:
                writer.write_table(table)

    options = {"convert_early_to_numpy": early, "shuffle_row_drop_partitions": 2, "rows": rows}
    ids = read(tmp_path.as_uri(), shuffle_row_groups=False, **options)

    assert sorted(ids) == [i for i in range(100) if i // 10 != place]


def test_a_reader_that_is_reset_goes_on_to_the_next_epoch(petastorm: Any, dataset: Path) -> None:
    with petastorm.make_batch_reader(dataset.as_uri(), schema_fields=["id"], seed=7, workers_count=2) as reader:
        first = np.concatenate([batch.id for batch in reader]).tolist()
        reader.reset()
        second = np.concatenate([batch.id for batch in reader]).tolist()

    assert sorted(first) == sorted(second) == list(range(GROUPS * ROWS))
    assert first != second


def test_fields_that_match_patterns_come_in_the_order_of_the_schema(petastorm: Any) -> None:
    from petastorm.unischema import Unischema, UnischemaField, match_unischema_fields

    names = [f"field_{i * 7919 % 101}" for i in range(50)]
    schema = Unischema("Many", [UnischemaField(name, np.int64, ()) for name in names])

    assert [field.name for field in match_unischema_fields(schema, ["field_.*", "field_1.*"])] == names


def test_weighted_sampling_mixes_two_readers_and_invents_nothing(petastorm: Any, dataset: Path) -> None:
    from petastorm.weighted_sampling_reader import WeightedSamplingReader

    readers = [
        petastorm.make_batch_reader(
            dataset.as_uri(), filters=[("id", sign, 200)], num_epochs=None, workers_count=1, seed=1
        )
        for sign in ("<", ">=")
    ]
    with WeightedSamplingReader(readers, [0.8, 0.2]) as reader:
        batches = [next(reader) for _ in range(200)]

    low = sum(max(batch.id) < 200 for batch in batches if len(batch.id))
    assert 120 < low < 195
    assert set(np.concatenate([batch.id for batch in batches]).tolist()) == set(range(400))
