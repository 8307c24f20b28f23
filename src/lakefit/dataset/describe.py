"""A dataset, and the difference of two, for people and programs: from their manifests alone."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lakefit.dataset.drift import stability_index
from lakefit.dataset.layout import CURRENT
from lakefit.dataset.manifest import MANIFEST, Manifest, read_manifest
from lakefit.dataset.publish import read_json
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.errors import InputError

Rows = list[tuple[str, ...]]
Sections = list[tuple[str, Rows]]
_TIMES = ("date", "timestamp", "timestamp_ntz")
MUCH = 0.25
"""A population stability index from which a column is said to have drifted."""


def find_dataset(path: Path) -> Path:
    """Return the dataset's folder for a dataset, its manifest, or a pipeline's output (then the one in use).

    Raises:
        InputError: there is none.
    """
    if path.name == MANIFEST:
        return path.parent
    if (path / MANIFEST).is_file():
        return path
    current = (read_json(path / CURRENT) or {}).get("dataset")
    if current is not None:
        return path / "datasets" / str(current)
    raise InputError(f"{path}: neither a dataset (with {MANIFEST}) nor a pipeline's output (with {CURRENT}).")


def describe(folder: Path) -> tuple[dict[str, Any], Sections]:
    """Return a dataset's manifest as plain data, and tables of it: rows, files, contracts, statistics."""
    manifest = read_manifest(folder)
    ledger = manifest.ledger
    head: Rows = [
        ("name", manifest.name),
        ("fingerprint", manifest.fingerprint),
        ("created", manifest.created),
        ("format", str(manifest.format_version)),
        ("made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("raw files", f"{len(manifest.inputs):,}, {sum(file.bytes for file in manifest.inputs):,} bytes"),
        *((f"excluded: {file.name}", file.reason) for file in manifest.excluded),
    ]
    rows: Rows = [("rows in", f"{ledger.rows_in:,}")]
    for split, files in manifest.splits.items():
        classes = ", ".join(f"{name}: {count:,}" for name, count in files.classes.items())
        size = sum(file.bytes for file in files.files)
        rows.append((split, f"{files.rows:,}", f"{len(files.files)} files", f"{size:,} bytes", classes))
    rows += [(f"rejected: {reason}", f"{count:,}") for reason, count in ledger.rejected.items()]
    rows.append(("duplicates", f"{ledger.duplicates:,}"))
    rows += [(f"unparsable: {column}", f"{count:,}") for column, count in ledger.unparsable.items()]
    corrections: Rows = [(c.column, c.from_, c.to, f"{c.rows:,}") for c in manifest.corrections]
    outcomes: Rows = [(o.scope, o.expected, o.found) for o in manifest.expectations]
    titles = (
        "column",
        "type",
        "count",
        "nulls",
        "distinct",
        "min",
        "median",
        "mean",
        "max",
        "deviation",
        "most frequent",
    )
    columns = [titles, *(_column(name, found) for name, found in manifest.statistics.items())]
    sections: Sections = [("Dataset", head), ("Rows", rows)]
    if corrections:
        sections.append(("Corrections", [("column", "from", "to", "rows"), *corrections]))
    if outcomes:
        sections.append(("Contracts", [("of", "expected", "found"), *outcomes]))
    sections.append(("Columns of the training split", columns))
    return manifest.model_dump(mode="json", by_alias=True), sections


def difference(one: Path, two: Path) -> tuple[dict[str, Any], Sections]:
    """Return what differs from dataset `one` to dataset `two`: columns, rows, and the drift of each column."""
    old, new = read_manifest(one), read_manifest(two)
    schema = _schema_changes(old, new)
    counts = [
        ("rows in", old.ledger.rows_in, new.ledger.rows_in),
        *((split, old.ledger.kept.get(split, 0), new.ledger.kept.get(split, 0)) for split in new.ledger.kept),
        ("duplicates", old.ledger.duplicates, new.ledger.duplicates),
        *(
            (f"rejected: {reason}", old.ledger.rejected.get(reason, 0), new.ledger.rejected.get(reason, 0))
            for reason in dict.fromkeys([*old.ledger.rejected, *new.ledger.rejected])
        ),
    ]
    drift = {
        name: stability_index(old.statistics[name], found)
        for name, found in new.statistics.items()
        if name in old.statistics and old.statistics[name].type == found.type
    }
    fields = {
        "from": old.fingerprint,
        "to": new.fingerprint,
        "columns": [{"column": name, "from": before, "to": after} for name, before, after in schema],
        "rows": {name: {"from": before, "to": after} for name, before, after in counts},
        "drift": drift,
    }
    sections: Sections = []
    if schema:
        sections.append(
            ("Columns", [("column", "from", "to"), *((n, a or "absent", b or "absent") for n, a, b in schema)])
        )
    shown: Rows = [(name, f"{a:,}", f"{b:,}", f"{b - a:+,}") for name, a, b in counts]
    sections.append(("Rows", [("", old.fingerprint, new.fingerprint, "change"), *shown]))
    order = sorted(drift, key=lambda name: -(drift[name] or 0.0))
    lines = [_drift(name, drift[name], old.statistics[name], new.statistics[name]) for name in order]
    heads = ("column", "PSI", "", "mean", "", "nulls", "")
    sections.append(("Drift of the training split", [heads, *lines]))
    return fields, sections


def _schema_changes(old: Manifest, new: Manifest) -> list[tuple[str, str | None, str | None]]:
    before = {name: found.type for name, found in old.statistics.items()}
    after = {name: found.type for name, found in new.statistics.items()}
    names = dict.fromkeys([*before, *after])
    return [(name, before.get(name), after.get(name)) for name in names if before.get(name) != after.get(name)]


def _drift(name: str, index: float | None, old: ColumnStatistics, new: ColumnStatistics) -> tuple[str, ...]:
    word = "" if index is None or index < MUCH else "drifted"
    shown = "" if index is None else f"{index:.4f}"
    share = [f"{side.nulls / max(side.count + side.nulls, 1):.2%}" for side in (old, new)]
    return name, shown, word, _value(old.mean, old.type), _value(new.mean, new.type), *share


def _column(name: str, found: ColumnStatistics) -> tuple[str, ...]:
    frequent = ", ".join(f"{_value(value, found.type)} ({count:,})" for value, count in (found.most_frequent or ())[:3])
    return (
        name,
        found.type,
        f"{found.count:,}",
        f"{found.nulls:,}",
        f"~{found.distinct:,}",
        _value(found.low, found.type),
        _value(found.quantiles.get("0.5"), found.type),
        _value(found.mean, found.type),
        _value(found.high, found.type),
        "" if found.deviation is None else f"{found.deviation:.6g}",
        frequent if len(frequent) <= 60 else frequent[:59] + "…",
    )


def _value(value: str | float | None, type_name: str) -> str:
    if value is None:
        return ""
    if isinstance(value, str):
        return value
    if type_name in _TIMES:
        try:
            moment = datetime.fromtimestamp(value, UTC)
        except (OverflowError, ValueError, OSError):
            return f"{value:.6g}"
        return moment.strftime("%Y-%m-%d" if type_name == "date" else "%Y-%m-%d %H:%M:%S")
    return f"{value:.6g}"
