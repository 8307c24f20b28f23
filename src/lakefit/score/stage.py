"""`score`: the rows of any raw files of the pipeline's source, with their probabilities, as Parquet."""

import json
import uuid
from collections import Counter
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import partial
from typing import Any

from pyspark.sql import Observation, SparkSession
from pyspark.sql import functions as F

from lakefit import __version__
from lakefit.config import Pipeline, PipelineSource
from lakefit.config.sql import MARKS, ROW
from lakefit.dataset.disk import full_disk_named
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.inputs import InputFile, check_unchanged
from lakefit.dataset.layout import ARTIFACT, SAVED_MODEL, SCORE, SCORE_LOCK
from lakefit.dataset.object_path import STORE_ERRORS, AnyPath, ObjectPath, address_of
from lakefit.dataset.publish import ensure_ours, read_json, remove_staging, staged_folder, write_json
from lakefit.errors import InputError, LakefitError
from lakefit.prepare.clean import RULE
from lakefit.prepare.cluster import local_folder
from lakefit.prepare.rows import SPARK_ERRORS, check_identities, cleaned_rows, reading_problem
from lakefit.score.predict import RESULT_SCHEMA, ScorePlan, score_partition


@dataclass(frozen=True, slots=True)
class ScoreJob:
    """What to score with which artifact. `pipeline` and `source` are the artifact's own; `inputs` are the raw files.

    check: called before it is published; raises where the output is another run's by now.
    """

    pipeline: Pipeline
    source: PipelineSource
    inputs: Mapping[str, Sequence[InputFile]]
    artifact: AnyPath
    output: AnyPath
    fingerprint: str
    check: Callable[[], None] = lambda: None


def score_keys(pipeline: Pipeline) -> tuple[str, ...]:
    """Return the columns that stand beside each probability: `score.keys`, else the deduplication key."""
    if pipeline.score is not None and pipeline.score.keys:
        return pipeline.score.keys
    return (pipeline.deduplicate.key or ()) if pipeline.deduplicate else ()


def score(spark: SparkSession, job: ScoreJob) -> dict[str, Any]:
    """Write `_row`, the keys, the prediction and versions of each row; return the counts, also in `_score.json`.

    Rows are neither deduplicated nor rejected by rules; lines that do not parse go to `_rejects/`, which readers of
    Parquet folders pass over. The folder appears by one rename, when all rows are accounted for. In an object store,
    where there is none, `_score.json` is written last and names the files that count.

    Raises:
        InputError: the output is a folder that `score` did not write; the query loses or multiplies rows.
    """
    ensure_ours(job.output)
    features = job.pipeline.features
    keys = score_keys(job.pipeline)
    description = read_json(job.artifact / ARTIFACT)
    if description is None:
        raise InputError(f"{job.artifact / ARTIFACT}: no such artifact; run `lakefit export` first.")
    labels = tuple(LabelFeature.model_validate(label) for label in description["labels"])
    observation = Observation("lakefit_score")
    rows = cleaned_rows(spark, job.pipeline, job.source, job.inputs, observation)
    needed = [F.col(f"`{name}`") for name in dict.fromkeys((ROW, *features.columns, *keys))]
    unscorable = {number: rule.reason for number, rule in enumerate(job.pipeline.marks) if rule.unscorable}
    if unscorable:
        needed.append(F.col(f"{MARKS}.rule").alias(RULE))
    local = local_folder(spark)
    suffix = f"-{uuid.uuid4().hex[:8]}" if isinstance(job.output, ObjectPath) else ""
    with _scored_folder(job.output, suffix) as folder, full_disk_named(job.output.parent, local):
        plan = ScorePlan(
            model=address_of(job.artifact / SAVED_MODEL),
            target=address_of(folder),
            suffix=suffix,
            features=features,
            labels=labels,
            keys=keys,
            unscorable=unscorable,
            versions={
                "_artifact": description["fingerprint"],
                "_dataset": description["dataset"],
                "_lakefit": __version__,
            },
        )
        try:
            results = rows.select(*needed).mapInArrow(partial(score_partition, plan=plan), RESULT_SCHEMA).toArrow()
        except SPARK_ERRORS as error:
            raise reading_problem(error, "score", job.inputs) from error
        check_unchanged(job.inputs)
        counts = [json.loads(text) for text in results["result"].to_pylist()]
        arrived = [tuple(count["arrived"]) for count in counts]
        check_identities(spark, job.pipeline, job.source, job.inputs, observation, arrived)
        summary = _account(job, counts)
        files = {file: rows for count in counts for file, rows in count["files"].items()}
        job.check()
        about = {"fingerprint": job.fingerprint, "artifact": description["fingerprint"]}
        write_json(folder / SCORE, {**about, **summary, "files": dict(sorted(files.items()))})
    return summary


@contextmanager
def _scored_folder(output: AnyPath, suffix: str) -> Iterator[AnyPath]:
    """Yield the folder to write into. suffix: in an object store, what the names of this run's files end in; those of
    an earlier one stay until these are whole."""
    if not isinstance(output, ObjectPath):
        remove_staging(output.parent, output.name)
        with staged_folder(output, SCORE) as folder:
            yield folder
        return
    done = False
    try:
        yield output
        done = True
    finally:
        # What can't be removed now, or is left by a run that is killed here, a later one finds and scores again.
        with suppress(*STORE_ERRORS):
            for path, _ in list(output.files()):
                if path.name not in (SCORE, SCORE_LOCK) and path.stem.endswith(suffix) != done:
                    path.unlink(missing_ok=True)


def _account(job: ScoreJob, counts: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    table = job.pipeline.source.tables[job.pipeline.source.rows]
    headers = len(job.inputs[job.pipeline.source.rows]) if table.header else 0
    lines, found = (sum(count["arrived"][0] for count in counts), sum(count["headers"] for count in counts))
    scored, rejects = (sum(count[name] for count in counts) for name in ("scored", "rejected"))
    if found < headers or lines != scored + rejects + found:
        raise LakefitError(
            f"score: {lines:,} lines were read, {scored:,} scored, {rejects:,} rejected, {found:,} are headers of "
            f"{headers} files: the rows do not add up, so nothing was published."
        )
    reasons: Counter[str] = sum((Counter(count["reasons"]) for count in counts), Counter())
    rejected = {**dict(sorted(reasons.items())), "a header line inside the file": found - headers}
    return {"rows_in": lines - headers, "scored": scored, "rejected": {k: v for k, v in rejected.items() if v}}
