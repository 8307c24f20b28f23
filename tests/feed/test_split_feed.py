"""A split as batches: every row once an epoch, in the order of seed and epoch, or a FeedError before the last batch."""

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
from lakefit.feed import split as split_module
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
    return np.concatenate([batch.position for batch in batches]).tolist()


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize("batch_size", [1, 5, 6, 8, ROWS, ROWS + 1])
def test_every_row_comes_once_in_full_batches_and_the_rest(
    dataset: tuple[Path, Manifest], batch_size: int, shuffle: bool
) -> None:
    feed = feed_of(dataset, batch_size, shuffle=shuffle)
    batches = list(feed)
    feed.check()
    assert sorted(positions(batches)) == list(range(ROWS))
    sizes = [len(batch.position) for batch in batches]
    assert sizes[:-1] == [batch_size] * (feed.batches - 1)
    assert sizes[-1] == ROWS - batch_size * (feed.batches - 1) > 0


def test_the_values_of_a_row_stay_together(dataset: tuple[Path, Manifest]) -> None:
    for batch in feed_of(dataset, seed=3):
        at = batch.position
        assert (batch.numeric.dtype, batch.categorical.dtype, batch.label.dtype) == (np.float32, np.int32, np.float32)
        assert batch.numeric.tolist() == np.stack([at / 2, at % 3 == 0], 1).tolist()
        assert batch.categorical.tolist() == at[:, None].tolist()
        assert batch.label.tolist() == (at % 2)[:, None].tolist()


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
    assert order(1, 2) == order(1, 2, batch_size=5) == orders[1, 2]


Reader = Callable[..., Any]


def losing(change: Callable[[int, Block], Block | None]) -> Reader:
    """Return read_row_groups with each block (and its number) changed, or dropped."""

    @contextmanager
    def read(*arguments: Any, **options: Any) -> Iterator[Iterator[Block]]:
        with split_module_read(*arguments, **options) as blocks:
            changed = (change(number, block) for number, block in enumerate(blocks))
            yield (block for block in changed if block is not None)

    return read


split_module_read = split_module.read_row_groups


def shortened(block: Block, rows: list[int]) -> Block:
    """Return a block of the given rows of another."""
    taken = {name: getattr(block, name)[rows] for name in ("numeric", "categorical", "label", "position")}
    return replace(block, group=replace(block.group, rows=len(rows)), **taken)


@pytest.mark.parametrize("shuffle", [True, False])
@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda n, block: None if n == 2 else block, "0 of"),
        (lambda n, block: shortened(block, list(range(1, block.group.rows))) if n == 1 else block, "rows"),
        (lambda n, block: shortened(block, [0, *range(block.group.rows - 1)]) if n == 1 else block, "came twice"),
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
    monkeypatch.setattr(split_module, "read_row_groups", losing(change))
    feed = feed_of(dataset, shuffle=shuffle)
    handed_out: list[Batch] = []
    with pytest.raises(FeedError, match=says) as wrong:
        handed_out.extend(feed)
    assert "Epoch 0 of the train split" in str(wrong.value)
    assert "train/part-" in str(wrong.value)
    assert sum(len(batch.position) for batch in handed_out) < ROWS - 1, "the last batch stayed"
    with pytest.raises(RuntimeError, match="was not read to its end"):
        feed.check()


def test_the_receipt_is_checked_before_the_last_batch_leaves(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(split_module, "read_row_groups", losing(lambda n, block: None if n == 0 else block))
    batches = iter(feed_of(dataset, shuffle=False))
    # 31 rows are left: three batches of 8, and 7 that stay behind.
    assert [len(next(batches).position) for _ in range(3)] == [8, 8, 8]
    with pytest.raises(FeedError):
        next(batches)


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
