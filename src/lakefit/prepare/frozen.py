"""`features.statistics`: what an earlier dataset of the pipeline has learned is taken over."""

from collections.abc import Mapping

from lakefit.config import Pipeline, PipelineSource
from lakefit.config.file import ConfigError, Problem
from lakefit.dataset.fingerprint import without_embeddings
from lakefit.dataset.manifest import Manifest, read_manifest
from lakefit.dataset.object_path import AnyPath
from lakefit.errors import InputError


def frozen_manifest(pipeline: Pipeline, source: PipelineSource, datasets: AnyPath) -> Manifest | None:
    """Return the manifest whose features and label are taken over, if `features.statistics` names one.

    Raises:
        ConfigError: there is no such dataset, or its features, label or cleaning were configured otherwise.
    """
    section = pipeline.features.statistics
    if section is None:
        return None
    try:
        manifest = read_manifest(datasets / section.fingerprint)
    except InputError as error:
        raise _error(source, f"{error}") from None
    for name in ("clean", "features", "label"):
        then, now = (without_embeddings(section) for section in (manifest.pipeline[name], pipeline.dump(name)[name]))
        if name == "label" and len(then) == len(now) == 1:
            (then,), (now,) = then, now
        differing = _differing(then, now)
        if differing:
            raise _error(
                source,
                f"dataset {section.fingerprint} was made with another {name}.{differing[0]}: what it learned does not "
                f"fit. Give the section `{name}` as it was, or leave `statistics` out.",
            )
    return manifest


def check_types(manifest: Manifest, types: Mapping[str, str], source: PipelineSource) -> None:
    """Raise ConfigError where a feature's column has another Spark SQL type than when it was learned."""
    for name in manifest.features.inputs:
        then = manifest.statistics[name].type
        if types[name] != then:
            raise _error(
                source,
                f"dataset {manifest.fingerprint} has learned {name!r} as {then}, and it is {types[name]} now. Give the "
                "column its type back, or leave `statistics` out.",
            )


def _differing(then: object, now: object) -> list[str]:
    """Return the keys, or the places of a list, that differ; `statistics` may."""
    if isinstance(then, list) and isinstance(now, list):
        then, now = dict(enumerate(then)), dict(enumerate(now))
    assert isinstance(then, dict)
    assert isinstance(now, dict)
    keys = dict.fromkeys((*now, *then))
    return [str(key) for key in keys if key != "statistics" and then.get(key) != now.get(key)]


def _error(source: PipelineSource, message: str) -> ConfigError:
    return source.error(Problem(("features", "statistics", "from"), message))
