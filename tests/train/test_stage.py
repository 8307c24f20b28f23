"""A whole training: what must end it, and what of its section reaches the feed and TensorFlow."""

import json
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest

from fitting import fit, section_of, weight_arrays, write_dataset
from lakefit.config import PipelineSource
from lakefit.config.pipeline import Pipeline
from lakefit.dataset.manifest import read_manifest
from lakefit.errors import FeedError, StoppedError
from lakefit.feed.split import SplitFeed
from lakefit.train import keeper
from lakefit.train.checkpoint import CheckpointFolder
from lakefit.train.probe import Probe
from lakefit.train.stage import TrainJob
from lakefit.train.steps import Steps
from models import SIGMOID

# Only the order of the rows can make a difference.
ZEROS = {"sequential": [{"Dense": {**SIGMOID["Dense"], "kernel_initializer": "zeros"}}]}
ONE_EPOCH = {"epochs": 1, "batch_size": 32}


@pytest.fixture(autouse=True)
def _here(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(Path(__file__).parent)


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_batch_that_tensorflow_loses_ends_the_training(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    import tensorflow as tf

    enumerated, to_tf = tf.data.Dataset.enumerate, SplitFeed.to_tf

    def doubled(number: Any, values: Any) -> Any:
        """The third batch is taken for the second once more. Nobody asks for one after an epoch's last."""
        return number - tf.cast(number == 2, tf.int64), values

    def losing(self: SplitFeed, **options: Any) -> Any:
        with monkeypatch.context() as patch:
            if self.split == split:
                patch.setattr(tf.data.Dataset, "enumerate", lambda data: enumerated(data).map(doubled))
            return to_tf(self, **options)

    monkeypatch.setattr(SplitFeed, "to_tf", losing)
    with pytest.raises(FeedError, match=rf"^Epoch 0 of the {split} split: .* hand out once what it was given: batch 1"):
        fit(dataset, tmp_path, section_of(fit=ONE_EPOCH))


@pytest.mark.parametrize("split", ["train", "validation"])
def test_a_file_that_can_not_be_read_ends_the_training_by_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, split: str
) -> None:
    # TensorFlow, through which the error goes, would make text of it.
    dataset = write_dataset(tmp_path / "dataset")
    begin = Probe.__init__

    def then_damaged(self: Probe, *arguments: Any) -> None:
        # It reads the validation without TensorFlow, and before anything else is read.
        begin(self, *arguments)
        file = dataset / split / "part-00000.parquet"
        file.write_bytes(file.read_bytes()[:1000])

    monkeypatch.setattr(Probe, "__init__", then_damaged)
    with pytest.raises(FeedError, match=rf"Row group \d of .*{split}/part-00000\.parquet can't be read"):
        fit(dataset, tmp_path / "run", section_of(fit=ONE_EPOCH))


@pytest.mark.parametrize(
    ("instant", "said"),
    [
        ("epoch_end", "Stopped at epoch 1, step 11 of 11, as asked; a checkpoint holds all of it."),
        ("train_end", "Stopped after the last epoch, as asked; a checkpoint holds all of it."),
    ],
    ids=["in the last epoch", "after it"],
)
def test_a_training_that_is_asked_to_stop_at_its_end_stops(
    dataset: Path, tmp_path: Path, instant: str, said: str
) -> None:
    stopped = section_of(callbacks=[{"own_models:Terminated": {"instant": instant}}], fit=ONE_EPOCH)
    with pytest.raises(StoppedError, match=said):
        fit(dataset, tmp_path, stopped)
    assert len(list((tmp_path / "checkpoints").glob("epoch-00001-batch-000000000-*.npz"))) == 1
    assert not (tmp_path / "model.weights.h5").exists()


@pytest.mark.parametrize("changes", [{}, {"deterministic": False}], ids=["unless said", "deterministic: false"])
def test_operations_are_deterministic_unless_it_is_said(dataset: Path, tmp_path: Path, changes: dict[str, Any]) -> None:
    from tensorflow.python.framework.config import disable_op_determinism, is_op_determinism_enabled

    disable_op_determinism()
    fit(dataset, tmp_path, section_of(fit=ONE_EPOCH, **changes))
    assert is_op_determinism_enabled() == (not changes)


def test_rows_of_no_weight_change_nothing(tmp_path: Path) -> None:
    dataset, turned = (write_dataset(tmp_path / name, weighted=True) for name in ("dataset", "turned"))
    plain = write_dataset(tmp_path / "plain")
    for file in turned.glob("*/*.parquet"):
        rows = pq.read_table(file)
        label = pc.if_else(pc.equal(rows["weight"], 0), pc.subtract(1, rows["label"]), rows["label"])
        place = rows.column_names.index("label")
        pq.write_table(rows.set_column(place, "label", label.cast(pa.float32())), file, row_group_size=64)
    found = {}
    for folder in (dataset, turned, plain):
        run_dir = tmp_path / f"run-{folder.name}"
        fit(folder, run_dir, section_of())
        arrays = weight_arrays(run_dir / "model.weights.h5").values()
        found[folder.name] = np.concatenate([array.ravel() for array in arrays])
        found[f"{folder.name}, validation"] = json.loads((run_dir / "history.json").read_text())["val_loss"]
    for of in ("", ", validation"):
        assert np.array_equal(found[f"turned{of}"], found[f"dataset{of}"])
        assert not np.allclose(found[f"plain{of}"], found[f"dataset{of}"])


def test_another_seed_is_another_order_of_the_rows(dataset: Path, tmp_path: Path) -> None:
    found = []
    for seed in (0, 1):
        run_dir = tmp_path / str(seed)
        fit(dataset, run_dir, section_of(model=ZEROS, seed=seed, fit=ONE_EPOCH))
        found.append(np.concatenate([array.ravel() for array in weight_arrays(run_dir / "model.weights.h5").values()]))
    assert not np.array_equal(*found)


@pytest.mark.parametrize(("every", "seconds"), [("4s", 1), ("4min", 60), ("4h", 3600), ("4 steps", 0)])
def test_a_checkpoint_is_due_after_so_much_time_or_so_many_steps(
    dataset: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, every: str, seconds: int
) -> None:
    """seconds: that a step takes."""
    step, save = Steps.__call__, CheckpointFolder.save
    now, saved = 0, []

    def long(self: Steps, iterator: Any) -> Any:
        nonlocal now
        now += seconds
        return step(self, iterator)

    def noted(self: CheckpointFolder, found: Any, best_epoch: int | None = None) -> None:
        saved.append((found.epoch, found.batch))
        save(self, found, best_epoch)

    monkeypatch.setattr(Steps, "__call__", long)
    monkeypatch.setattr(CheckpointFolder, "save", noted)
    monkeypatch.setattr(keeper, "time", SimpleNamespace(**{**vars(time), "monotonic": lambda: now}))
    fit(dataset, tmp_path, section_of(fit={"epochs": 2, "batch_size": 32}, checkpoint={"every": every}))
    assert saved == [(0, 4), (0, 8), (1, 0), (1, 4), (1, 8), (2, 0)]


@pytest.mark.parametrize(
    "split",
    [
        {},
        {"train": 0.5, "validation": 0.25, "test": 0.25},
        {"column": "part"},
        {"folds": 4},
        {"time": {"column": "day", "validation": "2020-02-01", "test": "2020-03-01"}},
    ],
)
def test_a_job_is_the_same_in_another_process(dataset: Path, tmp_path: Path, split: dict[str, Any]) -> None:
    pipeline = {
        "name": "job",
        "source": {"tables": {"t": {"path": "-", "format": "parquet"}}, "rows": "t"},
        "split": split,
        "features": {"numeric": {"columns": ["x"]}},
        "label": {"expression": "answer > 0"},
        "output": {"path": "-"},
        "train": section_of(),
    }
    given = Pipeline.model_validate_json(json.dumps(pipeline), strict=True)
    source = PipelineSource("p.yaml", {}, {}, "")
    job = TrainJob(given, source, read_manifest(dataset), dataset, tmp_path, "1")
    assert TrainJob.loads(job.dumps()) == job
