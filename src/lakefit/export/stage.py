"""`export`: the artifact, a folder that holds all that scoring needs."""

import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import keras

from lakefit import __version__
from lakefit.config import Pipeline
from lakefit.config.functions import load_function
from lakefit.config.render import rendered
from lakefit.dataset.features import Features
from lakefit.dataset.layout import ARTIFACT, METRICS, MODEL, PIPELINE, SAVED_MODEL, WEIGHTS
from lakefit.dataset.manifest import Manifest
from lakefit.dataset.object_path import AnyPath
from lakefit.dataset.publish import built_folder, local_file, remove_unfinished, write_atomically, write_json
from lakefit.export.model import exported_model, input_contract

_OUTPUTS = {
    "binary": "probability: float32 (n, 1)",
    "classes": "probabilities of the label's classes, in their order: float32 (n, classes)",
    "multi_label": "the probability of each of the label's classes, in their order: float32 (n, classes)",
    "regression": "prediction in the label's own unit: float64 (n, 1)",
}


@dataclass(frozen=True, slots=True)
class ExportJob:
    """What goes into the artifact at `target`. run_dir: where the trained weights are. check: called before anything is
    removed or published; raises where that is another run's by now."""

    pipeline: Pipeline
    manifest: Manifest
    report: dict[str, Any]
    fingerprint: str
    run_fingerprint: str
    run_dir: AnyPath
    target: AnyPath
    check: Callable[[], None] = lambda: None


def export(job: ExportJob, trained: keras.Model) -> None:
    """Write the artifact and publish it by one rename.

    saved_model/ and model.keras: the model of cleaned rows. model.weights.h5: of the network alone, for
    `train.warm_start`. pipeline.yaml: the pipeline file as it was run, with every
    default. metrics.json: what `evaluate` found. artifact.json: inputs, outputs, features and versions, and why there
    is no model.keras, which a model of the user's own code may not become.
    """
    job.check()
    remove_unfinished(job.target.parent, ARTIFACT)
    model = exported_model(trained, job.manifest.features, job.manifest.labels)
    with built_folder(job.target, ARTIFACT) as folder:
        _export(model, job.manifest.features, folder / SAVED_MODEL)
        why_not = _save(model, folder / MODEL, [name for _, name in job.pipeline.train.own_code()])
        write_atomically(folder / PIPELINE, rendered(job.pipeline))
        with local_file(job.run_dir / WEIGHTS) as weights:
            shutil.copyfile(weights, folder / WEIGHTS)
        write_json(folder / METRICS, {key: job.report[key] for key in ("metrics", "baselines")})
        features = job.manifest.features
        description = {
            "fingerprint": job.fingerprint,
            "run": job.run_fingerprint,
            "dataset": job.manifest.fingerprint,
            "name": job.pipeline.name,
            "inputs": input_contract(features),
            "outputs": {label.name: _OUTPUTS[label.kind] for label in job.manifest.labels},
            "labels": [label.model_dump(mode="json") for label in job.manifest.labels],
            "no_model_keras": why_not,
            "features": features.model_dump(mode="json"),
            "versions": {"lakefit": __version__, "keras": keras.__version__, **job.manifest.versions},
        }
        write_json(folder / ARTIFACT, description)
        job.check()


def _export(model: keras.Model, features: Features, path: Path) -> None:
    """Write the SavedModel; of images it takes the files, which it decodes as the feed does."""
    if not features.images:
        model.export(path, verbose=False)
        return
    import tensorflow as tf

    from lakefit.feed.images import decode_batch

    files = {image.name: tf.TensorSpec((None,), tf.string, image.name) for image in features.images}
    taken = {
        tensor.name: files.get(tensor.name, tf.TensorSpec(tensor.shape, tensor.dtype, tensor.name))
        for tensor in model.inputs
    }

    def serve(given: dict[str, Any]) -> Any:
        return model({**given, **{image.name: decode_batch(given[image.name], image) for image in features.images}})

    archive = keras.export.ExportArchive()
    archive.track(model)
    archive.add_endpoint("serve", serve, [taken])
    archive.write_out(path, verbose=False)


def _save(model: keras.Model, path: Path, own_code: Sequence[str]) -> str | None:
    """Write the model as a .keras file; where it can't be loaded again, write none and return why.

    own_code: `module:Name` of the user's, which whoever loads the file hands over as `custom_objects`.
    """
    if not own_code:
        model.save(path)
        return None
    try:
        model.save(path)
        objects = {name.partition(":")[2]: load_function(name) for name in own_code}
        keras.saving.load_model(path, custom_objects=objects, safe_mode=True)
    except Exception as error:
        path.unlink(missing_ok=True)
        return f"it can't be saved and loaded again: {type(error).__name__}: {str(error).strip().splitlines()[0]}"
    return None
