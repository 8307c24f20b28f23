"""Which stages of a pipeline are current, by fingerprints and what stands on disk; pure reading."""

import hashlib
import importlib.metadata
import os
import uuid
from dataclasses import dataclass
from typing import Any, Literal

from lakefit.config import Pipeline
from lakefit.config.functions import function_source
from lakefit.config.pipeline import Score
from lakefit.dataset.fingerprint import dataset_fingerprint, fingerprint
from lakefit.dataset.inputs import InputFile, list_inputs
from lakefit.dataset.layout import ARTIFACT, METRICS, RUN, SCORE, WEIGHTS, Layout
from lakefit.dataset.manifest import MANIFEST
from lakefit.dataset.object_path import AnyPath, ObjectPath, any_path
from lakefit.dataset.publish import ensure_writable, has_others, local_file, read_json, write_json
from lakefit.run.validate import Validated

StageName = Literal["prepare", "train", "evaluate", "export", "score"]
STAGES: tuple[StageName, ...] = ("prepare", "train", "evaluate", "export", "score")


@dataclass(frozen=True, slots=True)
class Fingerprints:
    """What each stage's result depends on."""

    dataset: str
    run: str
    evaluation: str
    artifact: str


@dataclass(frozen=True, slots=True)
class StagePlan:
    """Whether a stage is current, and why."""

    stage: StageName
    current: bool
    why: str


def fingerprints(valid: Validated) -> Fingerprints:
    """Return the fingerprints of everything that a validated pipeline makes of its files as they are now."""
    pipeline = valid.pipeline
    dataset = dataset_fingerprint(pipeline, valid.inputs, _reading(pipeline))
    run = fingerprint(
        {
            "dataset": dataset,
            # What is kept and shown of a run, its patience, and memory, change nothing that it makes.
            "train": pipeline.train.model_dump(
                mode="json",
                by_alias=True,
                exclude={"checkpoint": True, "tensorboard": True, "step_timeout": True, "feed": {"in_memory_mb"}},
            ),
            "warm_start": _artifact(pipeline.train.warm_start),
            "weights": _content(pipeline.train.application_weights),
            "embeddings": pipeline.features.embeddings,
            "code": [function_source(name) for _, name in pipeline.train.own_code()],
            "versions": _versions(),
        }
    )
    # What is required of the metrics changes none of them.
    evaluation = fingerprint({"run": run, "evaluate": pipeline.evaluate.model_dump(mode="json", exclude={"require"})})
    # Names and keys of the artifact's pipeline file; its paths are of this machine and don't count.
    score = pipeline.score
    artifact = fingerprint({"evaluation": evaluation, "name": pipeline.name, "keys": score.keys if score else ()})
    return Fingerprints(dataset, run, evaluation, artifact)


def read_again(pipeline: Pipeline) -> None:
    """Note a new reading of the sources that have neither files nor a version: they are stale in every run."""
    if _unversioned(pipeline):
        layout = Layout.of(pipeline)
        ensure_writable(layout.root)
        write_json(layout.reading, {"reading": uuid.uuid4().hex})


def _reading(pipeline: Pipeline) -> str:
    found = (read_json(Layout.of(pipeline).reading) or {}) if _unversioned(pipeline) else {}
    return str(found.get("reading", ""))


def _unversioned(pipeline: Pipeline) -> bool:
    return any(table.unversioned for table in pipeline.source.tables.values())


def score_fingerprint(artifact: str, inputs: dict[str, tuple[InputFile, ...]]) -> str:
    """Return what a scored output depends on: the artifact and all raw files."""
    files = {name: [[file.name, file.size, file.modified_ns] for file in files] for name, files in inputs.items()}
    return fingerprint({"artifact": artifact, "inputs": files})


def score_inputs(valid: Validated, path: str) -> dict[str, tuple[InputFile, ...]]:
    """Return the pipeline's input files with those at `path` in place of the followed table's."""
    source = valid.pipeline.source
    images = source.tables[source.rows].format == "images"
    return {**valid.inputs, source.rows: list_inputs((path,), "score: input", images=images)}


def plan(valid: Validated, prints: Fingerprints, *, kept_out: bool = False) -> tuple[StagePlan, ...]:
    """Return for each stage whether it is current; a stage after one that is not, is not.

    kept_out: what this run trained is not to be used. Then nothing is exported, and rows are scored with the model in
    use, where there is one.
    """
    layout = Layout.of(valid.pipeline)
    run_dir = layout.run(prints.run)
    artifact = layout.artifact(prints.artifact)
    trained = (run_dir / WEIGHTS).is_file() and stage_state(run_dir, "train") == "done"
    plans = [
        _made(
            "prepare",
            (layout.dataset(prints.dataset) / MANIFEST).is_file(),
            layout.dataset(prints.dataset),
            layout.root / "datasets",
        ),
        _made("train", trained, run_dir, layout.root / "runs", begun=stage_state(run_dir, "train") is not None),
        _made("evaluate", _print_of(run_dir / METRICS) == prints.evaluation, run_dir / METRICS, layout.root / "runs"),
    ]
    scored_with: str | None = prints.artifact
    if kept_out:
        scored_with = (read_json(layout.current) or {}).get("artifact")
    else:
        plans.append(_made("export", (artifact / ARTIFACT).is_file(), artifact, layout.root / "artifacts"))
    if valid.pipeline.score is not None and scored_with is not None:
        plans.append(_score_plan(valid, scored_with, valid.pipeline.score))
    result: list[StagePlan] = []
    for step in plans:
        if step.current and result and not result[-1].current:
            step = StagePlan(step.stage, False, f"{result[-1].stage} runs first")
        result.append(step)
    return tuple(result)


def stage_state(run_dir: AnyPath, stage: StageName) -> str | None:
    """Return what run.json says of a stage: running, done, failed, or None."""
    stages: dict[str, Any] = (read_json(run_dir / RUN) or {}).get("stages", {})
    state = stages.get(stage, {}).get("state")
    return state if isinstance(state, str) else None


def _made(stage: StageName, current: bool, at: AnyPath, siblings: AnyPath, begun: bool = False) -> StagePlan:
    if current:
        return StagePlan(stage, True, f"{at} is there")
    others = siblings.is_dir() and any(not p.name.startswith(".") for p in siblings.iterdir())
    if begun and at.name and (at / RUN).is_file():
        return StagePlan(stage, False, f"{at} is not finished")
    return StagePlan(stage, False, "its inputs or its settings have changed" if others else "there is no result yet")


def _score_plan(valid: Validated, artifact: str, section: Score) -> StagePlan:
    wanted = score_fingerprint(artifact, score_inputs(valid, section.input))
    output = any_path(section.output)
    return _made("score", _print_of(output / SCORE) == wanted and not has_others(output), output, output)


def _print_of(path: AnyPath) -> str | None:
    found = (read_json(path) or {}).get("fingerprint")
    return found if isinstance(found, str) else None


def _artifact(folder: str | None) -> str | None:
    """Return the fingerprint of an artifact; None where there is none, which training will say."""
    return _print_of(any_path(folder) / ARTIFACT) if folder is not None else None


def _content(path: str | None) -> str | None:
    """Return a digest of a file; None where there is none, which training will say."""
    if path is None or not any_path(path).is_file():
        return None
    with local_file(any_path(path)) as file, file.open("rb") as content:
        return hashlib.file_digest(content, "sha256").hexdigest()


def _versions() -> dict[str, str]:
    """Return the minor versions of Keras and TensorFlow, without importing them."""
    versions = {"keras": importlib.metadata.version("keras")}
    for name in ("tensorflow", "tensorflow-cpu"):
        try:
            versions["tensorflow"] = importlib.metadata.version(name)
            break
        except importlib.metadata.PackageNotFoundError:
            continue
    return {name: ".".join(version.split(".")[:2]) for name, version in versions.items()}


def relative(path: AnyPath) -> str:
    """Return a path as a person would type it here."""
    if isinstance(path, ObjectPath):
        return str(path)
    shown = os.path.relpath(path)
    return str(path) if shown.startswith("..") else shown
