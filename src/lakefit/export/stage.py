"""`export`: the artifact, a folder that holds all that scoring needs."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from lakefit import __version__
from lakefit.config import Pipeline
from lakefit.config.render import rendered
from lakefit.dataset.layout import ARTIFACT, METRICS, MODEL, PIPELINE, SAVED_MODEL
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.publish import remove_staging, staged_folder, write_atomically, write_json
from lakefit.export.model import exported_model, input_contract

_OUTPUTS = {
    "binary": "probability: float32 (n, 1)",
    "classes": "probabilities of the label's classes, in their order: float32 (n, classes)",
    "regression": "prediction in the label's own unit: float64 (n, 1)",
}


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What goes into the artifact at `target`."""

    pipeline: Pipeline
    manifest: Manifest
    report: dict[str, Any]
    fingerprint: str
    run_fingerprint: str
    target: Path


def export(job: ExportJob, trained: keras.Model) -> None:
    """Write the artifact and publish it by one rename.

    model.keras and saved_model/: the model of cleaned rows. pipeline.yaml: the pipeline file as it was run, with every
    default. metrics.json: what `evaluate` found. artifact.json: inputs, features and versions.
    """
    remove_staging(job.target.parent)
    model = exported_model(trained, job.manifest.features, job.manifest.label)
    with staged_folder(job.target) as folder:
        model.save(folder / MODEL)
        model.export(folder / SAVED_MODEL, verbose=False)
        write_atomically(folder / PIPELINE, rendered(job.pipeline))
        write_json(folder / METRICS, {key: job.report[key] for key in ("metrics", "baselines")})
        features = job.manifest.features
        description = {
            "fingerprint": job.fingerprint,
            "run": job.run_fingerprint,
            "dataset": job.manifest.fingerprint,
            "name": job.pipeline.name,
            "inputs": input_contract(features),
            "output": _OUTPUTS[job.manifest.label.kind],
            "label": job.manifest.label.model_dump(mode="json"),
            "features": features.model_dump(mode="json"),
            "versions": {"lakefit": __version__, "keras": keras.__version__, **job.manifest.versions},
        }
        write_json(folder / ARTIFACT, description)
