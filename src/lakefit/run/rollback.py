"""`rollback`: take back a model that should not have been taken into use."""

from datetime import UTC, datetime
from typing import Any

from lakefit.config import load_pipeline
from lakefit.console import Console
from lakefit.dataset.conditional import look, replace
from lakefit.dataset.layout import ARTIFACT, ROLLED_BACK, RUN, Layout
from lakefit.dataset.object_path import matching
from lakefit.dataset.publish import check_current, ensure_writable, read_json, write_json
from lakefit.errors import InputError
from lakefit.run.lock import run_lock
from lakefit.run.plan import relative
from lakefit.run.record import ROLLBACK, is_whole, recorded, used_before

Use = dict[str, Any]
"""As current.json: a dataset, a run and an artifact."""


def rollback(path: str, overrides: tuple[str, ...], to: str | None, console: Console) -> tuple[Use, Use]:
    """Take into use what was in use before, or the run `to`; return what was in use until now, and what is.

    A run that is taken back stays out of use until it is named by `to`. Nothing is removed.

    Raises:
        InputError: there is nothing to go back to, `to` names no run with an exported model or several, or another run
            holds the lock.
    """
    with recorded(path, overrides, ROLLBACK, console) as record:
        pipeline, _ = load_pipeline(path, overrides)
        record.about(pipeline)
        layout = Layout.of(pipeline)
        before = read_json(layout.current) or {}
        if to is None:
            check_current(layout.current, path)
        if not before and (to is None or not layout.current.is_file()):
            raise InputError(f"{relative(layout.current)}: nothing is in use yet. Run `lakefit run {path}` first.")
        ensure_writable(layout.root)
        with run_lock(layout.lock) as lease:
            seen = look(layout.current)
            after = _before(layout, before) if to is None else _named(layout, to)
            record.begin(after)
            if after != before:
                lease.check()
                if before.get("run") not in (None, after["run"]):
                    _mark(layout, before["run"])
                _unmark(layout, after["run"])
                replace(layout.current, after, seen)
    return before, after


def _before(layout: Layout, current: Use) -> Use:
    found = used_before(layout)
    if found is not None:
        return found
    raise InputError(
        f"{relative(layout.root)}: no other run that is still there was in use before {current.get('run')}. Name one "
        f"by --to: {_there(layout)}."
    )


def _named(layout: Layout, to: str) -> Use:
    found = [use for use in _exported(layout) if to and use["run"].startswith(to)]
    # A run can be exported twice, under other names and keys: the last is meant.
    runs = sorted({use["run"] for use in found})
    if len(runs) == 1:
        return found[-1]
    problem = f"is the beginning of {len(runs)} runs: {', '.join(runs)}" if runs else "is no run with an exported model"
    raise InputError(f"--to {to}: {problem}. There are: {_there(layout)}.")


def _exported(layout: Layout) -> list[Use]:
    """Return what can be taken into use, oldest first."""
    files = matching(layout.root / "artifacts", f"[!.]*/{ARTIFACT}")
    files.sort(key=lambda path: path.stat().st_mtime_ns)
    described = [found for file in files if (found := read_json(file)) is not None]
    uses = [{"dataset": one["dataset"], "run": one["run"], "artifact": one["fingerprint"]} for one in described]
    return [use for use in uses if is_whole(layout, use)]


def _there(layout: Layout) -> str:
    return ", ".join(dict.fromkeys(use["run"] for use in _exported(layout))) or "none"


def _mark(layout: Layout, run: str) -> None:
    path = layout.run(run) / RUN
    write_json(path, {**(read_json(path) or {}), ROLLED_BACK: datetime.now(UTC).isoformat(timespec="seconds")})


def _unmark(layout: Layout, run: str) -> None:
    path = layout.run(run) / RUN
    content = read_json(path) or {}
    if content.pop(ROLLED_BACK, None) is not None:
        write_json(path, content)
