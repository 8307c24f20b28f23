"""A split as batches: every row once an epoch, in the order of seed and epoch, or a FeedError before the last batch."""

import shutil
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeds import manifest_of
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
from lakefit.dataset.manifest import DataFile, Manifest
from lakefit.errors import FeedError
from lakefit.feed import gather
from lakefit.feed.order import row_order
from lakefit.feed.reader import Block
from lakefit.feed.split import Batch, SplitFeed

ROWS_PER_FILE = (23, 10, 4)
ROWS_PER_GROUP = 6
ROWS = sum(ROWS_PER_FILE)


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "train").mkdir()
    files, start = [], 0
    for number, rows in enumerate(ROWS_PER_FILE):
        at = np.arange(start, start + rows)
        columns = {"amount": at / 2, "amount_missing": at % 3 == 0, "label": at % 2}
        table = pa.table({name: pa.array(values.astype(np.float32)) for name, values in columns.items()})
        table = table.append_column("city", pa.array(at.astype(np.int32)))
        table = table.append_column("_position", pa.array(at.astype(np.int64)))
        path = f"train/part-{number:05}.parquet"
        pq.write_table(table, folder / path, row_group_size=ROWS_PER_GROUP)
        groups = tuple(min(ROWS_PER_GROUP, rows - first) for first in range(0, rows, ROWS_PER_GROUP))
        files.append(DataFile(path=path, row_groups=groups, bytes=0, sha256="", first_position=start))
        start += rows
    amount = NumericFeature(name="amount", fill=0.0, indicator="amount_missing")
    city = CategoricalFeature(name="city", vocabulary=(), counts=(), rare=0)
    return folder, manifest_of(files, Features(numeric=(amount,), categorical=(city,)))


def feed_of(dataset: tuple[Path, Manifest], batch_size: int = 8, **options: Any) -> SplitFeed:
    return SplitFeed(*dataset, "train", batch_size=batch_size, **options)


def positions(batches: list[Batch]) -> list[int]:
    return np.concatenate([batch["_position"] for batch in batches]).tolist()


def our_threads() -> set[threading.Thread]:
    """Return the threads that Python has started: those of TensorFlow that call it are not among them."""
    return {thread for thread in threading.enumerate() if not isinstance(thread, threading._DummyThread)}


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 6, 8, ROWS, ROWS + 1])
def test_every_row_comes_once_in_full_batches_and_the_rest(
    dataset: tuple[Path, Manifest], batch_size: int, shuffle: bool
) -> None:
    feed = feed_of(dataset, batch_size, shuffle=shuffle)
    batches = list(feed)
    feed.check()
    assert sorted(positions(batches)) == list(range(ROWS))
    sizes = [len(batch["_position"]) for batch in batches]
    assert sizes[:-1] == [batch_size] * (feed.batches - 1)
    assert sizes[-1] == ROWS - batch_size * (feed.batches - 1) > 0


def test_the_values_of_a_row_stay_together(dataset: tuple[Path, Manifest]) -> None:
    for batch in feed_of(dataset, seed=3):
        at = batch["_position"]
        assert (batch["numeric"].dtype, batch["categorical"].dtype, batch["label"].dtype) == (
            np.float32,
            np.int32,
            np.float32,
        )
        assert batch["numeric"].tolist() == np.stack([at / 2, at % 3 == 0], 1).tolist()
        assert batch["categorical"].tolist() == at[:, None].tolist()
        assert batch["label"].tolist() == (at % 2)[:, None].tolist()


def test_without_shuffle_rows_come_as_they_stand_in_the_files(dataset: tuple[Path, Manifest]) -> None:
    feed = feed_of(dataset, shuffle=False)
    assert positions(list(feed)) == list(range(ROWS))
    feed.epoch = 1
    assert positions(list(feed)) == list(range(ROWS))


def test_seed_and_epoch_alone_make_the_order(dataset: tuple[Path, Manifest]) -> None:
    def order(seed: int, epoch: int, batch_size: int = 8) -> tuple[int, ...]:
        feed = feed_of(dataset, batch_size, seed=seed)
        feed.epoch = epoch
        return tuple(positions(list(feed)))

    orders = {(seed, epoch): order(seed, epoch) for seed in range(2) for epoch in range(3)}
    assert len(set(orders.values())) == len(orders)
    assert order(1, 2) == orders[1, 2]


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"worker": 1, "workers": 3}, {"lanes": 3}])
def test_a_split_that_is_kept_is_read_once_and_comes_in_the_same_order(
    dataset: tuple[Path, Manifest], options: dict[str, Any], tmp_path: Path
) -> None:
    def epochs(feed: SplitFeed, of_first: Callable[[], object] = lambda: None) -> list[list[Any]]:
        found = []
        for epoch in range(3):
            feed.epoch, feed.first_batch = epoch, 1 if epoch == 0 else 0  # it goes on, and opens not all groups
            found += [{name: array.tolist() for name, array in batch.items()} for batch in feed]
            if epoch == 1:
                of_first()
        return found

    folder = tmp_path / "dataset"
    shutil.copytree(dataset[0], folder)
    # Of row groups of six rows, with four columns of four bytes and positions of eight.
    size = len(feed_of(dataset).groups) * ROWS_PER_GROUP * 24
    kept = SplitFeed(folder, dataset[1], "train", batch_size=8, in_memory_bytes=size, **options)
    assert epochs(kept, lambda: shutil.rmtree(folder)) == epochs(feed_of(dataset, **options))


def test_a_split_that_takes_more_memory_is_read_in_each_epoch(dataset: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(dataset[0], folder)
    size = len(feed_of(dataset).groups) * ROWS_PER_GROUP * 24
    feed = SplitFeed(folder, dataset[1], "train", batch_size=8, in_memory_bytes=size - 1)
    assert len(positions(list(feed))) == ROWS
    shutil.rmtree(folder)
    with pytest.raises(FeedError, match=r"part-0000\d.parquet can't be read"):
        list(feed)


def test_a_row_group_that_can_not_be_read_is_not_kept(dataset: tuple[Path, Manifest], tmp_path: Path) -> None:
    folder = tmp_path / "dataset"
    shutil.copytree(dataset[0], folder)
    damaged = folder / "train/part-00001.parquet"
    whole = damaged.read_bytes()
    damaged.write_bytes(b"")
    feed = SplitFeed(folder, dataset[1], "train", batch_size=8, in_memory_bytes=1 << 20)
    for _ in range(5):  # as often as there are places to spare, and more
        with pytest.raises(FeedError, match="part-00001"):
            list(feed)
    damaged.write_bytes(whole)
    assert sorted(positions(list(feed))) == list(range(ROWS))


Reader = Callable[..., Any]


def losing(change: Callable[[int, Block], Block | None]) -> Reader:
    """Return read_row_groups with each block (and its number) changed, or dropped."""

    @contextmanager
    def read(*arguments: Any, **options: Any) -> Iterator[Iterator[Block]]:
        with real_reader(*arguments, **options) as blocks:
            changed = (change(number, block) for number, block in enumerate(blocks))
            yield (block for block in changed if block is not None)

    return read


real_reader = gather.read_row_groups


def taking(block: Block, rows: list[int]) -> Block:
    """Return a block of which other rows are taken than all of them once."""
    return replace(block, order=block.order[rows])


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n, block: None if n == 2 else block, "ended 1 row groups before"),
        (lambda n, block: taking(block, list(range(1, block.group.rows))) if n == 1 else block, "rows"),
        (lambda n, block: taking(block, [0, *range(block.group.rows - 1)]) if n == 1 else block, "came twice"),
    ],
    ids=["a block lost", "a row lost", "a row doubled while another is missing"],
)
def test_a_reader_that_loses_rows_never_ends_an_epoch_well(
    dataset: tuple[Path, Manifest],
    monkeypatch: pytest.MonkeyPatch,
    change: Callable[[int, Block], Block | None],
    says: str,
    shuffle: bool,
) -> None:
    monkeypatch.setattr(gather, "read_row_groups", losing(change))
    feed = feed_of(dataset, shuffle=shuffle)
    handed_out: list[Batch] = []
    with pytest.raises(FeedError, match=says) as wrong:
        handed_out.extend(feed)
    if says != "ended 1 row groups before":
        assert "Epoch 0 of the train split" in str(wrong.value)
        assert "train/part-" in str(wrong.value)
    assert sum(len(batch["_position"]) for batch in handed_out) < ROWS - 1, "the last batches stayed"
    with pytest.raises(RuntimeError, match="was not read to its end"):
        feed.check()


def test_the_receipt_is_checked_before_the_last_batches_leave(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    def last_row_lost(number: int, block: Block) -> Block:
        return taking(block, list(range(block.group.rows - 1))) if block.group.first_position == 33 else block

    monkeypatch.setattr(gather, "read_row_groups", losing(last_row_lost))
    monkeypatch.setattr(gather, "_ROWS", 16)
    batches = iter(feed_of(dataset, shuffle=False))
    # Two batches of 8 are gathered at once: the last gathering has 5 rows, of which one is lost.
    assert [len(next(batches)["_position"]) for _ in range(4)] == [8, 8, 8, 8]
    with pytest.raises(FeedError, match="3 of 4 rows"):
        next(batches)


@pytest.mark.parametrize("rows_at_once", [1, 16, 65_536])
@pytest.mark.parametrize("lanes", [1, 2, 3, 8])
def test_lanes_change_the_order_and_what_is_gathered_at_once_does_not(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, lanes: int, rows_at_once: int
) -> None:
    monkeypatch.setattr(gather, "_ROWS", rows_at_once)
    feed = feed_of(dataset, lanes=lanes)
    order = feed.order(0)
    planned = order.runs(0, order.batches)
    groups = [order.groups[group] for group in planned.group]
    places = [row_order(group, 0, 0) + group.first_position for group in groups]
    wanted = [place[a:b] for place, a, b in zip(places, planned.start, planned.stop, strict=True)]
    assert positions(list(feed)) == np.concatenate(wanted).tolist()


@pytest.mark.parametrize("workers", [2, 3, 4, 8])
@pytest.mark.parametrize(("batch_size", "lanes"), [(8, 8), (8, 4), (9, 2), (30, 3)])
def test_the_shares_of_workers_are_the_batches_in_order(
    dataset: tuple[Path, Manifest], batch_size: int, lanes: int, workers: int
) -> None:
    whole = list(feed_of(dataset, batch_size, lanes=lanes, seed=5))
    feeds = [feed_of(dataset, batch_size, lanes=lanes, seed=5, worker=w, workers=workers) for w in range(workers)]
    shares = [list(feed) for feed in feeds]
    assert [len(share) for share in shares] == [len(whole)] * workers
    for number, batch in enumerate(whole):
        for name, values in batch.items():
            assert np.concatenate([share[number][name] for share in shares]).tolist() == values.tolist()
    for feed in feeds:
        feed.check()


@pytest.mark.parametrize("workers", [1, 2])
@pytest.mark.parametrize("rows_at_once", [1, 65_536])
@pytest.mark.parametrize("first", range(5))
def test_an_epoch_goes_on_at_any_batch(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, first: int, rows_at_once: int, workers: int
) -> None:
    monkeypatch.setattr(gather, "_ROWS", rows_at_once)
    feed = feed_of(dataset, seed=2, workers=workers)
    whole = list(feed)
    feed.first_batch = first
    rest = list(feed)
    feed.check()
    assert positions(rest) == positions(whole)[sum(len(batch["_position"]) for batch in whole[:first]) :]


@pytest.mark.parametrize("lanes", [1, 2, 5])
def test_going_on_reads_the_open_row_groups_again_and_no_others(dataset: tuple[Path, Manifest], lanes: int) -> None:
    order = feed_of(dataset, 2, lanes=lanes).order(0)
    whole = order.visits()
    for first in range(1, order.batches):
        later = order.visits(first)
        opened_before = [visit for visit in whole if visit.first_batch < first <= visit.last_batch]
        assert len(opened_before) <= lanes
        assert len(later) == len(opened_before) + sum(visit.first_batch >= first for visit in whole)


def test_a_remainder_is_dropped_and_proven_all_the_same(dataset: tuple[Path, Manifest]) -> None:
    dropped = set()
    feed = feed_of(dataset, 8, remainder="drop")
    for epoch in range(20):
        feed.epoch = epoch
        batches = list(feed)
        feed.check()
        assert [len(batch["_position"]) for batch in batches] == [8] * 4
        assert feed.batches == 4
        dropped.add(tuple(set(range(ROWS)) - set(positions(batches))))
    assert len(dropped) == 20, "other rows in each epoch"
    assert len({row for rows in dropped for row in rows}) > 30


def test_a_lost_row_of_the_remainder_is_found(dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch) -> None:
    def last_row_lost(number: int, block: Block) -> Block:
        return taking(block, list(range(block.group.rows - 1))) if block.group.first_position == 33 else block

    monkeypatch.setattr(gather, "read_row_groups", losing(last_row_lost))
    monkeypatch.setattr(gather, "_ROWS", 1)
    with pytest.raises(FeedError, match="3 of 4 rows"):
        list(feed_of(dataset, 8, shuffle=False, remainder="drop"))


def test_a_batch_that_workers_can_not_share_is_refused(dataset: tuple[Path, Manifest]) -> None:
    with pytest.raises(ValueError, match="can't be shared by 3 workers"):
        feed_of(dataset, 2, workers=3)


def test_batches_that_are_kept_are_not_written_over(dataset: tuple[Path, Manifest]) -> None:
    feed = feed_of(dataset)
    kept, copies = [], []
    for epoch in range(4):
        feed.epoch = epoch
        for batch in feed:
            kept.append(batch)
            copies.append({name: values.copy() for name, values in batch.items()})
    for batch, copy in zip(kept, copies, strict=True):
        assert all(np.array_equal(batch[name], copy[name]) for name in copy)


@pytest.mark.parametrize("first_batch", [0, 2])
def test_epochs_in_one_iteration_are_the_same_and_end_when_they_are_closed(
    dataset: tuple[Path, Manifest], first_batch: int
) -> None:
    plain, several = feed_of(dataset, seed=3), feed_of(dataset, seed=3)
    plain.epoch = several.epoch = 2
    plain.first_batch = several.first_batch = first_batch
    before = our_threads()
    batches = iter(several.to_tf(epochs=3))
    for epoch in (2, 3, 4):
        plain.epoch = epoch
        for batch in plain:
            assert np.array_equal(next(batches)[0]["numeric"], batch["numeric"])
        several.check(epoch)
    with pytest.raises(StopIteration):
        next(batches)
    with pytest.raises(RuntimeError, match="epoch 5 of the train split was not read to its end"):
        several.check(5)
    assert not our_threads() - before, "none is begun after the last"


def test_batches_are_made_ready_ahead_under_op_determinism_too(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    import tensorflow as tf
    from tensorflow.python.framework.config import disable_op_determinism

    from lakefit.feed import tf_data

    def arrived(most: int) -> int:
        """Return how many batches have come out when one was taken and two could be made ready."""
        feed = feed_of(dataset, 1)
        batches = iter(tf_data.ReadAhead(feed.to_tf(epochs=1).prefetch(2)))
        next(batches)
        end = time.monotonic() + 20
        while feed.arrived < most and time.monotonic() < end:
            time.sleep(0.01)
        return feed.arrived

    tf.config.experimental.enable_op_determinism()
    try:
        assert arrived(3) == 3
        assert tf_data.is_op_determinism_enabled(), "the model's operations must be"
        monkeypatch.setattr(tf_data, "disable_op_determinism", lambda: None)
        assert arrived(1) == 1, "TensorFlow makes ready ahead by itself: ReadAhead is needless"
    finally:
        disable_op_determinism()


def test_an_epoch_that_was_begun_ahead_ends_with_close(dataset: tuple[Path, Manifest]) -> None:
    before = our_threads()
    feed, plain = feed_of(dataset, seed=3), feed_of(dataset, seed=3)
    data = feed.to_tf(epochs=9)
    rows = iter(feed)
    assert positions(list(rows)) == positions(list(plain))
    assert our_threads() - before, "epoch 1 is being read"
    # Another one is asked for than was begun.
    feed.epoch = plain.epoch = 4
    assert positions(list(feed)) == positions(list(plain))
    feed.close()
    feed.close()
    assert not our_threads() - before
    del data


def test_an_epoch_left_early_is_not_taken_for_a_whole_one(dataset: tuple[Path, Manifest]) -> None:
    feed = feed_of(dataset)
    batches = iter(feed)
    next(batches)
    batches.close()  # type: ignore[attr-defined]
    with pytest.raises(RuntimeError, match="epoch 0 of the train split was not read to its end"):
        feed.check()
    list(feed)
    feed.check()
    feed.epoch = 1
    with pytest.raises(RuntimeError, match="epoch 1"):
        feed.check()
