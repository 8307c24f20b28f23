"""What the sections of a pipeline file say of each other and of the tables' columns."""

import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, cast

from lakefit.config.clean import Clean
from lakefit.config.evaluate import VS_CURRENT, metric_names
from lakefit.config.features import Numeric
from lakefit.config.file import Key, Problem, nearest
from lakefit.config.functions import function_problem
from lakefit.config.images import made_columns
from lakefit.config.pipeline import Pipeline
from lakefit.config.rows import Split
from lakefit.config.sql import Kind, SqlError, expression_columns, kind_of, no_predicate, query_columns
from lakefit.config.train import Model, TrainImages

RESERVED = frozenset(
    f"_{name}"
    for name in (
        *("row", "row_hi", "row_lo", "key_hi", "key_lo", "occurrence", "position", "kept_row", "kept_occurrence"),
        *("file", "record", "header", "content", "reason", "rule", "label", "marks", "split", "group"),
        *("not_finite", "unparsable", "corrected"),
    )
)
"""Columns that Lakefit adds to the rows; `_lakefit_…` are its own as well, and `label` is among the features."""


def check_pipeline(
    pipeline: Pipeline, tables: Mapping[str, Mapping[str, str]]
) -> tuple[dict[str, Kind] | None, list[Problem]]:
    """Return the columns of the query's result (None where only Spark can tell) and every problem found.

    tables: the columns and Spark SQL types of each table; a table whose columns are not known is absent.
    """
    source = pipeline.source
    problems: list[Problem] = []
    if source.rows not in source.tables:
        problems.append(
            Problem(("source", "rows"), f"unknown table {source.rows!r}{nearest(source.rows, source.tables)}")
        )
        return None, problems
    for name, columns in tables.items():
        problems.extend(
            Problem(("source", "tables", name), f"the column name {column!r} is Lakefit's own")
            for column in columns
            if is_reserved(column)
        )
    columns_out: dict[str, Kind] | None = None
    if len(tables) == len(source.tables):
        if source.query is None:
            columns_out = {name: kind_of(sql_type) for name, sql_type in tables[source.rows].items()}
        else:
            try:
                columns_out = query_columns(source.query, tables, source.rows)
            except SqlError as error:
                problems.append(Problem(("source", "query"), str(error), error.line))
    return columns_out, problems + check_columns(pipeline, columns_out)


def check_columns(pipeline: Pipeline, columns: Mapping[str, Kind] | None, *, exact: bool = False) -> list[Problem]:
    """Return every problem with the columns that `clean` and the sections after it name; SQL is parsed in any case.

    columns: those of the query's result. exact: they are spelt as the rows will have them, and names outside of SQL
    must be too: Arrow tells `Day` from `day`. sqlglot's are in lower case.
    """
    check = _Check(columns, exact)
    # Spark resolves a dot as a field of a struct wherever rows leave for Python.
    for name in columns or ():
        if "." in name:
            check.problem(
                ("source", "query"), f"the column name {name!r} holds a dot; give it an alias in source.query"
            )
        if pipeline.source.query is not None and is_reserved(name):
            check.problem(("source", "query"), f"the column name {name!r} is Lakefit's own; give it another alias")
    for place, step in enumerate(pipeline.clean):
        _check_step(check, ("clean", place), step)
    _check_reasons(check, pipeline)
    _check_cleaned(check, pipeline)
    return check.problems


def check_cleaned_columns(pipeline: Pipeline, columns: Mapping[str, Kind]) -> list[Problem]:
    """Return every problem of the sections after `clean` with the columns that it left, spelt as they are."""
    check = _Check(columns, exact=True)
    _check_cleaned(check, pipeline)
    return check.problems


class _Check:
    """The columns as they stand after the steps so far (None: only Spark can tell), and the problems found."""

    def __init__(self, columns: Mapping[str, Kind] | None, exact: bool) -> None:
        self.columns = dict(columns) if columns is not None else None
        self._spelt = {name.lower(): name for name in columns or ()}
        self.exact = exact
        self.problems: list[Problem] = []

    def problem(self, key: Key, message: str, line: int = 0) -> None:
        self.problems.append(Problem(key, message, line))

    def must_exist(self, key: Key, name: str, line: int = 0) -> Kind:
        if self.columns is None:
            return "unknown"
        spelt = self._spelt.get(name.lower())
        if spelt is None or (self.exact and not line and name not in self.columns):
            self.problem(key, f"unknown column {name!r}{nearest(name, self.columns)}", line)
        return "unknown" if spelt is None else self.columns[spelt]

    def must_be(self, key: Key, name: str, allowed: Iterable[Kind], wanted: str) -> None:
        kind = self.must_exist(key, name)
        if kind != "unknown" and kind not in allowed:
            self.problem(key, f"the column {name!r} holds {_KIND_WORDS[kind]}; expected {wanted}")

    def sql(self, key: Key, sql: str) -> set[str]:
        """Check the columns of an expression; return their names in lower case."""
        try:
            named = expression_columns(sql)
        except SqlError as error:
            self.problem(key, str(error), error.line)
            return set()
        for name, line in named:
            self.must_exist(key, name, line)
        return {name.lower() for name, _ in named}

    def predicate(self, key: Key, sql: str) -> None:
        """Check an expression that must be true or false."""
        before = len(self.problems)
        self.sql(key, sql)
        kinds = {name.lower(): kind for name, kind in (self.columns or {}).items()}
        found = no_predicate(sql, kinds) if len(self.problems) == before else None
        if found is not None:
            self.problem(key, f'{sql!r} is {found}; expected a condition, such as "amount < 0"')

    def changed(self, name: str, kind: Kind | None) -> None:
        """Note that a step gave a column another kind, or (None) took it away."""
        if self.columns is None:
            return
        spelt = self._spelt.setdefault(name.lower(), name)
        if kind is None:
            self.columns.pop(spelt, None)
            del self._spelt[name.lower()]
        else:
            self.columns[spelt] = kind


_PLAIN: tuple[Kind, ...] = ("number", "boolean", "text", "time")
_PLAIN_WORDS = "numbers, booleans, text, dates or times"
_EXPECTABLE: Mapping[str, tuple[tuple[Kind, ...], str]] = {
    **dict.fromkeys(("mean", "deviation", "min", "max"), (("number", "boolean", "time"), "numbers, dates or times")),
    **dict.fromkeys(("unique", "values", "distinct"), (_PLAIN, _PLAIN_WORDS)),
}
_PARSED: Mapping[str, Kind] = {
    "date": "time",
    "timestamp": "time",
    "number": "number",
    "integer": "number",
    "boolean": "boolean",
    "list": "list",
}


def _check_step(check: _Check, key: Key, step: Clean) -> None:
    for place, name in enumerate(step.columns):
        at: Key = (*key, "column") if isinstance(step.column, str) else (*key, "column", place)
        if is_reserved(name):
            check.problem(at, f"the column name {name!r} is Lakefit's own")
        elif step.text or step.parse or step.correct:
            check.must_be(at, name, ("text",), "text")
        elif step.image:
            check.must_be(at, name, ("bytes",), "image files as bytes (BINARY)")
        elif step.clip:
            check.must_be(at, name, ("number",), "numbers")
        elif step.null_if:
            kind = check.must_exist(at, name)
            wrong = [value for value in step.null_if if kind == "number" and isinstance(value, str)]
            if wrong:
                check.problem((*key, "null_if"), f"{wrong[0]!r} is text, and the column {name!r} holds numbers")
            if kind not in ("number", "text", "unknown"):
                check.problem(at, f"the column {name!r} holds {_KIND_WORDS[kind]}; expected text or numbers")
        if step.parse:
            check.changed(name, _PARSED[step.parse.as_])
        for made, kind in made_columns(name, step.image).items() if step.image else ():
            check.changed(made, kind)
    if step.derive is not None:
        check.sql((*key, "derive"), step.derive)
        check.changed(step.columns[0], "unknown")
    for place, name in enumerate(step.drop or ()):
        check.must_exist((*key, "drop", place), name)
        check.changed(name, None)
    if step.custom is not None:
        problem = function_problem(step.custom)
        if problem is not None:
            check.problem((*key, "custom"), problem)
        check.columns = None


def _check_reasons(check: _Check, pipeline: Pipeline) -> None:
    keys: list[Key] = [("clean",)] * len(pipeline.marks)
    keys += [("reject", i, "because") for i in range(len(pipeline.reject))]
    keys += [("require", i, "because") for i in range(len(pipeline.require))]
    seen: set[str] = set()
    for key, rule in zip(keys, pipeline.rules, strict=True):
        if rule.reason in seen:
            check.problem(key, f"the reason {rule.reason!r} is given twice: their rows could not be told apart")
        seen.add(rule.reason)


def _check_cleaned(check: _Check, pipeline: Pipeline) -> None:
    if pipeline.deduplicate is not None:
        for i, name in enumerate(pipeline.deduplicate.key or ()):
            check.must_exist(("deduplicate", "key", i), name)
        if pipeline.deduplicate.order is not None:
            column = pipeline.deduplicate.order[0]
            check.must_be(("deduplicate", "keep"), column, _PLAIN, _PLAIN_WORDS)
    for i, reject in enumerate(pipeline.reject):
        check.predicate(("reject", i, "when"), reject.when)
    for i, require in enumerate(pipeline.require):
        check.predicate(("require", i, "that"), require.that)
    for scope in ("input", "result"):
        for i, expectation in enumerate(pipeline.expect.parsed(cast(Any, scope))):
            allowed, wanted = _EXPECTABLE.get(expectation.fact, ((), ""))
            for name in expectation.columns:
                if allowed:
                    check.must_be(("expect", scope, i), name, allowed, wanted)
                else:
                    check.must_exist(("expect", scope, i), name)
    _check_split(check, pipeline.split)
    in_label: set[str] = set()
    for i, label in enumerate(pipeline.label):
        in_label |= check.sql(("label", i, "expression"), label.expression)
        if label.weight is not None:
            check.sql(("label", i, "weight"), label.weight)
    _check_features(check, pipeline, in_label)
    measured = (*metric_names(pipeline.label), VS_CURRENT)
    for name in pipeline.evaluate.require:
        if name not in measured:
            check.problem(("evaluate", "require", name), f"nothing is measured as {name!r}{nearest(name, measured)}")
    for i, name in enumerate(pipeline.score.keys if pipeline.score else ()):
        check.must_exist(("score", "keys", i), name)


def _check_split(check: _Check, split: Split) -> None:
    for i, name in enumerate(split.by or ()):
        check.must_be(("split", "by", i), name, _PLAIN, _PLAIN_WORDS)
    for i, name in enumerate(split.stratify or ()):
        check.must_be(("split", "stratify", i), name, _PLAIN, _PLAIN_WORDS)
    if split.time is not None:
        wanted = ("number", "numbers, as the cuts are") if split.time.numeric else ("time", "dates or times")
        check.must_be(("split", "time", "column"), split.time.column, (cast(Kind, wanted[0]),), wanted[1])
    if split.column is not None:
        check.must_be(("split", "column"), split.column, ("text",), "the words train, validation and test")


def _check_features(check: _Check, pipeline: Pipeline, in_label: set[str]) -> None:
    features = pipeline.features
    groups = {
        "numeric": (features.numeric, ("number", "boolean"), "numbers"),
        "categorical": (features.categorical, ("text", "number", "boolean"), "text, integers or booleans"),
        "bucketize": (features.bucketize, ("number",), "numbers"),
        "multi_valued": (features.multi_valued, ("list",), "lists of text (clean: parse: {as: list} makes them)"),
        "dates": (features.dates, ("time",), "dates or times"),
        "tensors": (features.tensors, ("list",), "lists of numbers"),
        "images": (features.images, ("bytes",), "image files as bytes (BINARY)"),
    }
    near = {f"{name}_near".lower() for step in pipeline.clean if step.image for name in step.columns}
    for group, (sections, kinds, wanted) in groups.items():
        for number, section in enumerate(cast(Sequence[Numeric], sections)):
            for i, name in enumerate(section.columns):
                key: Key = ("features", group, number, "columns", i)
                check.must_be(key, name, cast(tuple[Kind, ...], kinds), wanted)
                if not re.fullmatch(r"[A-Za-z_][A-Za-z0-9_]*", name):
                    check.problem(
                        key,
                        f"{name!r} can't name an input of the model: letters, digits and _ alone; give the column an "
                        "alias in source.query",
                    )
                if group in ("tensors", "images") and name.lower() in ("numeric", "categorical"):
                    check.problem(key, f"{name!r} is the name of another array of a batch; give the column an alias")
                if name.lower() in near:
                    check.problem(
                        key, f"{name!r} depends on which other images there are: it groups rows, and is no feature"
                    )
                if name.lower() in in_label:
                    check.problem(key, f"the label is computed from {name!r}: as a feature it gives the answer away")
    _check_images(check, pipeline)
    made = {name.lower() for name in features.prepared_columns()}
    for i, label in enumerate(pipeline.label):
        of_classes = [name for name in made if re.fullmatch(rf"{label.name.lower()}_\d+", name)]
        taken = [label.name, *([label.weights] if label.weighted else [])]
        taken += of_classes if label.type == "multi_label" else []
        for name in taken:
            if name.lower() in made:
                check.problem(
                    ("features",) if label.name == "label" else ("label", i, "name"),
                    f"{name!r} is the name of a column of the prepared rows, of a label and of a feature; give the "
                    "feature an alias, or the label another name",
                )
            made.add(name.lower())


def _check_images(check: _Check, pipeline: Pipeline) -> None:
    """Check that images are given the size and mode in which the model takes them, where `clean` says which."""
    train = pipeline.train
    if not pipeline.features.images:
        no_images = "there are no images among the features; features.images names their columns"
        if train.images != TrainImages():
            check.problem(("train", "images"), no_images)
        if isinstance(train.model, Model) and train.model.application is not None:
            check.problem(("train", "model", "application"), no_images)
    last = {name: step.image for step in pipeline.clean if step.image is not None for name in step.columns}
    for number, section in enumerate(pipeline.features.images):
        for name in section.columns:
            step = last.get(name)
            if step is None:
                continue
            key: Key = ("features", "images", number)
            if step.channels not in (None, section.channels):
                message = f"clean makes {name!r} an image of {step.channels} channels, and {section.channels} are due"
                check.problem((*key, "channels"), message)
            if section.interpolation is None and step.resize is not None and step.resize != section.size:
                message = f"clean resizes {name!r} to {list(step.resize)}; give that, or interpolation to resize again"
                check.problem((*key, "size"), message)


def is_reserved(column: str) -> bool:
    """Return whether a name is that of a column which Lakefit adds to the rows."""
    return column.lower() in RESERVED or column.lower().startswith("_lakefit_")


_KIND_WORDS: Mapping[Kind, str] = {
    "number": "numbers",
    "boolean": "booleans",
    "text": "text",
    "time": "dates or times",
    "list": "lists",
    "bytes": "bytes",
    "other": "nested values",
    "unknown": "values of an unknown type",
}
