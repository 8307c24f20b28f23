"""What a model has learned before its first step: from files, and of the training split's images."""

from lakefit.config import PipelineSource
from lakefit.config.train import Train
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.object_path import AnyPath
from lakefit.feed.images import named_errors
from lakefit.feed.split import SplitFeed
from lakefit.train.application import load_application
from lakefit.train.model import BuiltModel
from lakefit.train.normalize import learn_normalization
from lakefit.train.warm_start import warm_start


def give_first_weights(
    built: BuiltModel, section: Train, source: PipelineSource, dataset: AnyPath, manifest: Manifest
) -> int:
    """Give a model the weights of `train.model.weights` and of `train.warm_start`, and let it learn how it normalizes
    images; return how many categories a warm start did not know.

    Raises ConfigError where a file is not there or does not fit.
    """
    unknown = 0
    load_application(built.model, section, source)
    if section.warm_start is not None:
        unknown = warm_start(built, section, source)
    if section.images.normalize != "none":
        training = SplitFeed(dataset, manifest, "train", batch_size=section.fit.batch_size, shuffle=False)
        with named_errors(dataset, manifest, training):
            learn_normalization(built.model, section.images, training)
    return unknown
