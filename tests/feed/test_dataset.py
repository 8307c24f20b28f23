"""`lakefit.open_dataset`: one order and one receipt, as numpy, TensorFlow, Arrow or PyTorch, in either layout."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakefit
from feeds import manifest_of
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
from lakefit.dataset.manifest import DataFile
from lakefit.dataset.packed import pack
from lakefit.errors import FeedError, InputError
from lakefit.feed.split import SplitFeed

ROWS, GROUP = 50, 7


@pytest.fixture(params=["wide", "packed"])
def folder(request: pytest.FixtureRequest, tmp_path: Path) -> Path:
    return write_dataset(tmp_path, request.param)


def write_dataset(folder: Path, layout: Any) -> Path:
    at = np.arange(ROWS)
    amounts = {name: pa.array((at * factor).astype(np.float32)) for name, factor in (("half", 0.5), ("double", 2.0))}
    cities = {name: pa.array((at + shift).astype(np.int32)) for name, shift in (("a", 0), ("b", 1), ("c", 2))}
    columns = amounts | cities
    if layout == "packed":
        columns = {"numeric": pack(list(amounts.values())), "categorical": pack(list(cities.values()))}
    columns |= {"label": pa.array((at % 2).astype(np.float32)), "_position": pa.array(at)}
    (folder / "train").mkdir()
    pq.write_table(pa.table(columns), folder / "train" / "part-00000.parquet", row_group_size=GROUP)
    groups = tuple(min(GROUP, ROWS - first) for first in range(0, ROWS, GROUP))
    file = DataFile(path="train/part-00000.parquet", row_groups=groups, bytes=0, sha256="", first_position=0)
    features = Features(
        numeric=tuple(NumericFeature(name=name, fill=0.0) for name in amounts),
        categorical=tuple(CategoricalFeature(name=name, vocabulary=(), counts=(), rare=0) for name in cities),
    )
    manifest = manifest_of([file], features, layout)
    (folder / "manifest.json").write_text(manifest.model_dump_json(by_alias=True))
    return folder


def test_rows_come_whole_in_either_layout(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)

    assert (dataset.splits, dataset.numeric_columns, dataset.categorical_columns) == (
        ("train",), ("half", "double"), ("a", "b", "c"),
    )  # fmt: skip
    seen = []
    for batch in dataset.to_numpy("train", batch_size=8, seed=3):
        at = batch["_position"]
        assert batch["numeric"].tolist() == np.stack([at / 2, at * 2.0], axis=1).tolist()
        assert batch["categorical"].tolist() == np.stack([at, at + 1, at + 2], axis=1).tolist()
        assert batch["label"].tolist() == (at % 2)[:, None].tolist()
        seen += at.tolist()
    assert sorted(seen) == list(range(ROWS))


@pytest.mark.parametrize("options", [{}, {"shuffle": False}, {"remainder": "drop"}, {"worker": 1, "workers": 2}])
def test_all_ways_give_the_same_rows_in_the_same_order(folder: Path, options: Any) -> None:
    dataset = lakefit.open_dataset(folder)
    options = {"batch_size": 8, "seed": 5, "epoch": 2, **options}

    arrays = list(dataset.to_numpy("train", **options))
    arrow = list(dataset.to_arrow("train", **options))
    tensors = list(dataset.to_tf("train", **options))

    assert len(arrays) == len(arrow) == len(tensors) > 5
    for batch, record_batch, (inputs, label) in zip(arrays, arrow, tensors, strict=True):
        assert record_batch.column_names == ["half", "double", "a", "b", "c", "label", "_position"]
        assert record_batch["_position"].to_pylist() == batch["_position"].tolist()
        assert record_batch["double"].to_pylist() == batch["numeric"][:, 1].tolist()
        assert record_batch["c"].to_pylist() == batch["categorical"][:, 2].tolist()
        assert record_batch["label"].to_pylist() == batch["label"][:, 0].tolist() == label.numpy()[:, 0].tolist()
        assert inputs["numeric"].numpy().tolist() == batch["numeric"].tolist()
        assert inputs["categorical"].numpy().tolist() == batch["categorical"].tolist()


@pytest.mark.parametrize("worker", range(4))
def test_a_worker_without_rows_in_the_last_batch_gets_an_empty_one(folder: Path, worker: int) -> None:
    data = lakefit.open_dataset(folder).to_tf("train", batch_size=8, worker=worker, workers=4)

    assert [len(label) for _, label in data] == [2] * 6 + [worker % 2]


def test_each_iteration_of_a_tf_dataset_reads_the_next_epoch(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)
    data = dataset.to_tf("train", batch_size=8, epoch=4)
    assert int(data.cardinality()) == 7

    for epoch in (4, 5, 6):
        labels = np.concatenate([label.numpy()[:, 0] for _, label in data])
        wanted = [batch["label"][:, 0] for batch in dataset.to_numpy("train", batch_size=8, epoch=epoch)]
        assert labels.tolist() == np.concatenate(wanted).tolist()


def test_keras_fits_on_it(folder: Path) -> None:
    import keras

    inputs = {"numeric": keras.Input((2,), name="numeric"), "categorical": keras.Input((3,), name="categorical")}
    model = keras.Model(inputs, keras.layers.Dense(1)(inputs["numeric"]))
    model.compile("sgd", "mse")

    history = model.fit(lakefit.open_dataset(folder).to_tf("train", batch_size=8), epochs=3, shuffle=False, verbose=0)

    assert len(history.history["loss"]) == 3


def test_what_tensorflow_loses_is_found_without_being_asked_for(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    import tensorflow as tf

    enumerated = tf.data.Dataset.enumerate
    monkeypatch.setattr(tf.data.Dataset, "enumerate", lambda data: enumerated(data).filter(lambda n, _: n != 2))

    with pytest.raises(tf.errors.OpError, match=r"batch 2, from train/part-00000\.parquet row group \d"):
        list(lakefit.open_dataset(folder).to_tf("train", batch_size=8))


@pytest.mark.parametrize("taken", range(8))
@pytest.mark.parametrize("options", [{}, {"shuffle": False, "remainder": "drop"}, {"workers": 3, "worker": 2}])
def test_a_feed_goes_on_from_its_state(folder: Path, taken: int, options: Any) -> None:
    dataset = lakefit.open_dataset(folder)
    feed = dataset.to_numpy("train", batch_size=8, seed=9, epoch=1, **options)
    first = [batch["_position"].tolist() for _, batch in zip(range(taken), feed, strict=False)]

    state = json.loads(json.dumps(feed.state()))
    rest = dataset.from_state(state)

    if taken >= feed.batches:
        assert (state["epoch"], state["batch"]) == (2, 0)
        assert len([batch["_position"].tolist() for batch in rest]) == feed.batches
    else:
        assert (state["epoch"], state["batch"]) == (1, taken)
        whole = dataset.to_numpy("train", batch_size=8, seed=9, epoch=1, **options)
        assert first + [batch["_position"].tolist() for batch in rest] == [b["_position"].tolist() for b in whole]
    rest.check()


def test_the_state_follows_a_feed_through_its_epochs(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)
    feed = dataset.to_numpy("train", batch_size=8)
    feed.first_batch = 2

    def at(feed: SplitFeed) -> tuple[int, int]:
        state = feed.state()
        return state["epoch"], state["batch"]

    assert at(feed) == (0, 2)
    batches = iter(feed)
    next(batches)
    assert at(feed) == (0, 3)
    assert len(list(batches)) == 4
    assert at(feed) == (1, 0)
    feed.epoch = 1
    assert at(feed) == (1, 0)
    assert len(list(feed)) == 7, "where an epoch began does not count for the next"
    assert at(feed) == (2, 0)


def test_a_state_is_of_numbers_and_the_dataset(folder: Path) -> None:
    state = lakefit.open_dataset(folder).to_numpy("train", batch_size=8).state()

    assert state == {
        "dataset": "0", "split": "train", "epoch": 0, "batch": 0, "seed": 0, "batch_size": 8, "lanes": 8,
        "drop_remainder": 0, "worker": 0, "workers": 1,
    }  # fmt: skip


def test_the_state_of_another_dataset_is_refused(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)
    state = dataset.to_numpy("train", batch_size=8).state()

    with pytest.raises(InputError, match=r"one of dataset 9f, and .* is dataset 0\."):
        dataset.from_state({**state, "dataset": "9f"})
    with pytest.raises(InputError, match="lacks 'seed'"):
        dataset.from_state({key: value for key, value in state.items() if key != "seed"})  # type: ignore[arg-type]


def test_what_is_not_there_is_named(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="there is no split 'test'; it has train"):
        lakefit.open_dataset(folder).to_numpy("test", batch_size=8)
    with pytest.raises(InputError, match="neither a dataset"):
        lakefit.open_dataset(tmp_path / "nowhere")


def test_the_folder_of_a_pipeline_stands_for_its_dataset_in_use(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "lake" / "datasets").mkdir(parents=True)
    (tmp_path / "lake" / "datasets" / "f00").symlink_to(folder)
    (tmp_path / "lake" / "current.json").write_text('{"dataset": "f00"}')

    assert lakefit.open_dataset(tmp_path / "lake").splits == ("train",)


@pytest.mark.parametrize("damage", ["other width", "not packed"])
def test_a_packed_column_that_is_none_is_named(tmp_path: Path, damage: str) -> None:
    write_dataset(tmp_path, "packed")
    path = tmp_path / "train" / "part-00000.parquet"
    table = pq.read_table(path)
    other = pack([pa.array(np.zeros(ROWS, np.float32))]) if damage == "other width" else pa.array(np.zeros(ROWS))
    pq.write_table(table.set_column(0, "numeric", other), path, row_group_size=GROUP)

    said = "holds 1 values of 7 rows where the plan has 2 of 7" if damage == "other width" else "not packed float32"
    with pytest.raises(FeedError, match=f"Column 'numeric'.*{said}"):
        list(lakefit.open_dataset(tmp_path).to_numpy("train", batch_size=8))


def test_torch_gets_the_same_batches(folder: Path) -> None:
    torch = pytest.importorskip("torch")
    dataset = lakefit.open_dataset(folder)
    data = dataset.to_torch("train", batch_size=8, seed=1)

    for epoch in range(2):
        loaded = list(torch.utils.data.DataLoader(data, batch_size=None))
        wanted = list(dataset.to_numpy("train", batch_size=8, seed=1, epoch=epoch))
        assert len(loaded) == len(wanted) == len(data)
        for batch, values in zip(loaded, wanted, strict=True):
            assert all(batch[name].numpy().tolist() == values[name].tolist() for name in values)
    with pytest.raises(RuntimeError, match="num_workers=0"):
        list(torch.utils.data.DataLoader(data, batch_size=None, num_workers=1))


def test_opening_reads_no_data(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for path in folder.rglob("*.parquet"):
        path.unlink()

    dataset = lakefit.open_dataset(folder)
    assert isinstance(dataset.to_numpy("train", batch_size=8), SplitFeed)
    dataset.to_tf("train", batch_size=8)
