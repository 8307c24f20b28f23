"""What a pipeline file may say: read, located, validated into frozen types. No I/O beyond loading it."""

from lakefit.config.file import ConfigError, PipelineSource, Problem, nearest
from lakefit.config.pipeline import Pipeline, load_pipeline, validate_pipeline

__all__ = ["ConfigError", "Pipeline", "PipelineSource", "Problem", "load_pipeline", "nearest", "validate_pipeline"]
