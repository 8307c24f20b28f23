"""`lakefit tune --lr-range` and `--batch-range`: `python -m lakefit.tune.ranges ANSWER`, in a process of its own.

Standard input holds a `Question` as JSON, and the `Answer` goes into a file, for models print as well.
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from lakefit.errors import LakefitError
from lakefit.launch.memory import memory_peak
from lakefit.launch.quiet import import_tensorflow_quietly
from lakefit.launch.threads import budget_threads

if TYPE_CHECKING:
    import keras

    from lakefit.train.stage import TrainJob

LOWEST, HIGHEST = 1e-7, 10.0
STEPS = 300
_AROUND = 10
_LOST = 4.0
"""So many times the least loss: from there on it only grows."""
_WARM_UP, _SECONDS = 5, 3.0


class Question(TypedDict):
    """job: as `TrainJob.dumps` writes it. what: the learning rate's range, or the speed with the job's batch size."""

    job: str
    what: Literal["rates", "speed"]


class Answer(TypedDict, total=False):
    """problem: what is wrong. rates, losses: of each step. rows_per_s, memory_bytes: of training, the most it took."""

    problem: str
    rates: list[float]
    losses: list[float]
    rows_per_s: float
    memory_bytes: int


def answer(question: Question) -> Answer:
    """Build the job's model on one device and train it for a while; what it has learned is thrown away."""
    from lakefit.train.stage import TrainJob

    try:
        model, batches = _begun(TrainJob.loads(question["job"]))
        return _rates(model, batches) if question["what"] == "rates" else _speed(model, batches)
    except LakefitError as error:
        return {"problem": str(error)}


def _begun(job: "TrainJob") -> "tuple[keras.Model, Iterator[Any]]":
    """Return the job's model as it begins, and its batches without an end."""
    import keras
    import tensorflow as tf

    from lakefit.feed.split import SplitFeed
    from lakefit.train.augment import build_augmentation
    from lakefit.train.first_weights import give_first_weights
    from lakefit.train.inputs import describe
    from lakefit.train.model import build_model
    from lakefit.train.stage import batches_for
    from lakefit.train.workers import Workers

    section = job.pipeline.train
    keras.utils.set_random_seed(section.seed)
    strategy = tf.distribute.get_strategy()
    built = build_model(describe(job.pipeline, job.manifest), section, job.source)
    augmentation = build_augmentation(built, section, job.source)
    give_first_weights(built, section, job.source, job.dataset_dir, job.manifest)
    feed = SplitFeed(
        job.dataset_dir, job.manifest, "train", batch_size=section.fit.batch_size, seed=section.seed,
        lanes=section.feed.lanes, in_memory_bytes=section.feed.in_memory_mb * 1_000_000,
    )  # fmt: skip
    epochs = 1 + (STEPS + 10_000) // max(1, feed.batches)
    batches = batches_for(built, feed, strategy, Workers(strategy), epochs=epochs, augmentation=augmentation)
    return built.model, iter(batches)


def _rates(model: "keras.Model", batches: Iterator[Any]) -> Answer:
    """Train with rates that grow by the same factor each step (L. N. Smith, 2017, arXiv:1506.01186), until the loss is
    lost."""
    rates: list[float] = []
    losses: list[float] = []
    least = math.inf
    for step in range(STEPS):
        rate = LOWEST * (HIGHEST / LOWEST) ** (step / (STEPS - 1))
        model.optimizer.learning_rate = rate
        model.reset_metrics()
        loss = float(model.train_on_batch(*next(batches), return_dict=True)["loss"])
        if not math.isfinite(loss):
            break
        rates.append(rate)
        losses.append(loss)
        now = sum(losses[-_AROUND:]) / len(losses[-_AROUND:])
        least = min(least, now)
        if step > STEPS // 10 and now > _LOST * max(least, 1e-12):
            break
    return {"rates": rates, "losses": losses}


def _speed(model: "keras.Model", batches: Iterator[Any]) -> Answer:
    rows, began = 0, time.monotonic()
    for step, batch in enumerate(batches):
        model.train_on_batch(*batch)
        if step == _WARM_UP:
            rows, began = 0, time.monotonic()
        else:
            rows += _rows(batch)
        if step > _WARM_UP and time.monotonic() - began > _SECONDS:
            break
    seconds = time.monotonic() - began
    return {"rows_per_s": rows / seconds, "memory_bytes": memory_peak()}


def _rows(batch: Sequence[Any]) -> int:
    import tensorflow as tf

    return int(tf.nest.flatten(batch[1])[0].shape[0])


def smoothed(losses: Sequence[float]) -> list[float]:
    """Return the mean of the losses about each: of those before alone it would lag behind."""
    around = [losses[max(0, step - _AROUND) : step + _AROUND + 1] for step in range(len(losses))]
    return [sum(some) / len(some) for some in around]


def suggested(rates: Sequence[float], losses: Sequence[float]) -> float | None:
    """Return the rate at which the smoothed loss falls fastest before it is least, by its logarithm; None where it does
    not fall."""
    means = smoothed(losses)
    if len(means) < 10:
        return None
    least = min(range(len(means)), key=means.__getitem__)
    falls = {step: means[step - 1] - means[step + 1] for step in range(1, least)}
    if not falls or max(falls.values()) <= 0:
        return None
    return rates[max(falls, key=falls.__getitem__)]


if __name__ == "__main__":
    import_tensorflow_quietly()
    budget_threads()
    Path(sys.argv[1]).write_text(json.dumps(answer(json.load(sys.stdin))), encoding="utf-8")
