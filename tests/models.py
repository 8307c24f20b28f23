"""Models of pipeline files without a pipeline: a train section, a description of a dataset, and where errors stand."""

import json
from dataclasses import replace
from typing import Any

from lakefit.config.file import PipelineSource
from lakefit.config.train import Train
from lakefit.dataset.features import Features, LabelFeature
from lakefit.train.inputs import DatasetDescription
from lakefit.train.model import BuiltModel, build_model

SOURCE = PipelineSource("p.yaml", {}, {}, "")
SIGMOID = {"Dense": {"units": 1, "activation": "sigmoid"}}


def train(**changes: Any) -> Train:
    """Return a train section: one sigmoid, but for what is given."""
    data = {"model": {"sequential": [SIGMOID]}, "fit": {"epochs": 1, "batch_size": 8}, **changes}
    return Train.model_validate_json(json.dumps(data), strict=True)


def describe(features: Features, *labels: LabelFeature, **embeddings: int) -> DatasetDescription:
    """Return a description; a binary label where none is given."""
    return DatasetDescription(features, labels or (LabelFeature(),), embeddings)


def build(features: Features, *labels: LabelFeature, **changes: Any) -> BuiltModel:
    """Return the model of a train section with these changes."""
    section = train(**changes)
    return build_model(replace(describe(features, *labels), images=section.images), section, SOURCE)
