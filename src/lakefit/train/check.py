"""Builds the model of a pipeline file to see whether it can be built: `python -m lakefit.train.check ANSWER`.

In a process of its own, so that neither TensorFlow nor the user's code is in the one that starts Spark. Standard input
holds a `Question` as JSON, and the `Answer` goes into a file, for the code may print what it likes.
"""

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, TypedDict

from lakefit.config import ConfigError, PipelineSource, Problem, load_pipeline, validate_pipeline
from lakefit.config.file import with_values
from lakefit.config.train import Train
from lakefit.config.tune import Tune
from lakefit.dataset.manifest import read_manifest
from lakefit.dataset.object_path import any_path
from lakefit.errors import LakefitError
from lakefit.launch.quiet import import_tensorflow_quietly

if TYPE_CHECKING:
    from lakefit.train.inputs import DatasetDescription
    from lakefit.train.model import BuiltModel


class Question(TypedDict):
    """Which model to build, and for which dataset (None: as far as the pipeline file tells).

    search: with each value that `tune` searches as well, the ends of ranges, and its objective is looked for.
    """

    path: str
    overrides: list[str]
    dataset: str | None
    search: bool


class Answer(TypedDict):
    """problem: what is wrong, None where nothing is. put_off: what the model asks for that only preparation learns."""

    problem: str | None
    put_off: str | None


def check_model(question: Question) -> Answer:
    """Build the model and its callbacks and look for the devices; return what is wrong."""
    import_tensorflow_quietly()
    from lakefit.train.application import load_application
    from lakefit.train.devices import check_share, strategy
    from lakefit.train.inputs import DatasetDescription, NotLearnedError, describe
    from lakefit.train.unlearned import unlearned_features, unlearned_labels
    from lakefit.train.warm_start import artifact_description

    pipeline, source = load_pipeline(question["path"], tuple(question["overrides"]))
    if question["dataset"] is not None:
        data = describe(pipeline, read_manifest(question["dataset"]))
    else:
        features, labels = unlearned_features(pipeline), unlearned_labels(pipeline)
        data = DatasetDescription(
            features, labels, pipeline.features.embeddings, learned=False, images=pipeline.train.images
        )
    try:
        # Of several workers each has at least one device, on a machine that is not this one.
        several = pipeline.train.workers
        replicas = several if several > 1 else strategy(pipeline.train.devices, source).num_replicas_in_sync
        check_share(pipeline.train, replicas, None, source)
        built = _built(data, pipeline.train, source)
        load_application(built.model, pipeline.train, source)
        if pipeline.train.warm_start is not None:
            artifact_description(any_path(pipeline.train.warm_start), data, source)
        if question["search"] and pipeline.tune is not None:
            _try_search(pipeline.tune, built.logged, data, source)
    except NotLearnedError as error:
        return Answer(problem=None, put_off=str(error))
    except LakefitError as error:
        return Answer(problem=str(error), put_off=None)
    return Answer(problem=None, put_off=None)


def _built(data: "DatasetDescription", train: Train, source: PipelineSource) -> "BuiltModel":
    """Build all that a training builds of its section; raise ConfigError."""
    from lakefit.train.augment import build_augmentation
    from lakefit.train.compiled import build_callbacks
    from lakefit.train.model import build_model

    built = build_model(data, train, source)
    build_callbacks(train, built.logged, source)
    build_augmentation(built, train, source)
    return built


def _try_search(tune: Tune, logged: Sequence[str] | None, data: "DatasetDescription", source: PipelineSource) -> None:
    """Build the model once with each value of each key, all others as the file has them; raise ConfigError."""
    if logged is not None and tune.objective not in logged:
        message = f"{tune.objective!r} is not measured; there are {', '.join(logged)}"
        raise source.error(Problem(("tune", "objective"), message))
    for key, values in tune.ends.items():
        for value in values:
            of_trial = with_values(source, {key: value})
            try:
                _built(data, validate_pipeline(of_trial).train, of_trial)
            except ConfigError as error:
                said = f"{json.dumps(value)}: {error.problems[0].message}"
                raise source.error(Problem(("tune", "search", key), said)) from None


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(json.dumps(check_model(json.load(sys.stdin))), encoding="utf-8")
