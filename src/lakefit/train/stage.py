"""`train`: fit the model on the training split, watch it on the validation split, end with its weights on disk."""

import json
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from itertools import zip_longest
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from lakefit.config import Pipeline, PipelineSource, Problem
from lakefit.config.file import Position
from lakefit.config.train import seconds_of
from lakefit.console import Console
from lakefit.dataset.disk import FULL
from lakefit.dataset.layout import CHECKPOINTS, HISTORY, TENSORBOARD, WEIGHTS
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.dataset.mirror import Mirror, mirrored
from lakefit.dataset.object_path import AnyPath, address_of, any_path
from lakefit.dataset.publish import local_file, new_file, write_json
from lakefit.errors import InputError, StoppedError
from lakefit.feed.images import named_errors
from lakefit.feed.split import SplitFeed
from lakefit.feed.tf_data import ReadAhead
from lakefit.launch.meeting import connecting, meet
from lakefit.launch.place import Place
from lakefit.launch.stop import Stop
from lakefit.train.augment import Augmentation, augmented, build_augmentation
from lakefit.train.checkpoint import Checkpoint, CheckpointFolder, described_variables
from lakefit.train.compiled import build_callbacks
from lakefit.train.devices import check_share, strategy, weighted_by_rows
from lakefit.train.distributed_fit import build_without_data, reduce_logs_here
from lakefit.train.first_weights import give_first_weights
from lakefit.train.inputs import describe
from lakefit.train.keeper import Keeper
from lakefit.train.meter import Meter
from lakefit.train.model import BuiltModel, build_model
from lakefit.train.probe import Probe
from lakefit.train.steps import Callbacks, Steps, profiled
from lakefit.train.tensorboard import Curves, flat
from lakefit.train.workers import LostError, Watch, Workers, distributed, is_lost, lost_of, shares, write_elsewhere

AHEAD = 2
"""Batches that are ready when the model asks for them."""
_WHERE = ("epoch", "batch", "worker", "workers")
PROBED = 256
"""Rows of the validation split on which gradients, predictions and units are looked at after each epoch."""


@dataclass(frozen=True, slots=True)
class TrainJob:
    """What to train on, and where its checkpoints, history, TensorBoard logs and model go.

    fingerprint: of the run, which a checkpoint must have, too.
    """

    pipeline: Pipeline
    source: PipelineSource
    manifest: Manifest
    dataset_dir: AnyPath
    run_dir: AnyPath
    fingerprint: str

    def dumps(self) -> str:
        """Return what a process elsewhere, which sees the same folders, makes the same job of."""
        source = self.source
        return json.dumps(
            {
                # A default that was not given is not given there either: some sections tell the two apart.
                "pipeline": self.pipeline.model_dump_json(by_alias=True, exclude_unset=True),
                "source": [
                    source.path,
                    source.text,
                    [[key, at.line, at.column, at.block] for key, at in source.positions.items()],
                    list(source.overridden.items()),
                ],
                "dataset_dir": address_of(self.dataset_dir),
                "run_dir": address_of(self.run_dir),
                "fingerprint": self.fingerprint,
            }
        )

    @staticmethod
    def loads(text: str) -> "TrainJob":
        """Return what `dumps` has written. Raises InputError where the dataset is not to be seen here."""
        found = json.loads(text)
        path, content, positions, overridden = found["source"]
        source = PipelineSource(
            path,
            {},
            {tuple(key): Position(line, column, block) for key, line, column, block in positions},
            content,
            {tuple(key): override for key, override in overridden},
        )
        dataset_dir = any_path(found["dataset_dir"])
        return TrainJob(
            Pipeline.model_validate_json(found["pipeline"]),
            source,
            read_manifest(dataset_dir),
            dataset_dir,
            any_path(found["run_dir"]),
            found["fingerprint"],
        )


def train(job: TrainJob, console: Console, stop: Stop, at: Place | None = None) -> str | None:
    """Train to the end, from the last checkpoint where there is one; return what went wrong beside it, or None.

    The weights are written as `model.weights.h5` in the run's folder, of which `load_trained` makes the model again,
    and the history, a list a metric, as `history.json`. at: of this process, where several train together; all of them
    call this, the chief says what happens and writes what comes of it, and none returns before the others are done.

    Raises:
        ConfigError: what the pipeline file names is none of Keras's. FeedError: an epoch was not delivered whole.
        InputError: there is a checkpoint of something else. StoppedError: as `stop` asked, with a checkpoint.
    """
    watch = Watch(seconds_of(job.pipeline.train.step_timeout))
    with ExitStack() as stack:
        if at is not None:
            stack.enter_context(watch.watching(console))
        if at is None or not at.worker:
            logs = stack.enter_context(mirrored(job.run_dir / TENSORBOARD))
        else:
            logs = Mirror(Path(stack.enter_context(TemporaryDirectory(prefix="lakefit-worker-"))), None)
        try:
            return _train(job, console, stop, logs, at, watch)
        except tf.errors.OpError as error:
            if at is None or at.workers == 1 or not is_lost(error):
                raise
            raise LostError(
                f"worker {at.worker} of {at.workers} has lost {lost_of(str(error), at)}. Start all of them again: they "
                "go on from the last checkpoint."
            ) from None


def _train(job: TrainJob, console: Console, stop: Stop, logs: Mirror, at: Place | None, watch: Watch) -> str | None:
    section = job.pipeline.train
    epochs = section.fit.epochs
    keras.utils.clear_session()
    keras.utils.set_random_seed(section.seed)
    if section.deterministic:
        tf.config.experimental.enable_op_determinism()
    with ExitStack() as stack:
        if at is not None and at.workers > 1:
            about = {"run": job.fingerprint, "dataset": job.manifest.fingerprint, **_versions()}
            meet(at, about, stop, watch.timeout_s, lambda text: console.event("waiting", text))
            stack.enter_context(connecting(watch.timeout_s))
        devices = strategy(section.devices, job.source, section.workers)
    workers = Workers(devices, at.worker, at.workers) if at is not None else Workers(devices)
    if workers.count > 1:
        reduce_logs_here()
    with devices.scope():
        built = build_model(describe(job.pipeline, job.manifest), section, job.source)
        model = built.model
        model.optimizer.build(model.trainable_variables)
        callbacks = build_callbacks(section, built.logged, job.source)
    if not workers.is_chief:
        write_elsewhere(callbacks, logs.local)
    augmentation = build_augmentation(built, section, job.source, workers.worker)
    training, validation = _feeds(job, workers)
    check_share(section, devices.num_replicas_in_sync, training.rows, job.source)
    profile_of = section.tensorboard.profile
    if profile_of is not None and profile_of[0] > training.batches:
        message = f"an epoch has {training.batches:,} steps, so none from {profile_of[0]:,} on can be profiled"
        raise job.source.error(Problem(("train", "tensorboard", "profile"), message))

    def no_checkpoint(error: Exception) -> None:
        text = f"no checkpoint could be written, and training goes on without: {error}"
        console.event("checkpoint_failed", text, reason=str(error))

    # A checkpoint says how much of the curves goes with it.
    folder = CheckpointFolder(job.run_dir / CHECKPOINTS, section.checkpoint.keep, no_checkpoint, before=logs.push)
    about = about_run(job, training, devices.num_replicas_in_sync)
    found = None
    if workers.is_chief:
        found = folder.newest(
            lambda path: console.event("damaged", f"{path}: is damaged (its checksum differs): the one before is taken")
        )
    chosen = workers.told(found.path.name if found is not None else "")
    if chosen and found is None:
        found = folder.named(chosen)
    validation_batches = batches_for(built, validation, devices, workers)
    with devices.scope():
        # Metrics have variables, too, which a checkpoint holds.
        build_without_data(model, validation_batches)
    if found is None:
        if section.images.normalize != "none":
            text = f"{section.images.normalize}: what normalizes images is learned from the training split's"
            console.event("normalize", text, images=training.rows)
        unknown = give_first_weights(built, section, job.source, job.dataset_dir, job.manifest)
        if section.warm_start is not None:
            text = f"the weights of {section.warm_start} are what this run begins with"
            text += f"; {unknown:,} categories are new" if unknown else ""
            console.event("warm_start", text, artifact=section.warm_start, new_categories=unknown)
    if found is not None:
        check_about(found, {**about, "variables": described_variables(model)}, section.checkpoint.resume, console)
        training.epoch, training.first_batch = found.epoch, found.batch
        if found.meta["stopped"]:
            training.epoch, training.first_batch = epochs, 0
        text = f"train goes on after epoch {found.epoch}" + (f" and {found.batch:,} batches" if found.batch else "")
        console.event("resume", text, epoch=found.epoch, batch=found.batch, checkpoint=found.path.name)
    first_epoch = training.epoch
    if training.first_batch == training.batches:
        # All but the validation of an epoch.
        training.epoch, training.first_batch = training.epoch + 1, 0
    probed = SplitFeed(job.dataset_dir, job.manifest, "validation", batch_size=PROBED, shuffle=False)
    with named_errors(job.dataset_dir, job.manifest, probed):
        probe = Probe(built, probed)
    curves = Curves(
        logs.local,
        probe,
        histograms=section.tensorboard.histograms,
        settings=flat(section.model_dump(mode="json", include={"compile", "fit", "model", "seed", "dtype_policy"})),
        failed=lambda error: console.event(
            "tensorboard_failed", f"TensorBoard's curves could not be written, and training goes on: {error}"
        ),
    )
    curves.go_on_from(found.meta["curves"] if found is not None else {})
    keeper = Keeper(
        training=training,
        validation=validation,
        callbacks=callbacks,
        curves=curves,
        folder=folder,
        settings=section.checkpoint,
        about=about,
        found=found,
        epochs=epochs,
        stop=stop,
        console=console,
        workers=workers,
        watch=watch,
    )
    keeper.steps = steps = Steps(model, training.batches)
    steps.done = found.batch if found is not None else 0
    curves.meter = keeper.meter = meter = Meter(model, training, steps)
    batches = batches_for(built, training, devices, workers, epochs=epochs - training.epoch, augmentation=augmentation)
    all_callbacks = Callbacks(
        [*callbacks, keeper.best, curves, keeper],
        model,
        steps,
        epochs=epochs,
        after_steps=keeper.after_steps,
        before_validation=keeper.before_validation,
        after_validation_steps=keeper.after_validation_steps,
    )
    profile = profiled(all_callbacks, steps, profile_of, logs.local)
    with console.progress("train", training.batches * epochs, lambda: _progress(keeper, epochs)):
        try:
            named = named_errors(job.dataset_dir, job.manifest, training, validation)
            with named, stop.deferred(), meter.looking(), profile:
                model.fit(
                    distributed(batches, devices, workers),
                    validation_data=distributed(validation_batches, devices, workers),
                    epochs=epochs,
                    initial_epoch=first_epoch,
                    # With the steps given, Keras makes one iterator for training, and one an epoch for validation.
                    steps_per_epoch=training.batches,
                    validation_steps=validation.batches,
                    callbacks=all_callbacks,
                    shuffle=False,  # the feed shuffles; Keras would warn that it can not
                    verbose=0,
                )
        finally:
            training.close()
            folder.flush()
    if workers.any(stop.asked):
        raise StoppedError("Stopped after the last epoch, as asked; a checkpoint holds all of it.")
    if workers.is_chief:
        _write(job, model, keeper.history, logs, curves)
    # Nobody leaves before the chief has written it.
    workers.any(False)
    if folder.failed is None:
        return None
    full = getattr(folder.failed, "errno", None) in FULL
    return f"{folder.folder}: a checkpoint could not be written: {'the disk is full' if full else folder.failed}"


def _write(
    job: TrainJob, model: keras.Model, history: Mapping[str, Sequence[float]], logs: Mirror, curves: Curves
) -> None:
    try:
        logs.push()
    except OSError as error:
        curves.say_failed(error)
    write_json(job.run_dir / HISTORY, history)
    _save_weights(model, job.run_dir / WEIGHTS)


def _feeds(job: TrainJob, workers: Workers) -> tuple[SplitFeed, SplitFeed]:
    """Return the batches of the training and of the validation split."""
    section = job.pipeline.train
    size, in_memory_bytes = section.fit.batch_size, section.feed.in_memory_mb * 1_000_000
    training = SplitFeed(
        job.dataset_dir,
        job.manifest,
        "train",
        batch_size=size,
        seed=section.seed,
        lanes=section.feed.lanes,
        remainder=section.feed.remainder,
        in_memory_bytes=in_memory_bytes,
        worker=workers.worker,
        workers=workers.count,
    )
    if not training.batches:
        raise job.source.error(
            Problem(
                ("train", "feed", "remainder"),
                f"drop: the training split has {training.rows:,} rows, fewer than a batch of {size:,}, so no "
                "batch would be left; keep the remainder, or lower train.fit.batch_size",
            )
        )
    validation = SplitFeed(
        job.dataset_dir,
        job.manifest,
        "validation",
        batch_size=size,
        shuffle=False,
        in_memory_bytes=in_memory_bytes,
        worker=workers.worker,
        workers=workers.count,
    )
    return training, validation


def about_run(job: TrainJob, training: SplitFeed, replicas: int) -> dict[str, Any]:
    """Return what a checkpoint says of its run, so that no other goes on from it."""
    on_workers = f", on {job.pipeline.train.workers} workers" if job.pipeline.train.workers > 1 else ""
    return {
        "run": job.fingerprint,
        "dataset": job.manifest.fingerprint,
        # The batches are those of this order; epoch and batch stand in the checkpoint itself.
        "feed": {key: value for key, value in training.state().items() if key not in _WHERE},
        "devices": f"{replicas} of {tf.config.list_logical_devices()[-1].device_type}{on_workers}",
        "versions": _versions(),
    }


def _versions() -> dict[str, str]:
    return {"keras": keras.__version__, "tensorflow": tf.__version__, "numpy": np.__version__}


def check_about(found: Checkpoint, due: Mapping[str, Any], resume: str, console: Console) -> None:
    """Raise InputError where a checkpoint is of another run, dataset or model; other devices or versions are only said,
    but where the resume must be exact."""
    for name in ("run", "dataset", "feed", "variables", "devices", "versions"):
        old, new = found.meta[name], due[name]
        if old == new:
            continue
        if name == "variables":
            changed = next(((a, b) for a, b in zip_longest(old, new) if a != b), (None, None))
            old, new = ("no more variables" if side is None else _variable(side) for side in changed)
        what = f"{found.path}: {name} of this checkpoint: {old}; now: {new}"
        if name in ("devices", "versions") and resume != "exact":
            console.event("resume", f"{what}. Training goes on, and the weights will not be the same to the bit")
            continue
        raise InputError(f"{what}. Begin anew with --fresh, or restore what it was.")


def _variable(described: Sequence[Any]) -> str:
    path, dtype, *shape = described
    return f"{path} {dtype} {tuple(shape)}"


def batches_for(
    built: BuiltModel,
    feed: SplitFeed,
    devices: tf.distribute.Strategy,
    workers: Workers,
    epochs: int = 1,
    augmentation: Augmentation | None = None,
) -> tf.data.Dataset:
    """Return a feed's batches of so many epochs as the model takes them, some ahead of it, on its device where that is
    one GPU. Of several workers they are this one's share of each, in pieces for its devices."""
    data = feed.to_tf(epochs=epochs)
    if augmentation is not None:
        data = augmented(data, feed, built, augmentation)
    elif not built.takes_batches_as_they_are:
        data = data.map(built.batch)
    if workers.count > 1:
        return shares(data, feed, workers).prefetch(AHEAD)
    if devices.num_replicas_in_sync > 1:
        # The strategy fetches ahead itself.
        return weighted_by_rows(data, devices.num_replicas_in_sync)
    gpus = tf.config.get_visible_devices("GPU")
    ahead = tf.data.experimental.prefetch_to_device("/GPU:0", AHEAD) if gpus else lambda data: data.prefetch(AHEAD)
    return ReadAhead(data.apply(ahead))


def load_trained(job: TrainJob) -> keras.Model:
    """Return the model that `train` has made, of the dataset's arrays by name: it gives probabilities, or a
    regression's prediction as the dataset has labels; of several labels, a mapping by their names.

    It is built anew, outside of any strategy, for a model of the user's own code can't always be saved.

    Raises:
        ConfigError: as `build_model`; the user's code has changed since.
    """
    built = build_model(describe(job.pipeline, job.manifest), job.pipeline.train, job.source)
    # Else the optimizer would be looked for in the file, and belong to what is exported.
    built.model.optimizer, built.model.compiled = None, False
    with local_file(job.run_dir / WEIGHTS) as weights:
        built.model.load_weights(weights)
    return built.predictor()


def _save_weights(model: keras.Model, path: AnyPath) -> None:
    model.optimizer = None  # its state is two or three times the weights, and of no use any more
    with new_file(path) as temporary:
        model.save_weights(temporary)


def _progress(keeper: Keeper, epochs: int) -> tuple[int, str, dict[str, Any]]:
    """Return the steps done in all epochs together, and how it goes, in words and as fields.

    Asked for by another thread: a callback at each batch would make Keras wait for it, and for the loss's value.
    """
    steps = keeper.steps
    done = keeper.epoch * steps.steps + steps.done
    fields: dict[str, Any] = {"epoch": min(keeper.epoch + 1, epochs), "step": steps.done}
    text = f"epoch {fields['epoch']}/{epochs}"
    for name, value in keeper.logs().items():
        fields[name] = value
        text += f"  {name} {value:.4f}"
    shares = keeper.meter.now()
    if shares is not None and shares.steps:
        rows_per_s = shares.steps * keeper.batch_size / shares.seconds
        fields |= {"rows_per_s": round(rows_per_s), "input": round(shares.input, 3), "blame": shares.blame()}
        text += f"  {rows_per_s:,.0f} rows/s"
    return done, text, fields
