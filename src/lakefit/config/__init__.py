"""What a pipeline file may say: read, located, validated into frozen types. No I/O beyond loading it."""

from lakefit.config.clean import Clean, Clip, Correct, Parse
from lakefit.config.evaluate import Evaluate
from lakefit.config.expect import Expect
from lakefit.config.features import (
    Bucketize,
    Categorical,
    Dates,
    Features,
    Images,
    LearnedClip,
    MultiValued,
    Numeric,
    Statistics,
    Tensors,
)
from lakefit.config.file import ConfigError, PipelineSource, Problem, nearest
from lakefit.config.hooks import Hooks
from lakefit.config.images import Image
from lakefit.config.pipeline import Output, Pipeline, Score, load_pipeline, validate_pipeline
from lakefit.config.rows import Deduplicate, Label, Reject, Require, Split, TimeSplit
from lakefit.config.source import Source, Table
from lakefit.config.train import (
    Checkpointing,
    Compile,
    Feed,
    Fit,
    Functional,
    Layer,
    Model,
    TensorBoard,
    Train,
    TrainImages,
)
from lakefit.config.tune import Tune

__all__ = [
    "Bucketize",
    "Categorical",
    "Checkpointing",
    "Clean",
    "Clip",
    "Compile",
    "ConfigError",
    "Correct",
    "Dates",
    "Deduplicate",
    "Evaluate",
    "Expect",
    "Features",
    "Feed",
    "Fit",
    "Functional",
    "Hooks",
    "Image",
    "Images",
    "Label",
    "Layer",
    "LearnedClip",
    "Model",
    "MultiValued",
    "Numeric",
    "Output",
    "Parse",
    "Pipeline",
    "PipelineSource",
    "Problem",
    "Reject",
    "Require",
    "Score",
    "Source",
    "Split",
    "Statistics",
    "Table",
    "TensorBoard",
    "Tensors",
    "TimeSplit",
    "Train",
    "TrainImages",
    "Tune",
    "load_pipeline",
    "nearest",
    "validate_pipeline",
]
