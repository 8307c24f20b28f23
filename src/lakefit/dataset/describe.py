"""A dataset, and the difference of two, for people and programs: from their manifests alone."""

import json
from collections.abc import Iterator, Mapping, Sequence
from datetime import UTC, datetime
from itertools import takewhile
from typing import Any

from lakefit.config import load_pipeline
from lakefit.dataset.drift import stability_index
from lakefit.dataset.index import Index
from lakefit.dataset.layout import CURRENT, Layout
from lakefit.dataset.manifest import MANIFEST, Manifest, SplitFiles, read_manifest
from lakefit.dataset.object_path import AnyPath, matching
from lakefit.dataset.publish import read_json
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.errors import InputError

Rows = list[tuple[str, ...]]
Sections = list[tuple[str, Rows]]
_TIMES = ("date", "timestamp", "timestamp_ntz")
MUCH = 0.25
"""A population stability index from which a column is said to have drifted."""


def find_dataset(path: AnyPath) -> AnyPath:
    """Return the dataset's folder for a dataset or its manifest, or the one in use of a pipeline.

    The pipeline is named by its file, by its output or current.json in it, or by `output.path` where it is alone there.

    Raises:
        InputError: there is none, or several pipelines have their output there.
    """
    if path.name == MANIFEST:
        return path.parent
    if (path / MANIFEST).is_file():
        return path
    if path.name == CURRENT:
        return _in_use(path.parent)
    if path.name.endswith((".yaml", ".yml")) and path.is_file():
        return _in_use(Layout.of(load_pipeline(path)[0]).root)
    found = [path / CURRENT] if (path / CURRENT).is_file() else matching(path, f"*/{CURRENT}")
    outputs = [current.parent for current in found]
    if len(outputs) == 1:
        return _in_use(outputs[0])
    if outputs:
        raise InputError(f"{path}: several pipelines have their output there; name one of: {_listed(outputs)}.")
    raise InputError(
        f"{path}: neither a dataset (with {MANIFEST}) nor a pipeline's output (with {CURRENT}) nor a pipeline file "
        "(.yaml). Name one of these; of a folder of Parquet files, `lakefit index` makes a dataset."
    )


def _in_use(output: AnyPath) -> AnyPath:
    current = (read_json(output / CURRENT) or {}).get("dataset")
    if current is None:
        raise InputError(f"{output / CURRENT}: names no dataset in use; run `lakefit prepare` first.")
    return output / "datasets" / str(current)


def _listed(paths: Sequence[AnyPath]) -> str:
    return ", ".join(str(path) for path in paths)


def describe(folder: str | AnyPath, manifest: Manifest | Index) -> tuple[dict[str, Any], Sections]:
    """Return a dataset's manifest as plain data, and tables of it: rows, files, contracts, statistics."""
    if isinstance(manifest, Index):
        return describe_index(folder, manifest)
    ledger = manifest.ledger
    head: Rows = [
        ("name", manifest.name),
        ("fingerprint", manifest.fingerprint),
        ("created", manifest.created),
        ("format", f"{manifest.format_version}, {manifest.layout}"),
        ("made by", ", ".join(f"{name} {version}" for name, version in manifest.versions.items())),
        ("raw files", f"{len(manifest.inputs):,}, {sum(file.bytes for file in manifest.inputs):,} bytes"),
        *((f"excluded: {file.name}", file.reason) for file in manifest.excluded),
    ]
    rows: Rows = [("rows in", f"{ledger.rows_in:,}")]
    for split, files in manifest.splits.items():
        classes = ", ".join(f"{name}: {count:,}" for name, count in _classes(files).items())
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


def describe_index(folder: str | AnyPath, index: Index) -> tuple[dict[str, Any], Sections]:
    """Return the index of Parquet files as plain data, and tables of it: splits and columns."""
    head: Rows = [("folder", str(folder)), ("fingerprint", index.fingerprint)]
    rows: Rows = [
        (
            name,
            f"{split.rows:,}",
            f"{len(split.files):,} files",
            f"{sum(len(file.row_groups) for file in split.files):,} row groups",
            f"{sum(file.bytes for file in split.files):,} bytes",
        )
        for name, split in index.splits.items()
    ]
    columns: Rows = [("column", "type", "fed as", "nulls")]
    for column in index.columns:
        fed = f"{column.dtype} of any length" if column.shape is None else f"{column.dtype} {list(column.shape) or ''}"
        columns.append((column.name, column.type, fed.strip(), "" if column.nulls is None else f"{column.nulls:,}"))
    columns += [(column.name, column.reason, "not at all", "") for column in index.left_out]
    return index.model_dump(mode="json"), [("Parquet files", head), ("Rows", rows), ("Columns", columns)]


def difference(one: AnyPath, two: AnyPath) -> tuple[dict[str, Any], Sections]:
    """Return what differs from dataset `one` to dataset `two`.

    Settings of the pipeline, columns, rows, classes of the training split, contracts, and the drift of each column.
    """
    old, new = read_manifest(one), read_manifest(two)
    settings = list(changes(_settings(old), _settings(new)))
    schema = _schema_changes(old, new)
    classes = list(changes(_classes(old.splits["train"]), _classes(new.splits["train"])))
    contracts = list(changes(_found(old), _found(new)))
    counts = _counts(old, new)
    drift = {
        name: stability_index(old.statistics[name], found)
        for name, found in new.statistics.items()
        if name in old.statistics and old.statistics[name].type == found.type
    }
    fields = {
        "from": old.fingerprint,
        "to": new.fingerprint,
        "settings": [{"key": key, "from": before, "to": after} for key, before, after in settings],
        "columns": [{"column": name, "from": before, "to": after} for name, before, after in schema],
        "rows": {name: {"from": before, "to": after} for name, before, after in counts},
        "classes": {name: {"from": before, "to": after} for name, before, after in classes},
        "contracts": [{"contract": text, "from": before, "to": after} for text, before, after in contracts],
        "drift": drift,
    }
    sides = (old.fingerprint, new.fingerprint)
    shown: Rows = [(name, f"{a:,}", f"{b:,}", f"{b - a:+,}") for name, a, b in counts]
    sections: Sections = [
        ("Settings", [("key", *sides), *((key, short(a), short(b)) for key, a, b in settings)]),
        ("Columns", [("column", *sides), *((name, a or "absent", b or "absent") for name, a, b in schema)]),
        ("Rows", [("", *sides, "change"), *shown]),
        ("Classes of the training split", [("class", *sides), *((name, _rows(a), _rows(b)) for name, a, b in classes)]),
        ("Contracts", [("contract", *sides), *((text, a or "absent", b or "absent") for text, a, b in contracts)]),
    ]
    order = sorted(drift, key=lambda name: -(drift[name] or 0.0))
    lines = [_drift(name, drift[name], old.statistics[name], new.statistics[name]) for name in order]
    sections.append(("Drift of the training split", [("column", "PSI", "", "mean", "", "nulls", ""), *lines]))
    return fields, [(title, rows) for title, rows in sections if len(rows) > 1]


def _settings(manifest: Manifest) -> dict[str, Any]:
    """Return the pipeline file; a label that is alone without its place in the list."""
    labels = manifest.pipeline["label"]
    return {**manifest.pipeline, "label": labels[0] if len(labels) == 1 else labels}


def _counts(old: Manifest, new: Manifest) -> list[tuple[str, int, int]]:
    reasons = dict.fromkeys([*old.ledger.rejected, *new.ledger.rejected])
    return [
        ("rows in", old.ledger.rows_in, new.ledger.rows_in),
        *((split, old.ledger.kept.get(split, 0), new.ledger.kept.get(split, 0)) for split in new.ledger.kept),
        ("duplicates", old.ledger.duplicates, new.ledger.duplicates),
        *((f"rejected: {r}", old.ledger.rejected.get(r, 0), new.ledger.rejected.get(r, 0)) for r in reasons),
    ]


def _found(manifest: Manifest) -> dict[str, str]:
    return {f"{outcome.scope}: {outcome.expected}": outcome.found for outcome in manifest.expectations}


def changes(old: Mapping[str, Any], new: Mapping[str, Any], above: str = "") -> Iterator[tuple[str, Any, Any]]:
    """Yield (key, before, after) of what differs between two mappings, key by key; None where there is no such key.

    Of two lists only what lies between their equal beginnings and ends is told.
    """
    for name in dict.fromkeys([*old, *new]):
        before, after = old.get(name), new.get(name)
        if isinstance(before, dict) and isinstance(after, dict):
            yield from changes(before, after, f"{above}{name}.")
        elif before != after:
            if isinstance(before, list) and isinstance(after, list):
                start = _equal_items(before, after)
                before, after = before[start:], after[start:]
                end = _equal_items(before[::-1], after[::-1])
                before, after = before[: len(before) - end], after[: len(after) - end]
            yield f"{above}{name}", before, after


def _equal_items(one: Sequence[Any], two: Sequence[Any]) -> int:
    """Return how many items two lists begin with in common."""
    return sum(1 for _ in takewhile(lambda pair: pair[0] == pair[1], zip(one, two, strict=False)))


def short(value: Any) -> str:
    """Return a setting's value as JSON of 60 characters at most."""
    text = json.dumps(_without_none(value), ensure_ascii=False)
    return text if len(text) <= 60 else text[:59] + "…"


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    return [_without_none(item) for item in value] if isinstance(value, list) else value


def _rows(count: int | None) -> str:
    return f"{count or 0:,}"


def _schema_changes(old: Manifest, new: Manifest) -> list[tuple[str, str | None, str | None]]:
    before, after = ({name: found.type for name, found in side.statistics.items()} for side in (old, new))
    return list(changes(before, after))


def _drift(name: str, index: float | None, old: ColumnStatistics, new: ColumnStatistics) -> tuple[str, ...]:
    if index is None:
        shown, word = "-", _why_no_index(old, new)
    else:
        shown, word = f"{index:.4f}", "drifted" if index >= MUCH else ""
    share = [f"{side.nulls / max(side.count + side.nulls, 1):.2%}" for side in (old, new)]
    return name, shown, word, _value(old.mean, old.type), _value(new.mean, new.type), *share


def _why_no_index(old: ColumnStatistics, new: ColumnStatistics) -> str:
    if old.type.startswith(("array", "map", "struct", "binary")):
        return f"{old.type} is not compared"
    return "too many values to compare" if old.count and new.count else "no values to compare"


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


def _classes(files: SplitFiles) -> dict[str, int]:
    """Return the rows by class; of several labels, each class with its label's name before it."""
    if len(files.classes) == 1:
        (of_label,) = files.classes.values()
        return of_label
    return {f"{label} {name}": count for label, of_label in files.classes.items() for name, count in of_label.items()}
