"""Parquet files that Lakefit has not written, with an index: any columns, one order, one receipt."""

from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import lakefit
from lakefit.dataset.index import index_folder
from lakefit.errors import FeedError, InputError

ROWS, GROUP = 50, 7


def table(first: int, rows: int) -> pa.Table:
    at = np.arange(first, first + rows)
    return pa.table(
        {
            "at": at,
            "x": at.astype(np.float32),
            "y": (at * 2).astype(np.float32),
            "even": at % 2 == 0,
            "name": [None if i % 5 == 0 else f"näme {i}" for i in at.tolist()],
            "raw": [bytes([i % 256] * (i % 3)) for i in at.tolist()],
            "maybe": pa.array([None if i % 4 == 0 else float(i) for i in at.tolist()], pa.float64()),
            "list": pa.array([[float(i)] * (i % 4) for i in at.tolist()], pa.list_(pa.float32())),
            "three": pa.array([[i, i + 1, i + 2] for i in at.tolist()], pa.list_(pa.int32(), 3)),
            "image": pa.FixedShapeTensorArray.from_numpy_ndarray(np.repeat(at, 6).reshape(-1, 2, 3)),
            "day": pa.array(at.astype(np.int32), pa.date32()),
            "moment": pa.array(at, pa.timestamp("ms")),
            "kind": pa.array([f"k{i % 3}" for i in at.tolist()]).dictionary_encode(),
            "count": pa.array([None if i == 3 else i for i in at.tolist()], pa.int32()),
        }
    )


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("lake")
    for number, first in enumerate(range(0, ROWS, 20)):
        pq.write_table(table(first, min(20, ROWS - first)), folder / f"part-{number}.parquet", row_group_size=GROUP)
    index_folder(folder)
    return folder


FED = ["at", "x", "even", "name", "raw", "maybe", "list", "three", "image", "day", "moment", "kind"]
OPTIONS: list[dict[str, Any]] = [
    {},
    {"shuffle": False},
    {"remainder": "drop"},
    {"worker": 1, "workers": 3},
    {"worker": 0, "workers": 4},
]


def ensure_right(at: int, row: dict[str, Any]) -> None:
    """What the columns of a row are, whatever it came as."""
    assert (row["x"], row["even"], row["day"], row["moment"]) == (at, at % 2 == 0, at, at)
    assert row["name"] == ("" if at % 5 == 0 else f"näme {at}")
    assert row["raw"] == bytes([at % 256] * (at % 3))
    assert np.isnan(row["maybe"]) if at % 4 == 0 else row["maybe"] == at
    assert row["list"] == [at] * (at % 4)
    assert row["three"] == [at, at + 1, at + 2]
    assert row["image"] == [[at] * 3] * 2
    assert row["kind"] == f"k{at % 3}"


@pytest.mark.parametrize("options", OPTIONS)
def test_all_ways_give_the_same_rows_in_the_same_order(folder: Path, options: Any) -> None:
    dataset = lakefit.open_dataset(folder)
    options = {"batch_size": 8, "seed": 5, "epoch": 2, "columns": FED, **options}

    arrays = list(dataset.to_numpy("all", **options))
    arrow = list(dataset.to_arrow("all", **options))
    tensors = list(dataset.to_tf("all", **options))

    assert len(arrays) == len(arrow) == len(tensors) == (6 if "remainder" in options else 7)
    for batch, record_batch, inputs in zip(arrays, arrow, tensors, strict=True):
        rows = batch["_position"].tolist()
        assert batch["at"].tolist() == rows == record_batch["_position"].to_pylist() == inputs["at"].numpy().tolist()
        assert record_batch.column_names == [*FED, "_position"]
        assert list(inputs) == FED
        three = record_batch["three"].to_numpy_ndarray().tolist()
        image = record_batch["image"].to_numpy_ndarray().tolist()
        for place, at in enumerate(rows):
            ensure_right(at, {name: np.asarray(batch[name][place]).tolist() for name in FED})
            whole = {name: record_batch[name][place].as_py() for name in FED if name not in ("three", "image")}
            ensure_right(at, whole | {"three": three[place], "image": image[place]})
            in_tf = {name: inputs[name][place].numpy() for name in FED}
            texts = {name: in_tf[name].decode() for name in ("name", "kind")}
            ensure_right(at, {name: np.asarray(value).tolist() for name, value in in_tf.items()} | texts)


def test_rows_come_once_and_in_the_order_of_a_prepared_split(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)
    feed = dataset.to_numpy("all", batch_size=8, columns=["at"])

    epochs = []
    for feed.epoch in range(3):
        epochs.append([row for batch in feed for row in batch["at"].tolist()])
        assert sorted(epochs[-1]) == list(range(ROWS))
    assert len(set(map(tuple, epochs))) == 3

    state = feed.state()
    feed.epoch, whole = 1, [batch["at"].tolist() for batch in feed]
    state["epoch"], state["batch"] = 1, 3
    again = dataset.from_state(state, columns=["at"])
    assert [batch["at"].tolist() for batch in again] == epochs_by_batch(dataset, 1)[3:]
    assert whole


def epochs_by_batch(dataset: Any, epoch: int) -> list[list[int]]:
    return [batch["at"].tolist() for batch in dataset.to_numpy("all", batch_size=8, epoch=epoch, columns=["at"])]


def test_columns_are_laid_side_by_side_and_keras_trains_on_them(folder: Path) -> None:
    import keras

    dataset = lakefit.open_dataset(folder)
    columns = {"both": ["y", "x"], "target": "even"}
    for batch in dataset.to_numpy("all", batch_size=8, columns=columns):
        assert list(batch) == ["both", "target", "_position"]
        at = batch["_position"]
        assert batch["both"].tolist() == np.stack([at * 2, at], axis=1).tolist()
        assert batch["target"].tolist() == (at % 2 == 0).tolist()

    both = keras.Input((2,), name="both")
    model = keras.Model({"both": both}, keras.layers.Dense(1, activation="sigmoid")(both))
    model.compile("sgd", "binary_crossentropy")
    history = model.fit(
        dataset.to_tf("all", batch_size=8, columns=columns, label="target"), epochs=2, shuffle=False, verbose=0
    )
    assert len(history.history["loss"]) == 2

    for inputs, label, weight in dataset.to_tf("all", batch_size=8, columns=["at", "x", "y"], label="y", weight="x"):
        assert list(inputs) == ["at"]
        assert label.numpy().tolist() == (2 * weight.numpy()).tolist()


def test_what_can_not_be_asked_for_is_said(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)

    def ask(**options: Any) -> Any:
        return dataset.to_tf("all", batch_size=8, **options)

    with pytest.raises(InputError, match=r"there is no column 'nam'; the nearest of 14 is 'name'"):
        ask(columns=["nam"])
    with pytest.raises(InputError, match=r"column 'count' has 1 nulls, for which int32 has no value"):
        ask(columns=["at", "count"])
    with pytest.raises(InputError, match=r"column 'count' has 1 nulls"):
        ask()
    with pytest.raises(InputError, match=r"'both' lays columns side by side, .* x \(float\), day \(date32\[day\]\)"):
        ask(columns={"both": ["x", "day"]})
    with pytest.raises(InputError, match=r"side by side"):
        ask(columns={"both": ["name"]})
    with pytest.raises(InputError, match=r"there is no column 'y'"):
        ask(columns=["x"], label="y")
    with pytest.raises(ValueError, match="name at least one"):
        ask(columns=[])
    with pytest.raises(ValueError, match=r"columns is a list, .*\['at'\]"):
        ask(columns="at")
    with pytest.raises(ValueError, match="_position tells the row"):
        ask(columns={"_position": "x"})
    with pytest.raises(ValueError, match="No input is left"):
        ask(columns=["x"], label="x")
    with pytest.raises(ValueError, match="label of its own"):
        ask(columns=["x", "y"], label="x", weight="x")
    with pytest.raises(InputError, match=r"there is no split 'train'; it has all"):
        dataset.to_numpy("train", batch_size=8)


def test_files_that_changed_after_the_index_are_found(tmp_path: Path) -> None:
    pq.write_table(table(0, 10), tmp_path / "a.parquet", row_group_size=GROUP)
    index_folder(tmp_path)
    feed = lakefit.open_dataset(tmp_path).to_numpy("all", batch_size=8, columns=["x"])
    list(feed)

    pq.write_table(table(0, 9), tmp_path / "a.parquet", row_group_size=GROUP)
    with pytest.raises(
        FeedError, match=r"a\.parquet can't be read\. The file has [0-9,]+ bytes where the manifest has"
    ):
        list(feed)


def test_a_null_that_no_footer_told_is_found(tmp_path: Path) -> None:
    lists = pa.array([[1, 2], [None]], pa.list_(pa.int32()))
    pq.write_table(pa.table({"lists": lists, "x": pa.array([1, None], pa.int32())}), tmp_path / "a.parquet",
                   write_statistics=False)  # fmt: skip
    index_folder(tmp_path)
    dataset = lakefit.open_dataset(tmp_path)

    with pytest.raises(FeedError, match=r"Row group 0 of .*a\.parquet can't be read\. Column 'x' has 1 nulls"):
        list(dataset.to_numpy("all", batch_size=8, columns=["x"]))
    with pytest.raises(FeedError, match=r"'lists' has 1 nulls in its lists of int32"):
        list(dataset.to_numpy("all", batch_size=8, columns=["lists"]))


def test_torch_gets_lists_as_nested_tensors_and_no_text(folder: Path) -> None:
    pytest.importorskip("torch")
    dataset = lakefit.open_dataset(folder)

    data = dataset.to_torch("all", batch_size=8, columns=["at", "list", "three"])
    seen = 0
    for batch in data:
        for at, items, three in zip(batch["at"].tolist(), batch["list"].unbind(), batch["three"].tolist(), strict=True):
            assert items.tolist() == [at] * (at % 4)
            assert three == [at, at + 1, at + 2]
            seen += 1
    assert seen == ROWS

    with pytest.raises(InputError, match="no tensors of text or bytes: name other columns than name"):
        dataset.to_torch("all", batch_size=8, columns=["at", "name"])


def test_files_of_no_rows_give_no_batches(tmp_path: Path) -> None:
    pq.write_table(table(0, 9).slice(0, 0), tmp_path / "a.parquet")
    index_folder(tmp_path)
    dataset = lakefit.open_dataset(tmp_path)
    assert list(dataset.to_numpy("all", batch_size=8, columns=["x", "name"])) == []
    assert list(dataset.to_tf("all", batch_size=8, columns=["x", "name"])) == []

    pq.write_table(table(0, 9), tmp_path / "b.parquet", row_group_size=GROUP)
    index_folder(tmp_path)
    batches = list(lakefit.open_dataset(tmp_path).to_numpy("all", batch_size=8, columns=["at", "list"]))
    assert sorted(np.concatenate([batch["at"] for batch in batches]).tolist()) == list(range(9))


def test_lanes_mix_what_stands_sorted_in_the_files(tmp_path: Path) -> None:
    """Rows sorted by label: the more lanes, the closer each batch's share of it is to that of all rows."""
    rows = 32_000
    for number, first in enumerate(range(0, rows, 8_000)):
        label = np.arange(first, first + 8_000) >= 0.7 * rows
        pq.write_table(pa.table({"label": label}), tmp_path / f"{number}.parquet", row_group_size=500)
    index_folder(tmp_path)
    dataset = lakefit.open_dataset(tmp_path)

    def deviation(**options: Any) -> float:
        shares = [batch["label"].mean() for batch in dataset.to_numpy("all", batch_size=100, seed=7, **options)]
        assert np.mean(shares) == pytest.approx(0.3)
        return float(np.std(shares))

    unmixed, one, eight, many = (deviation(**options) for options in OF_LANES)
    assert unmixed > 0.4
    assert one > 2 * eight > 3 * many


OF_LANES: list[dict[str, Any]] = [{"shuffle": False}, {"lanes": 1}, {"lanes": 8}, {"lanes": 32}]


def test_a_file_of_the_same_size_with_other_values_is_found(tmp_path: Path) -> None:
    for shift in (0, 7):
        values = np.arange(shift, shift + 100, dtype=np.float32)
        pq.write_table(pa.table({"x": values}), tmp_path / "a.parquet", compression="none", use_dictionary=False)
        if not shift:
            index_folder(tmp_path)
    with pytest.raises(FeedError, match=r"a\.parquet can't be read\. The file has changed since it was indexed"):
        list(lakefit.open_dataset(tmp_path).to_numpy("all", batch_size=8))


def test_row_groups_of_no_rows_among_others_are_passed_over(tmp_path: Path) -> None:
    for name, rows in (("a", 5), ("b", 0), ("c", 5), ("d", 0)):
        pq.write_table(pa.table({"x": np.arange(rows)}), tmp_path / f"{name}.parquet")
    index_folder(tmp_path)
    dataset = lakefit.open_dataset(tmp_path)
    for options in ({"shuffle": False}, {"lanes": 1}, {"lanes": 8}):
        batches = list(dataset.to_numpy("all", batch_size=4, **options))
        assert sorted(np.concatenate([batch["x"] for batch in batches]).tolist()) == sorted([*range(5)] * 2)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"worker": 2, "workers": 2}, "numbered 0 to 1: there is no worker 2"),
        ({"worker": -1, "workers": 2}, "there is no worker -1"),
        ({"remainder": "Drop"}, "'keep' or 'drop', not 'Drop'"),
        ({"lanes": 0}, "1 or more"),
        ({"batch_size": 0}, "1 or more"),
        ({"batch_size": "8"}, "batch_size is a whole number"),
        ({"seed": None}, "seed is a whole number"),
        ({"epoch": 1.5}, "epoch is a whole number"),
    ],
)
def test_options_that_can_not_be_meant_are_refused(folder: Path, options: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        lakefit.open_dataset(folder).to_numpy("all", **{"batch_size": 8, "columns": ["at"], **options})


def test_a_state_of_no_batch_is_refused(folder: Path) -> None:
    dataset = lakefit.open_dataset(folder)
    state = dataset.to_numpy("all", batch_size=8, columns=["at"]).state()
    for batch in (-1, 7):
        with pytest.raises(InputError, match="the epoch has 7"):
            dataset.from_state({**state, "batch": batch}, columns=["at"])


def test_times_of_spark_beyond_2262_are_read(tmp_path: Path) -> None:
    at = pa.array([0, 253402300799 * 10**6], pa.timestamp("us"))
    pq.write_table(pa.table({"at": at}), tmp_path / "a.parquet", use_deprecated_int96_timestamps=True)
    assert index_folder(tmp_path).index.columns[0].type == "timestamp[us]"
    (batch,) = lakefit.open_dataset(tmp_path).to_numpy("all", batch_size=8, shuffle=False)
    assert batch["at"].tolist() == [0, 253402300799 * 10**6]


def test_text_that_is_no_utf_8_is_named(tmp_path: Path) -> None:
    text = pa.StringArray.from_buffers(2, pa.py_buffer(np.array([0, 1, 2], np.int32)), pa.py_buffer(b"a\xff"))
    pq.write_table(pa.table({"name": text}), tmp_path / "a.parquet")
    index_folder(tmp_path)
    with pytest.raises(FeedError, match=r"a\.parquet can't be read\. Column 'name' holds text that is no UTF-8"):
        list(lakefit.open_dataset(tmp_path).to_arrow("all", batch_size=8))
