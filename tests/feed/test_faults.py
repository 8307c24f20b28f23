"""What can happen to a feed: files damaged or replaced, stores that hang, consumers that leave, forks."""

import gc
import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeds import copied
from lakefit.errors import FeedError
from lakefit.feed import local, petastorm_engine
from lakefit.feed.buffers import Buffers
from lakefit.feed.reader import Field, KnownFiles, RowGroup, read_row_groups

FIELDS = (
    Field("numeric", ("x", "y"), "float32"),
    Field("categorical", ("c",), "int32"),
    Field("label", ("label",), "float32", flat=True),
    Field("position", ("_position",), "int64", flat=True),
)
ROWS = 200
FILES = 3


def write(path: Path, first: int, shift: int = 0) -> None:
    at = np.arange(first, first + ROWS)
    values = at + shift
    columns = {"x": values * 0.5, "y": np.sqrt(values), "label": values % 2}
    table = pa.table({name: pa.array(column.astype(np.float32)) for name, column in columns.items()})
    table = table.append_column("c", pa.array((values % 7).astype(np.int32)))
    table = table.append_column("_position", pa.array(at))
    pq.write_table(
        table, path, row_group_size=ROWS // 2, write_page_checksum=True, use_dictionary=["c"], compression="snappy",
        column_encoding={"_position": "DELTA_BINARY_PACKED"},
    )  # fmt: skip


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for number in range(FILES):
        write(tmp_path / f"part-{number}.parquet", number * ROWS)
    return tmp_path


def plan() -> list[RowGroup]:
    half = ROWS // 2
    return [
        RowGroup(f"part-{number}.parquet", index, half, number * ROWS + index * half)
        for number in range(FILES)
        for index in range(2)
    ]


def read(folder: Path, groups: list[RowGroup] | None = None, **options: Any) -> list[Any]:
    with read_row_groups(folder, groups or plan(), FIELDS, held=1, **options) as blocks:
        return list(copied(blocks))


def decode(path: Path, group: RowGroup) -> Any:
    """Return the arrays of a row group, read in this thread."""
    out = {field.name: np.empty((group.rows, *field.row_shape), field.dtype) for field in FIELDS}
    with pq.ParquetFile(path, page_checksum_verification=True) as parquet:
        petastorm_engine.decode_row_group(parquet, group, FIELDS, out, Buffers())
    return out


def values(blocks: list[Any]) -> list[Any]:
    return [[array.tolist() for array in (getattr(block, "rows", None) or block).values()] for block in blocks]


def test_no_flipped_bit_changes_a_value(folder: Path) -> None:
    """A bit in each byte of a file: the read fails and names file and row group, or gives the very same rows."""
    path, groups = folder / "part-1.parquet", plan()[2:4]
    whole, wanted = path.read_bytes(), values(read(folder, groups))
    dice = np.random.default_rng(0)
    failed = 0
    for place in range(4, len(whole) - 4, 3):
        path.write_bytes(whole[:place] + bytes([whole[place] ^ (1 << int(dice.integers(8)))]) + whole[place + 1 :])
        found = []
        for group in groups:
            try:
                found.append(decode(path, group))
            except (FeedError, OSError, ValueError, pa.ArrowException):
                failed += 1
        if len(found) == len(groups):
            assert values(found) == wanted, f"byte {place} of {len(whole)}"
    assert failed > len(whole) // 12, "most bytes are those of pages"


def test_a_flipped_bit_is_said_to_be_in_its_row_group(folder: Path) -> None:
    path = folder / "part-1.parquet"
    whole = path.read_bytes()
    page = pq.read_metadata(path).row_group(1).column(1)
    place = page.data_page_offset + page.total_compressed_size - 40
    path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])

    with pytest.raises(FeedError, match=r"Row group 1 of .*part-1\.parquet can't be read.*CRC checksum"):
        read(folder)


def test_a_file_replaced_while_it_is_read_is_named(folder: Path) -> None:
    write(folder / "new", 2 * ROWS, shift=1)
    with read_row_groups(folder, plan() * 20, FIELDS, held=99, workers=1) as blocks:
        next(blocks)
        os.replace(folder / "new", folder / "part-2.parquet")
        with pytest.raises(FeedError, match=r"part-2\.parquet can't be read\. The file was replaced"):
            list(blocks)


def test_a_store_that_hangs_ends_the_read_in_time(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode, hanging = petastorm_engine.decode_row_group, threading.Event()

    def hangs(parquet: Any, group: RowGroup, *where: Any) -> Any:
        if group.first_position == 300:
            hanging.wait(30)
        return decode(parquet, group, *where)

    monkeypatch.setattr(petastorm_engine, "decode_row_group", hangs)
    began = time.monotonic()
    try:
        with pytest.raises(
            FeedError, match=r"Row group 1 of .*part-1\.parquet did not come: no result came for 0\.5 s"
        ):
            read(folder, timeout_s=0.5)
        assert time.monotonic() - began < 5
    finally:
        hanging.set()


def test_a_slow_store_only_takes_longer(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decode = petastorm_engine.decode_row_group

    def slow(*arguments: Any) -> Any:
        time.sleep(0.2)
        return decode(*arguments)

    monkeypatch.setattr(petastorm_engine, "decode_row_group", slow)

    assert [block.group for block in read(folder, timeout_s=0.6)] == plan()


INTERRUPTED = """
import sys
from lakefit.feed.reader import Field, KnownFiles, RowGroup, read_row_groups
group = RowGroup("part-0.parquet", 0, 100, 0)
with read_row_groups(sys.argv[1], [group] * 1_000_000, [Field("x", ("x",), "float32")], held=1) as blocks:
    for number, block in enumerate(blocks):
        block.release()
        if number == 20:
            print("reading", flush=True)
"""


def test_ctrl_c_in_the_middle_ends_all(folder: Path) -> None:
    run = subprocess.Popen([sys.executable, "-c", INTERRUPTED, str(folder)], stdout=-1, stderr=-1, text=True)
    assert run.stdout is not None
    assert run.stdout.readline() == "reading\n"
    run.send_signal(signal.SIGINT)

    _, said = run.communicate(timeout=60)

    assert run.returncode == -signal.SIGINT
    assert said.rstrip().endswith("KeyboardInterrupt")
    assert said.count("Traceback") == 1


@pytest.mark.parametrize("leaves", ["at once", "early", "raising"])
def test_a_consumer_that_leaves_takes_all_with_it(folder: Path, leaves: str) -> None:
    before = set(threading.enumerate())

    def consume() -> None:
        with read_row_groups(folder, plan() * 1000, FIELDS, held=99) as blocks:
            if leaves != "at once":
                next(blocks)
            if leaves == "raising":
                raise KeyError

    if leaves == "raising":
        with pytest.raises(KeyError):
            consume()
    else:
        consume()
    assert set(threading.enumerate()) <= before


def test_200_times_opened_and_closed_leave_nothing(folder: Path) -> None:
    process, others = psutil.Process(), set(threading.enumerate())

    def cycles(number: int) -> tuple[int, int, int, int, int]:
        for cycle in range(number):
            with read_row_groups(folder, plan(), FIELDS, held=99) as blocks:
                for taken, _ in enumerate(blocks):
                    if taken == cycle % 6:
                        break
        gc.collect()
        # No thread beyond those that were there: one that another test has left may end meanwhile.
        own = len(set(threading.enumerate()) - others)
        facts = process.num_fds(), own, pa.total_allocated_bytes(), len(gc.get_objects())
        return *facts, process.memory_info().rss

    *before, rss_before = cycles(20)
    *after, rss_after = cycles(200)

    assert before[:3] == after[:3]
    assert after[1] == 0
    assert after[3] - before[3] < 200, "less than an object a cycle"
    assert rss_after - rss_before < 20 << 20


def _in_child(folder: Path, inherited: Any, told: Any) -> None:
    try:
        next(inherited)
    except FeedError as error:
        told.put(str(error))
    told.put(sum(len(block.rows["position"]) for block in read(folder)))


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded, use of fork:DeprecationWarning")
def test_a_fork_can_open_its_own_feed_but_not_read_an_open_one(folder: Path) -> None:
    fork = multiprocessing.get_context("fork")
    told = fork.SimpleQueue()
    with read_row_groups(folder, plan(), FIELDS, held=99) as blocks:
        first = next(blocks)
        child = fork.Process(target=_in_child, args=(folder, blocks, told))
        child.start()
        refused, rows = told.get(), told.get()
        child.join(30)
        rest = list(blocks)

    assert f"opened in process {os.getpid()}, and process {child.pid}, a fork of it, can't read it" in refused
    assert (rows, child.exitcode) == (FILES * ROWS, 0)
    assert [block.group for block in [first, *rest]] == plan()


def test_a_spawned_process_reads_beside_an_open_feed(folder: Path) -> None:
    with (
        read_row_groups(folder, plan(), FIELDS, held=99) as blocks,
        multiprocessing.get_context("spawn").Pool(1) as pool,
    ):
        first = next(blocks)
        there = pool.apply(decode, (folder / first.group.file, first.group))
        assert values([there]) == values([first])
        assert [block.group for block in blocks] == plan()[1:]


def test_a_schema_that_differs_from_file_to_file_is_named(folder: Path) -> None:
    path = folder / "part-2.parquet"
    table = pq.read_table(path)
    pq.write_table(table.set_column(0, "x", table["x"].cast(pa.float64())), path, row_group_size=ROWS // 2)

    with pytest.raises(FeedError, match=r"part-2\.parquet can't be read\. Column 'x' is double, not float"):
        read(folder)


def test_a_missing_file_is_named_where_the_plan_comes_to_it(folder: Path) -> None:
    (folder / "part-1.parquet").unlink()
    taken = []

    with (
        pytest.raises(FeedError, match=r"Row group 0 of .*part-1\.parquet can't be read"),
        read_row_groups(folder, [replace(group) for group in plan()], FIELDS, held=9) as blocks,
    ):
        taken.extend(block.group for block in blocks)
    assert taken == plan()[:2]


def test_footers_are_read_once_a_file_and_pages_checked_once_while_it_stays(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    opened: list[bool] = []
    footers: list[str] = []
    open_parquet, checked_footer = local.open_parquet, local.checked_footer

    def opening(file: Any, footer: Any, *, check_pages: bool) -> Any:
        opened.append(check_pages)
        return open_parquet(file, footer, check_pages=check_pages)

    def reading(file: Any, group: RowGroup) -> Any:
        footers.append(group.file)
        return checked_footer(file, group)

    monkeypatch.setattr(local, "open_parquet", opening)
    monkeypatch.setattr(local, "checked_footer", reading)
    known = KnownFiles()
    for _ in range(2):
        read(folder, known=known, workers=1)
    assert opened == [True] * 6 + [False] * 6
    assert footers == [f"part-{number}.parquet" for number in range(3)]

    write(folder / "part-1.parquet", ROWS)
    opened.clear()
    footers.clear()
    read(folder, known=known, workers=1)
    assert opened == [False, False, True, True, False, False]
    assert footers == ["part-1.parquet"]
