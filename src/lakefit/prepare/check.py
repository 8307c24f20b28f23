"""What makes splits and labels unfit to be published: no rows, a class that is missing, values that are none."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from lakefit.config import Pipeline, PipelineSource
from lakefit.config.file import ConfigError, Key, Problem
from lakefit.config.rows import SPLITS, Label, Split
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.ledger import Ledger
from lakefit.prepare.bucket import OTHER

Summaries = Sequence[Mapping[str, Any]]


def classes_of(summaries: Summaries, label: str, split: str) -> dict[str, int]:
    """Return the rows of a split by class of a label, as the buckets have counted them."""
    counts: Counter[str] = Counter()
    for summary in summaries:
        counts.update(summary["labels"][label][split]["classes"])
    return dict(sorted(counts.items()))


def check_splits(
    pipeline: Pipeline,
    source: PipelineSource,
    ledger: Ledger,
    summaries: Summaries,
    frozen: Sequence[LabelFeature] | None,
) -> None:
    """Raise ConfigError unless each split has rows with labels and, for a classification, every class.

    frozen: the labels of an earlier dataset that are taken over.
    """
    _check_rows(pipeline, source, ledger)
    for place, label in enumerate(pipeline.label):
        expected, wanted = "the training split", set(classes_of(summaries, label.name, "train"))
        if frozen is not None and frozen[place].classes:
            expected, wanted = "the dataset of features.statistics", set(frozen[place].classes)
        elif label.classes is not None:
            expected, wanted = "label.classes", set(label.classes)
        for split in SPLITS:
            _check_labels(label, place, source, summaries, split)
            present = {name for name, count in classes_of(summaries, label.name, split).items() if count}
            missing, unknown = sorted(wanted - present), sorted(present - wanted)
            if label.type == "multi_label" and split != "train":
                # A class that a row may have beside others can be missing from a split that is not learned from.
                missing = []
            if label.type not in ("classes", "multi_label") or not missing + unknown:
                continue
            what = f"has no row of class {missing[0]!r}" if missing else f"has the class {unknown[0]!r}"
            raise _error(
                source,
                ("label", place, "expression" if label.classes is None else "classes"),
                f"The {split} split {what}, and {expected} {'has' if missing else 'has it not'}. Give rare classes "
                "more rows or one name, split by smaller groups, or stratify.",
            )
        bad_weights = sum(summary["bad_weights"].get(label.name, 0) for summary in summaries)
        if bad_weights:
            raise _error(
                source,
                ("label", place, "weight"),
                f"label.weight ({label.weight}) is NULL, negative or infinite in {bad_weights:,} kept rows. "
                "Expected 0 or more; reject such rows, or COALESCE.",
            )


def check_written(pipeline: Pipeline, source: PipelineSource, entries: Summaries) -> None:
    """Raise ConfigError where files (what `write_file` returns) hold labels or weights that float32 does not."""
    for place, label in enumerate(pipeline.label):
        for column, key in ((label.name, "expression"), (label.weights, "weight")):
            found = [entry["beyond"][column] for entry in entries if column in entry["beyond"]]
            if found:
                name = "label" if key == "expression" else "weight"
                scaled = ", after normalize: standard," if name == "label" and label.normalize != "none" else ""
                weighed = ", times its class weight," if name == "weight" and label.class_weights else ""
                raise _error(
                    source,
                    ("label", place, key if getattr(label, key) is not None else "class_weights"),
                    f"the {name}{scaled}{weighed} is too large for float32 in {sum(count for count, _ in found):,} "
                    f"kept rows, such as {found[0][1]:g}. Expected at most 3.4e38: scale it in the expression.",
                )


def _check_rows(pipeline: Pipeline, source: PipelineSource, ledger: Ledger) -> None:
    rows = pipeline.source.rows
    if not ledger.rows_in:
        raise _error(source, ("source", "tables", rows), f"the table {rows!r} has no rows.")
    if not sum(ledger.kept.values()):
        raise _error(
            source,
            ("source", "tables", rows),
            f"no row of {rows!r} is kept: {sum(ledger.rejected.values()):,} of {ledger.rows_in:,} are rejected "
            f"({', '.join(f'{reason}: {count:,}' for reason, count in ledger.rejected.items() if count)}).",
        )
    for split in SPLITS:
        if not ledger.kept[split]:
            key, why = _why_empty(pipeline.split, split)
            raise _error(source, key, f"The {split} split is empty: {why}")


def _why_empty(section: Split, split: str) -> tuple[Key, str]:
    if section.time is not None:
        return ("split", "time"), f"no kept row has a {section.time.column} in its range. Move the cuts."
    if section.column is not None:
        return ("split", "column"), f"no kept row has the word {split!r} in {section.column}."
    by = f"by {', '.join(section.by)}" if section.by else "by row"
    advice = (
        "Choose another seed, or fewer folds."
        if section.folds
        else "Give it a larger share, split by columns with more distinct values, or choose another seed."
    )
    return ("split",), f"no group ({by}, seed {section.seed}) fell into it. {advice}"


def _check_labels(label: Label, place: int, source: PipelineSource, summaries: Summaries, split: str) -> None:
    at: Key = ("label", place, "expression")
    said = f"label.expression ({label.expression})"
    rows = sum(summary["labels"][label.name][split]["rows"] for summary in summaries)
    nulls = sum(summary["labels"][label.name][split]["null"] for summary in summaries)
    classes = classes_of(summaries, label.name, split)
    if nulls:
        raise _error(
            source,
            at,
            f"{said} is NULL in {nulls:,} of {rows:,} kept rows of the {split} split. Reject such rows: reject: "
            f'[{{when: "({label.expression}) IS NULL", because: no label}}].',
        )
    if label.type == "binary" and OTHER in classes:
        raise _error(
            source,
            at,
            f"{said} is neither 0 nor 1 (false nor true) in {classes[OTHER]:,} of {rows:,} kept rows of the {split} "
            'split; expected a yes-or-no question, such as "delay > 15", or type: classes or regression.',
        )
    present = [name for name, count in classes.items() if count]
    if label.type in ("binary", "classes") and len(present) == 1:
        (only,) = present
        shown = {"1": "1 (true)", "0": "0 (false)"}.get(only, only) if label.type == "binary" else repr(only)
        raise _error(
            source,
            at,
            f"The label has one class: all {rows:,} rows of the {split} split have {shown} for {said}. Check the "
            "expression, or split by smaller groups.",
        )


def _error(source: PipelineSource, key: Key, message: str) -> ConfigError:
    return source.error(Problem(key, f"{message} Nothing was published."))
