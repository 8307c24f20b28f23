"""Lakefit from Python: a pipeline made of `lakefit.config`'s sections, or in a file, becomes a dataset."""

from pathlib import Path

from lakefit.config import Pipeline, PipelineSource
from lakefit.console import Console
from lakefit.dataset.object_path import AnyPath
from lakefit.run.plan import read_again
from lakefit.run.stages import Run, run_stages
from lakefit.run.validate import Validated, check_inputs
from lakefit.run.validate import validate as validate_file


def validate(pipeline: Pipeline | str | Path) -> Validated:
    """Return a pipeline (or that of a file) with its input files, checked as `lakefit validate` does without Spark.

    Raises:
        InputError: every problem found, one a line.
    """
    if not isinstance(pipeline, Pipeline):
        return validate_file(pipeline)
    return check_inputs(pipeline, PipelineSource(f"pipeline {pipeline.name!r}", pipeline.dump(), {}, ""))


def prepare(pipeline: Pipeline | str | Path) -> AnyPath:
    """Make the dataset of a pipeline as `lakefit prepare` does, where it is not current; return its folder.

    The active Spark session is used, else a local one is started and stopped. `lakefit.dataset.manifest.read_manifest`
    reads what the folder holds and where every row went.

    Raises:
        InputError: the pipeline or its data are wrong, or another run holds the lock. ContractError: a contract of
            `expect` does not hold; the version in use stays. LakefitError: anything else that ended the run.
    """
    valid = validate(pipeline)
    read_again(valid.pipeline)
    run = Run(valid, Console())
    run_stages(run, "prepare")
    return run.dataset_dir
