"""Whatever loses or doubles rows between the files and Keras is found: in pool, permutation, batching or TensorFlow."""

import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from feeds import manifest_of
from lakefit.dataset.features import Features, NumericFeature
from lakefit.dataset.manifest import DataFile, Manifest
from lakefit.errors import FeedError
from lakefit.feed import petastorm_engine
from lakefit.feed import split as split_module
from lakefit.feed.split import Batch, SplitFeed

GROUP = 10
GROUPS = 6
ROWS = GROUP * GROUPS


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Manifest]:
    """Two files of three row groups of equal size, so that one may pass for another."""
    folder = tmp_path_factory.mktemp("dataset")
    (folder / "train").mkdir()
    files = []
    for number in range(2):
        at = np.arange(ROWS // 2) + (number << 40)
        table = pa.table({"x": at.astype(np.float32), "label": (at % 2).astype(np.float32), "_position": at})
        path = f"train/part-{number:05}.parquet"
        pq.write_table(table, folder / path, row_group_size=GROUP)
        groups = (GROUP,) * (GROUPS // 2)
        files.append(DataFile(path=path, row_groups=groups, bytes=0, sha256="", first_position=number << 40))
    return folder, manifest_of(files, Features(numeric=(NumericFeature(name="x", fill=0.0),), categorical=()))


def through_numpy(feed: SplitFeed) -> int:
    return sum(len(batch["_position"]) for batch in feed)


def through_tensorflow(feed: SplitFeed) -> int:
    import tensorflow as tf

    try:
        rows = sum(len(labels) for _, labels in feed.to_tf())
    except tf.errors.OpError:
        assert feed.error is not None
        raise feed.error from None
    feed.check()
    return rows


@pytest.mark.parametrize("way", [through_numpy, through_tensorflow])
def test_whole_epochs_are_proven(dataset: tuple[Path, Manifest], way: Callable[[SplitFeed], int]) -> None:
    feed = SplitFeed(*dataset, "train", batch_size=7)
    for epoch in range(3):
        feed.epoch = epoch
        assert way(feed) == ROWS
        feed.check()


# Devices are set once in a process.
TWO_DEVICES = """
import sys
from pathlib import Path
import keras
import tensorflow as tf
from lakefit.dataset.manifest import Manifest
from lakefit.feed.split import SplitFeed

(cpu,) = tf.config.list_physical_devices("CPU")
tf.config.set_logical_device_configuration(cpu, [tf.config.LogicalDeviceConfiguration()] * 2)
with tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"]).scope():
    model = keras.Sequential([keras.layers.Input((1,)), keras.layers.Dense(1)])
    model.compile("sgd", "mse")
folder = Path(sys.argv[1])
feed = SplitFeed(folder, Manifest.model_validate_json((folder / "m.json").read_text()), "train", batch_size=6)
for epoch in range(2):
    feed.epoch = epoch
    data = feed.to_tf().map(lambda inputs, label: (inputs["numeric"], label))
    model.fit(data, epochs=1, verbose=0, shuffle=False)
    feed.check()
print("proven")
"""


def test_keras_on_two_devices_gets_what_is_proven(dataset: tuple[Path, Manifest]) -> None:
    folder, manifest = dataset
    (folder / "m.json").write_text(manifest.model_dump_json(by_alias=True))

    run = subprocess.run([sys.executable, "-c", TWO_DEVICES, str(folder)], capture_output=True, text=True)

    assert run.stdout.splitlines()[-1:] == ["proven"], run.stderr[-3000:]


def of_pool(change: Callable[[int], list[int]]) -> Callable[[pytest.MonkeyPatch], None]:
    """A worker of the pool reads the row groups of other tasks, none or several, for its own."""

    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        planned: list[Any] = []
        init, process = petastorm_engine.PlannedReader.__init__, petastorm_engine._Worker.process

        def remembering(reader: Any, dataset_dir: Path, groups: Any, *arguments: Any) -> None:
            planned[:] = groups
            init(reader, dataset_dir, groups, *arguments)

        def other(worker: Any, task: Any) -> None:
            for place in change(task.sequence):
                # All that the worker is told, and says, is as planned.
                told = replace(task.group, file=planned[place].file, index=planned[place].index)
                process(worker, replace(task, group=told))

        monkeypatch.setattr(petastorm_engine.PlannedReader, "__init__", remembering)
        monkeypatch.setattr(petastorm_engine._Worker, "process", other)

    return apply


def of_permutation(change: Callable[[list[int]], list[int]]) -> Callable[[pytest.MonkeyPatch], None]:
    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        order = split_module.row_order
        once = iter([True])

        def other(group: Any, *seeds: int) -> Any:
            rows = order(group, *seeds).tolist()
            return np.array(change(rows) if next(once, False) else rows)

        monkeypatch.setattr(split_module, "row_order", other)

    return apply


def of_batching(change: Callable[[list[Batch]], list[Batch]]) -> Callable[[pytest.MonkeyPatch], None]:
    def apply(monkeypatch: pytest.MonkeyPatch) -> None:
        cut = split_module.cut
        monkeypatch.setattr(split_module, "cut", lambda rows, sizes: change(cut(rows, sizes)))

    return apply


def one_for_another(batches: list[Batch]) -> list[Batch]:
    """A row of the second batch stands in the place of one of the first."""
    first, second = batches[:2]
    taken = {name: values.copy() for name, values in first.items()}
    for name, values in taken.items():
        values[0] = second[name][0]
    return [taken, *batches[1:]]


FAULTS = {
    "the pool loses a row group": of_pool(lambda n: [] if n == 2 else [n]),
    "the pool doubles a row group": of_pool(lambda n: [n, n] if n == 2 else [n]),
    "the pool reads a row group for another": of_pool(lambda n: [0] if n == 2 else [n]),
    "the permutation loses a row": of_permutation(lambda rows: rows[1:]),
    "the permutation doubles a row while another is missing": of_permutation(lambda rows: [*rows[1:], rows[1]]),
    "the batching loses a batch": of_batching(lambda batches: [*batches[:2], *batches[3:]]),
    "the batching loses the last batch": of_batching(lambda batches: batches[:-1]),
    "the batching doubles a batch": of_batching(lambda batches: [*batches[:2], batches[1], *batches[2:]]),
    "the batching doubles a batch while another is missing": of_batching(
        lambda batches: [*batches[:2], batches[1], *batches[3:]]
    ),
    "the batching doubles a row while another is missing": of_batching(one_for_another),
}


@pytest.mark.parametrize(
    ("fault", "way"),
    [
        *((fault, through_numpy) for fault in FAULTS),
        # TensorFlow cuts the batches itself: test_rows_lost_inside_tensorflow_are_found.
        *((fault, through_tensorflow) for fault in FAULTS if "batching" not in fault),
    ],
)
def test_every_fault_fails_the_epoch_and_names_row_groups(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, fault: str, way: Callable[[SplitFeed], int]
) -> None:
    FAULTS[fault](monkeypatch)
    feed = SplitFeed(*dataset, "train", batch_size=7)

    with pytest.raises(FeedError, match=r"row group \d"):
        way(feed)
    with pytest.raises((FeedError, RuntimeError)):
        feed.check()


def other_batch(number: Any, values: Any) -> Any:
    """The third batch is taken for the second once more."""
    return number - of_the_third(number), values


def other_rows(number: Any, values: Any) -> Any:
    return number, values | {"_position": values["_position"] + of_the_third(number)}


def of_the_third(number: Any) -> Any:
    import tensorflow as tf

    return tf.cast(number == 2, tf.int64)


@pytest.mark.parametrize(
    ("step", "says"),
    [
        (other_batch, r"batch 1, from train/part-0000\d\.parquet row group \d on; batch 2, from "),
        (other_rows, r"batch 2, from train/part-0000\d\.parquet row group \d on\."),
    ],
)
def test_rows_lost_inside_tensorflow_are_found(
    dataset: tuple[Path, Manifest], monkeypatch: pytest.MonkeyPatch, step: Any, says: str
) -> None:
    """What comes out of tf.data's last step is compared: here an earlier one goes wrong."""
    import tensorflow as tf

    enumerated = tf.data.Dataset.enumerate
    monkeypatch.setattr(tf.data.Dataset, "enumerate", lambda dataset: enumerated(dataset).map(step))

    with pytest.raises(FeedError, match=rf"TensorFlow's pipeline did not hand out once what it was given: {says}"):
        through_tensorflow(SplitFeed(*dataset, "train", batch_size=7))


def test_an_iteration_that_is_left_early_does_not_count_for_the_next(dataset: tuple[Path, Manifest]) -> None:
    feed = SplitFeed(*dataset, "train", batch_size=7)
    data = feed.to_tf()
    abandoned = iter(data)
    next(abandoned)

    assert sum(len(labels) for _, labels in data) == ROWS
    next(abandoned)
    feed.check()
