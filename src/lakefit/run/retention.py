"""Old versions are removed: never what is in use, was so before or is named by a run that stays; nothing young."""

import time
from collections.abc import Iterator

from lakefit.config import Pipeline
from lakefit.dataset.layout import ARTIFACT, JOURNAL, RUN, STUDY, TUNED, Layout
from lakefit.dataset.manifest import MANIFEST
from lakefit.dataset.object_path import AnyPath, ObjectPath
from lakefit.dataset.publish import read_json, remove_staging, remove_version
from lakefit.run.record import used_before


def old_versions(pipeline: Pipeline, now: float | None = None) -> list[AnyPath]:
    """Return what is beyond the newest `output.keep` datasets, runs, artifacts and studies; a run before its dataset.

    now: seconds since 1970.
    """
    keep = pipeline.output.keep
    if keep is None:
        return []
    layout = Layout.of(pipeline)
    # `rollback` goes back to the second.
    used = [read_json(layout.current) or {}, used_before(layout) or {}]
    young = (time.time() if now is None else now) - pipeline.output.grace_seconds
    runs = list(_removable(layout.root / "runs", {use.get("run") for use in used}, keep, young))
    artifacts = list(_removable(layout.root / "artifacts", {use.get("artifact") for use in used}, keep, young))
    left = [path for path in (layout.root / "runs").glob(f"*/{RUN}") if path.parent not in runs]
    # run.json names the dataset of its run.
    named = {(read_json(path) or {}).get("dataset") for path in left}
    frozen = pipeline.features.statistics
    in_use = {*(use.get("dataset") for use in used), *named, frozen.fingerprint if frozen is not None else None}
    datasets = list(_removable(layout.root / "datasets", in_use, keep, young))
    tuned = read_json(layout.root / TUNED) or {}
    studies = list(_removable(layout.root / "studies", {tuned.get("study")}, keep, young))
    return [*runs, *artifacts, *datasets, *studies]


def remove_old(pipeline: Pipeline, now: float | None = None) -> list[AnyPath]:
    """Remove the old versions and return them. The caller holds the lock."""
    for kind in ("runs", "studies"):
        folder = Layout.of(pipeline).root / kind
        if not isinstance(folder, ObjectPath):
            # What a killed removal left. Of datasets and artifacts it goes when the next one is made.
            remove_staging(folder)
    paths = old_versions(pipeline, now)
    for path in paths:
        remove_version(path, _MARKERS[path.parent.name])
    return paths


_MARKERS = {"datasets": MANIFEST, "runs": RUN, "artifacts": ARTIFACT, "studies": f"{STUDY}/{JOURNAL}"}


def _removable(folder: AnyPath, in_use: set[object], keep: int, young: float) -> Iterator[AnyPath]:
    """Yield what is neither in use nor among the newest `keep` nor younger than `young`."""
    if not folder.is_dir():
        return
    paths = [path for path in folder.iterdir() if not path.name.startswith(".")]
    if isinstance(folder, ObjectPath):
        # A folder has no time of its own there; one without its marker goes when the next is made.
        marker = _MARKERS[folder.name]
        paths = [path for path in paths if (path / marker).is_file()]
        dated = sorted((((path / marker).stat().st_mtime, path.name, path) for path in paths), reverse=True)
    else:
        dated = sorted(((path.stat().st_mtime, path.name, path) for path in paths if path.is_dir()), reverse=True)
    for modified, _, path in dated[keep:]:
        if path.name not in in_use and modified < young:
            yield path
