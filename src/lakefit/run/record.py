"""What is written down of each run, however it ends, and who is told when it ends badly."""

import importlib.metadata
import json
import math
import os
import shlex
import socket
import subprocess
import time
import uuid
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from itertools import chain
from typing import Any

from pydantic import ValidationError

from lakefit import __version__
from lakefit.config import Pipeline
from lakefit.config.file import read_pipeline_source
from lakefit.config.hooks import Hooks
from lakefit.console import Console
from lakefit.dataset.conditional import output_problem
from lakefit.dataset.describe import changes, short
from lakefit.dataset.inputs import InputFile
from lakefit.dataset.layout import ARTIFACT, METRICS, ROLLED_BACK, RUN, Layout
from lakefit.dataset.manifest import MANIFEST, read_manifest
from lakefit.dataset.object_path import AnyPath, matching
from lakefit.dataset.publish import read_json, write_json
from lakefit.errors import InputError, LakefitError, text_of, without_credentials

Fields = dict[str, Any]
RUNNING = "running"
ROLLBACK = "rollback"
_SHOWN = 20
_PACKAGES = ("keras", "petastorm", "pyarrow", "pyspark", "tensorflow", "tensorflow-cpu")


class Record:
    """The JSON of a run (docs/unattended.md): a file of its own in `history/`, and what a failure's command reads."""

    def __init__(self, path: str, command: str) -> None:
        self.fields: Fields = {
            "command": command, "pipeline_file": path, "began": _now(),
            "pid": os.getpid(), "host": socket.gethostname(),
        }  # fmt: skip
        self._clock = time.monotonic()
        self._layout: Layout | None = None
        self._name = f"{datetime.now(UTC):%Y%m%dT%H%M%S%f}-{uuid.uuid4().hex[:8]}.json"
        self._written = False

    def about(self, pipeline: Pipeline) -> None:
        """Name the pipeline: from now on there is a place to write to."""
        layout = Layout.of(pipeline)
        self._layout = layout if output_problem(layout.root) is None else None
        self.fields |= {"pipeline": pipeline.name, "settings": pipeline.dump(), "versions": _versions()}

    def begin(self, fields: Fields) -> None:
        """Write down that something runs: of a run that is killed this is all that will be known."""
        assert self._layout is not None, "the pipeline is known"
        self.fields |= {**fields, "in_use_before": read_json(self._layout.current)}
        self._write({"state": RUNNING})

    def add(self, fields: Fields) -> None:
        """Add what has come out."""
        self.fields |= fields

    def end(self, exit_code: int, reason: str) -> None:
        """Write how it ended; of a run that had nothing to do and ended well nothing is written."""
        seconds = round(time.monotonic() - self._clock, 1)
        in_use = None
        if self._layout is not None:
            # Where the place can't be reached, the run's own error is what counts.
            with suppress(OSError):
                in_use = read_json(self._layout.current)
        self.fields |= {"exit_code": exit_code, "reason": reason, "seconds": seconds, "in_use": in_use}
        if self._written or exit_code not in (0, 10):
            self._write({"state": "ended", "ended": _now()})

    def _write(self, fields: Fields) -> None:
        self.fields |= fields
        if self._layout is None:
            return
        # On a full disk, or in a place that is read-only or can't be reached, the run's own error is what counts.
        with suppress(OSError):
            # A first run that found no input has no place, and makes none.
            if not (self._written or fields["state"] == RUNNING or self._layout.root.is_dir()):
                return
            write_json(self._layout.history / self._name, _plain(self.fields))
            self._written = True


def _plain(value: Any) -> Any:
    """Return what JSON can hold: a metric that is no number is null."""
    if isinstance(value, dict):
        return {key: _plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


@contextmanager
def recorded(path: str, overrides: tuple[str, ...], command: str, console: Console) -> Iterator[Record]:
    """Write down what happens in the block; where it raises in a run, run the command of `hooks.on_failure`."""
    record = Record(path, command)
    try:
        yield record
    except BaseException as error:
        code = 4 if isinstance(error, KeyboardInterrupt) else getattr(error, "exit_code", 3)
        kind = "" if isinstance(error, LakefitError) else f"{type(error).__name__}: "
        reason = f"{kind}{text_of(error)}".rstrip(": ")
        record.end(code, without_credentials(reason))
        if command != ROLLBACK:
            # Whoever gives that command sits there.
            tell_failure(_hooks(path, overrides), record.fields, console)
        raise
    record.end(0, "done")


def _hooks(path: str, overrides: tuple[str, ...]) -> Hooks:
    """Return the section `hooks` of a pipeline file, whatever else is wrong with it."""
    try:
        return Hooks.model_validate_json(json.dumps(read_pipeline_source(path, overrides).data.get("hooks", {})))
    except (InputError, ValidationError, ValueError):
        return Hooks()


def tell_failure(hooks: Hooks, fields: Fields, console: Console) -> None:
    """Give a command the run's JSON on its standard input; what goes wrong with it is said, and changes nothing."""
    if hooks.on_failure is None:
        return
    content = json.dumps(_plain({key: value for key, value in fields.items() if key != "settings"})).encode()
    try:
        done = subprocess.run(
            shlex.split(hooks.on_failure), input=content, timeout=hooks.timeout_seconds, capture_output=True
        )
    except subprocess.TimeoutExpired:
        problem = f"did not end within {hooks.timeout}, and was ended"
    except OSError as error:
        problem = f"can't be run: {error.strerror}"
    else:
        if not done.returncode:
            return
        (*_, last) = done.stderr.decode(errors="replace").strip().splitlines() or ["it said nothing"]
        problem = f"ended with exit code {done.returncode}: {last}"
    console.event("hook_failed", f"hooks.on_failure: {hooks.on_failure!r} {problem}", command=hooks.on_failure)


def newest_first(layout: Layout) -> Iterator[Fields]:
    """Yield the records of a pipeline; a file that holds none is passed over."""
    for path in reversed(matching(layout.history, "*.json")):
        fields = read_json(path)
        if fields is not None and {"began", "command"} <= fields.keys():
            yield fields


def used_before(layout: Layout) -> Fields | None:
    """Return the dataset, run and artifact that were in use before those that are now: the last that are still whole,
    and that nobody has rolled back."""
    current = (read_json(layout.current) or {}).get("run")
    for fields in newest_first(layout):
        # One that was killed has told only what it found.
        for use in (fields.get("in_use"), fields.get("in_use_before")):
            if not use or use.get("run") == current or not is_whole(layout, use):
                continue
            if ROLLED_BACK not in (read_json(layout.run(use["run"]) / RUN) or {}):
                return dict(use)
    return None


def is_whole(layout: Layout, use: Fields) -> bool:
    """Say whether there are the dataset, the run and the artifact that were named together."""
    if None in (use.get("dataset"), use.get("run"), use.get("artifact")):
        return False
    parts = (
        layout.dataset(use["dataset"]) / MANIFEST,
        layout.run(use["run"]) / METRICS,
        layout.artifact(use["artifact"]) / ARTIFACT,
    )
    return all(part.is_file() for part in parts)


def what_changed(
    layout: Layout, pipeline: Pipeline, inputs: Mapping[str, tuple[InputFile, ...]], dataset: str
) -> list[str]:
    """Return, a sentence each, what differs from the run before: files from the last dataset that was made, settings
    and versions from the last run that is written down; nothing of a first run."""
    runs = (fields for fields in newest_first(layout) if fields["command"] != ROLLBACK and "settings" in fields)
    before = next(runs, None)
    if before is None:
        return []
    # The first that has one ends the reading.
    made = (layout.dataset(fields["dataset"]) for fields in chain([before], runs) if "dataset" in fields)
    last = next((folder for folder in made if (folder / MANIFEST).is_file()), None)
    found = _changed_files(last, inputs) if last is not None and last.name != dataset else []
    found += [f"{key}: {short(old)} -> {short(new)}" for key, old, new in changes(before["settings"], pipeline.dump())]
    found += [f"{name} {old} -> {new}" for name, old, new in changes(before.get("versions", {}), _versions())]
    if len(found) > _SHOWN:
        found = [*found[:_SHOWN], f"and {len(found) - _SHOWN:,} more"]
    return found


def _changed_files(dataset: AnyPath, inputs: Mapping[str, tuple[InputFile, ...]]) -> list[str]:
    manifest = read_manifest(dataset)
    old = {(file.table, file.name): (file.bytes, file.modified_ns) for file in manifest.inputs}
    new = {(table, file.name): (file.size, file.modified_ns) for table, files in inputs.items() for file in files}
    differing = {
        "new": [key for key in new if key not in old],
        "changed": [key for key in new if key in old and new[key] != old[key]],
        "gone": [key for key in old if key not in new],
    }
    sentences = []
    for word, keys in differing.items():
        for table in dict.fromkeys(table for table, _ in keys):
            names = [name for of, name in keys if of == table]
            more = f" and {len(names) - 3:,} more" if len(names) > 3 else ""
            sentences.append(f"{table}: {len(names):,} {word}: {', '.join(names[:3])}{more}")
    return sentences


def _versions() -> dict[str, str]:
    found = {"lakefit": __version__}
    for name in _PACKAGES:
        with suppress(importlib.metadata.PackageNotFoundError):
            found[name] = importlib.metadata.version(name)
    return found


def _now() -> str:
    return datetime.now(UTC).isoformat(timespec="seconds")
