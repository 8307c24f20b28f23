"""Row groups come in the planned order, whole, counted by what was decoded, or the read fails and says where."""

import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeds import CopiedBlock, copied
from lakefit.errors import FeedError
from lakefit.feed import petastorm_engine
from lakefit.feed.buffers import Buffers
from lakefit.feed.reader import BLOCKS_AHEAD, Field, RowGroup, read_row_groups

POSITION = Field("position", ("_position",), "int64", flat=True)
FIELDS = (
    Field("numeric", ("half", "third"), "float32"),
    Field("categorical", ("index",), "int32"),
    Field("label", ("label",), "float32", flat=True),
    POSITION,
)
GROUPS_PER_FILE = (5, 3, 1, 6)
ROWS_PER_GROUP = 7  # the last group of each file has 4


@pytest.fixture(scope="module")
def dataset_dir(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_dataset(tmp_path_factory.mktemp("dataset"))


@pytest.fixture
def own_dataset_dir(tmp_path: Path) -> Path:
    """A dataset to be damaged."""
    return write_dataset(tmp_path)


def write_dataset(folder: Path) -> Path:
    """Each value tells the row's position in the split."""
    (folder / "train").mkdir()
    position = 0
    for number, groups in enumerate(GROUPS_PER_FILE):
        rows = groups * ROWS_PER_GROUP - 3
        write_file(folder / file_name(number), np.arange(position, position + rows))
        position += rows
    return folder


def write_file(path: Path, at: np.ndarray[Any, np.dtype[np.int64]], **other_columns: Any) -> None:
    columns = {
        "third": (at / 3).astype(np.float32),
        "half": (at / 2).astype(np.float32),
        "index": at.astype(np.int32),
        "label": (at % 2).astype(np.float32),
        "_row": [b"sixteen bytes...".ljust(16)] * len(at),
        "_position": at.astype(np.int64),
    }
    table = pa.table(columns | other_columns)
    pq.write_table(table, path, row_group_size=ROWS_PER_GROUP, write_page_checksum=True)


def file_name(number: int) -> str:
    return f"train/part-{number:05}.parquet"


def groups_in_file_order() -> list[RowGroup]:
    groups: list[RowGroup] = []
    position = 0
    for number, count in enumerate(GROUPS_PER_FILE):
        for index in range(count):
            rows = ROWS_PER_GROUP if index < count - 1 else ROWS_PER_GROUP - 3
            groups.append(RowGroup(file_name(number), index, rows, position))
            position += rows
    return groups


def planned(seed: int = 1) -> list[RowGroup]:
    """All row groups in an order that no listing gives."""
    groups = groups_in_file_order()
    return [groups[i] for i in np.random.Generator(np.random.PCG64(seed)).permutation(len(groups))]


def positions_of(groups: list[RowGroup]) -> list[int]:
    return [position for g in groups for position in range(g.first_position, g.first_position + g.rows)]


def read(
    dataset_dir: Path, groups: list[RowGroup], fields: tuple[Field, ...] = FIELDS, workers: int = 2
) -> list[CopiedBlock]:
    with read_row_groups(dataset_dir, groups, fields, held=1, workers=workers) as blocks:
        return list(copied(blocks))


@pytest.fixture(autouse=True)
def _no_thread_is_left_behind() -> Iterator[None]:
    before = set(threading.enumerate())
    yield
    assert set(threading.enumerate()) <= before


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_blocks_come_in_the_order_of_the_plan(dataset_dir: Path, workers: int) -> None:
    groups = planned() + planned(seed=2)

    blocks = read(dataset_dir, groups, workers=workers)

    assert [block.group for block in blocks] == groups
    assert [p for block in blocks for p in block.rows["position"].tolist()] == positions_of(groups)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_order_holds_when_row_groups_are_decoded_in_another(
    dataset_dir: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    groups = planned()
    decoded: list[RowGroup] = []
    decode = petastorm_engine.decode_row_group

    def slow_for_some(parquet: Any, group: RowGroup, *where: Any) -> Any:
        time.sleep(0.02 if groups.index(group) % 3 == 0 else 0)
        result = decode(parquet, group, *where)
        decoded.append(group)
        return result

    monkeypatch.setattr(petastorm_engine, "decode_row_group", slow_for_some)

    assert [block.group for block in read(dataset_dir, groups, workers=workers)] == groups
    assert sorted(decoded, key=groups.index) == groups
    assert (decoded == groups) == (workers == 1)


@pytest.mark.parametrize("workers", [1, 2, 4])
def test_every_row_comes_exactly_once_with_its_own_values(dataset_dir: Path, workers: int) -> None:
    blocks = read(dataset_dir, planned(), workers=workers)

    at = np.concatenate([block.rows["position"] for block in blocks])
    assert sorted(at) == list(range(sum(g.rows for g in groups_in_file_order())))
    assert at.tolist() != sorted(at)
    numeric = np.concatenate([block.rows["numeric"] for block in blocks])
    assert np.array_equal(numeric, np.stack([at / 2, at / 3], axis=1).astype(np.float32))
    assert np.array_equal(np.concatenate([block.rows["categorical"] for block in blocks]), at.astype(np.int32)[:, None])
    assert np.array_equal(np.concatenate([block.rows["label"] for block in blocks]), (at % 2).astype(np.float32))


def test_blocks_that_are_held_lie_apart_in_contiguous_arrays(dataset_dir: Path) -> None:
    groups = [groups_in_file_order()[0]] * 9

    with read_row_groups(dataset_dir, groups, FIELDS, held=2) as blocks:
        block, again = next(blocks), next(blocks)
        arrays = list(block.rows.values())
        assert [a.dtype for a in arrays] == [np.float32, np.int32, np.float32, np.int64]
        assert [a.shape for a in arrays] == [(7, 2), (7, 1), (7,), (7,)]
        assert all(a.flags.c_contiguous for a in arrays)
        for values in arrays:
            values[:] = -1
        assert (again.rows["numeric"] >= 0).all()
        assert (again.rows["label"] >= 0).all()
        again.release()
        later = next(blocks)
        assert (later.rows["numeric"] >= 0).all()
        assert all((values == -1).all() for values in arrays), "what is held is not written over"


def test_the_order_of_a_block_says_where_its_rows_lie(dataset_dir: Path) -> None:
    groups = planned()

    with read_row_groups(
        dataset_dir, groups, FIELDS, held=1, row_order=lambda group: np.arange(group.rows)[::-1]
    ) as blocks:
        for block, group in zip(blocks, groups, strict=True):
            at = block.arena.arrays["position"][block.order]
            assert at.tolist() == positions_of([group])[::-1]
            block.release()


def test_more_blocks_than_were_said_can_not_be_held(dataset_dir: Path) -> None:
    with (
        read_row_groups(dataset_dir, planned(), FIELDS, held=1, workers=1) as blocks,
        pytest.raises(FeedError, match="IndexError"),
    ):
        list(blocks)


def test_memory_is_used_again_by_the_next_reading(dataset_dir: Path) -> None:
    buffers = Buffers()
    places = []
    for _ in range(3):
        with read_row_groups(dataset_dir, planned(), FIELDS, held=1, buffers=buffers) as blocks:
            block = next(blocks)
            places.append({name: array.ctypes.data for name, array in block.arena.arrays.items()})
            del block
    assert places[0] == places[1] == places[2]


def test_columns_may_be_of_one_kind_only(dataset_dir: Path) -> None:
    (block,) = read(dataset_dir, groups_in_file_order()[:1], (Field("categorical", ("index",), "int32"), POSITION))

    assert block.rows["categorical"].tolist() == [[n] for n in range(7)]
    assert block.rows["position"].tolist() == list(range(7))


@pytest.mark.parametrize("width", [1, 2, 3, 40, 2000])
@pytest.mark.parametrize("rows", [1, 63, 64, 65, 5000])
def test_columns_of_any_number_lie_side_by_side(width: int, rows: int) -> None:
    columns = [np.arange(rows, dtype=np.float32) + 10_000 * place for place in range(width)]
    out = np.zeros((rows, width), np.float32)

    petastorm_engine._side_by_side(columns, out, Buffers())

    assert np.array_equal(out, np.stack(columns, axis=1))


def test_positions_are_those_of_the_rows_that_were_read_not_of_the_plan(dataset_dir: Path) -> None:
    first, second = groups_in_file_order()[:2]

    block = read(dataset_dir, [replace(first, index=second.index)])[0]

    assert block.rows["position"].tolist() == list(range(7, 14))


def test_an_empty_plan_gives_no_blocks_and_opens_nothing(tmp_path: Path) -> None:
    assert read(tmp_path / "nowhere", []) == []


def test_nothing_but_the_plan_decides_what_is_read(own_dataset_dir: Path) -> None:
    (own_dataset_dir / "train" / "part-00000-left-over.parquet").write_bytes(b"not Parquet")
    groups = planned()[:4]

    assert [block.group for block in read(own_dataset_dir, groups)] == groups


@pytest.mark.parametrize("workers", [1, 3])
def test_no_more_blocks_than_were_said_exist_before_they_are_taken(
    dataset_dir: Path, workers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    first_may_end = threading.Event()
    groups = planned() * 2
    started: list[RowGroup] = []
    decode = petastorm_engine.decode_row_group

    def first_is_slow(parquet: Any, group: RowGroup, *where: Any) -> Any:
        started.append(group)
        if len(started) == 1:
            first_may_end.wait(timeout=10)
        return decode(parquet, group, *where)

    monkeypatch.setattr(petastorm_engine, "decode_row_group", first_is_slow)
    with read_row_groups(dataset_dir, groups, FIELDS, held=9, workers=workers) as blocks:
        time.sleep(0.1)
        assert len(started) <= workers + BLOCKS_AHEAD
        first_may_end.set()
        for taken, _ in enumerate(copied(blocks), start=1):
            time.sleep(0.005)
            assert len(started) <= taken + workers + BLOCKS_AHEAD
    assert len(started) == len(groups)


@pytest.mark.parametrize("taken", [0, 1, 5])
@pytest.mark.parametrize("workers", [1, 4])
def test_stopping_early_leaves_no_thread(dataset_dir: Path, taken: int, workers: int) -> None:
    before = threading.active_count()
    with read_row_groups(dataset_dir, planned() * 10, FIELDS, held=9, workers=workers) as blocks:
        for _ in range(taken):
            next(blocks)
        assert threading.active_count() > before
    assert threading.active_count() == before


def test_an_exception_of_the_consumer_passes_and_leaves_no_thread(dataset_dir: Path) -> None:
    def consume() -> None:
        with read_row_groups(dataset_dir, planned() * 10, FIELDS, held=9) as blocks:
            next(blocks)
            raise KeyError("the consumer's own")

    before = threading.active_count()
    with pytest.raises(KeyError, match="the consumer's own"):
        consume()
    assert threading.active_count() == before


def test_reading_on_after_the_context_is_refused_not_ended(dataset_dir: Path) -> None:
    with read_row_groups(dataset_dir, planned(), FIELDS, held=9) as blocks:
        next(blocks)
    with pytest.raises(FeedError, match="it has ended"):
        next(blocks)


def cut_short(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: len(content) // 2])


def overwritten_inside(path: Path) -> None:
    content = path.read_bytes()
    path.write_bytes(content[:4] + b"\xff" * (len(content) // 4) + content[4 + len(content) // 4 :])


def one_row_less(path: Path) -> None:
    write_file(path, np.arange(ROWS_PER_GROUP - 4))


def without_column(path: Path) -> None:
    pq.write_table(pq.read_table(path).rename_columns(["thrid", "half", "index", "label", "_row", "_position"]), path)


def with_nulls(path: Path) -> None:
    at = np.arange(ROWS_PER_GROUP - 3)
    write_file(path, at, third=pa.array([None] * len(at), pa.float32()))


def of_another_type(path: Path) -> None:
    at = np.arange(ROWS_PER_GROUP - 3)
    write_file(path, at, index=at)


@pytest.mark.parametrize("place", [0, 9])
@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (Path.unlink, "FileNotFoundError"),
        (cut_short, "ArrowInvalid"),
        (overwritten_inside, "Error"),
        (one_row_less, "It has 3 rows where the plan has 4"),
        (without_column, "no column 'third'; the nearest to 'third' of its 6 is 'thrid'"),
        (with_nulls, "'third' has 4 nulls"),
        (of_another_type, "'index' is int64, not int32"),
    ],
)
def test_a_damaged_file_is_named_where_the_plan_comes_to_it(
    own_dataset_dir: Path, damage: Any, said: str, place: int
) -> None:
    groups = [group for group in planned() if group.file != file_name(2)]
    groups.insert(place, next(group for group in planned() if group.file == file_name(2)))
    damage(own_dataset_dir / file_name(2))

    read_before: list[RowGroup] = []
    with (
        pytest.raises(FeedError, match=r"Row group 0 of .*train/part-00002\.parquet") as raised,
        read_row_groups(own_dataset_dir, groups, FIELDS, held=1, workers=3) as blocks,
    ):
        read_before.extend(block.group for block in copied(blocks))

    assert said in str(raised.value)
    assert "prepare the dataset again" in str(raised.value)
    assert read_before == groups[:place]


def test_a_row_group_that_the_file_does_not_have_is_named(dataset_dir: Path) -> None:
    beyond = replace(groups_in_file_order()[0], index=5)

    with pytest.raises(FeedError, match=r"Row group 5 of .*part-00000\.parquet.*has 5 row groups"):
        read(dataset_dir, [*planned(), beyond])


def test_an_unforeseen_exception_in_a_worker_reaches_the_consumer(
    dataset_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(petastorm_engine, "decode_row_group", lambda *_: 1 // 0)
    groups = planned()

    with pytest.raises(FeedError, match=f"Row group {groups[0].index} of .*ZeroDivisionError"):
        read(dataset_dir, groups)


def test_a_pool_that_ends_early_fails_the_read(dataset_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    results = petastorm_engine.ThreadPool.get_results
    calls = iter(range(100))

    def ends_after_two(pool: Any, timeout_s: float) -> Any:
        if next(calls) == 2:
            raise petastorm_engine.EmptyResultError
        return results(pool, timeout_s)

    monkeypatch.setattr(petastorm_engine.ThreadPool, "get_results", ends_after_two)

    with pytest.raises(FeedError, match=r"ended after 2 of 15 planned row groups"):
        read(dataset_dir, planned(), workers=1)


def test_a_row_group_delivered_twice_fails_the_read(dataset_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Twice(petastorm_engine._Worker):
        def process(self, task: Any) -> None:
            super().process(task)
            super().process(task)

    monkeypatch.setattr(petastorm_engine, "_Worker", Twice)

    with pytest.raises(FeedError, match="row group 0 of the plan where 1 of 15 was due"):
        read(dataset_dir, planned(), workers=1)


@pytest.mark.parametrize(("fields", "workers"), [((), 1), ((Field("x", (), "int32"),), 1), (FIELDS, 0)])
def test_what_can_not_be_meant_is_refused(dataset_dir: Path, fields: tuple[Field, ...], workers: int) -> None:
    with pytest.raises(ValueError, match=r"name at least one|workers must be 1 or more"):
        read(dataset_dir, planned(), fields, workers)
