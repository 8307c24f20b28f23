"""`clean` and the rules of `reject` and `require`, as Spark SQL expressions over one row."""

import re
from collections.abc import Sequence

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.types import BooleanType, DataType, DoubleType, FloatType, NullType, NumericType, StringType

from lakefit.config.clean import Clean, Clip, Correct, Parse
from lakefit.config.file import Problem
from lakefit.config.functions import load_function
from lakefit.config.pipeline import Rule
from lakefit.config.rows import Label
from lakefit.config.sql import FIELD, MARKS, RECORD_END, ROW, quoted
from lakefit.errors import InputError

RULE = "_rule"
LABEL, WEIGHT = "_label", "_weight"
_NOTE = "_lakefit_note_"


def clean(frame: DataFrame, steps: Sequence[Clean]) -> DataFrame:
    """Return the frame after the steps, with `_marks` beside its columns; columns whose names begin with `_` stay.

    Before the first step and after the last, in every column: "", NaN and infinities are NULL, -0.0 is 0.0.

    Raises:
        InputError: a custom function can't be imported, or hands on no DataFrame or not the columns that it must.
    """
    marks = F.struct(
        F.lit(0).alias("not_finite"),
        F.lit(None).cast("string").alias("unparsable"),
        F.lit(None).cast("string").alias("corrected"),
        F.lit(None).cast("int").alias("rule"),
    )
    frame = _normal(frame.withColumn(MARKS, marks))
    rules = 0
    touched: set[str] = set()
    for place, step in enumerate(steps):
        if step.custom is not None:
            frame = _custom(_folded(frame), step.custom)
            touched = set(frame.columns)
        elif step.drop is not None:
            frame = frame.drop(*step.drop)
        elif step.derive is not None:
            frame = frame.withColumn(step.columns[0], F.expr(step.derive))
            touched |= set(step.columns)
        elif step.parse is not None:
            rejects = step.parse.rejects
            frame = _parsed(frame, place, step.columns, step.parse, rules if rejects else None)
            rules += len(step.columns) if rejects else 0
            touched |= set(step.columns)
        elif step.correct is not None:
            frame = _corrected(frame, place, step.columns, step.correct)
        else:
            types = {field.name.lower(): field.dataType for field in frame.schema.fields}
            text = {name: isinstance(types.get(name.lower()), StringType) for name in step.columns}
            frame = frame.withColumns({name: _changed(_column(name), step, text[name]) for name in step.columns})
            touched |= set(step.columns)
    frame = _folded(frame)
    return _normal(frame, {name.lower() for name in touched}) if touched else frame


def judge(frame: DataFrame, rules: Sequence[Rule], label: Label | None) -> DataFrame:
    """Add `_rule` (the number of the first rule that rejects the row, or NULL), `_label` and, if asked for, `_weight`.

    `_label` is a double, for classes text; without `label` it is NULL. `_weight` is a double.
    """
    first: Column = F.lit(None).cast("int")
    for number, rule in reversed(list(enumerate(rules))):
        if rule.predicate is not None:
            holds = F.coalesce(F.expr(rule.predicate), F.lit(rule.null == "reject"))
            first = F.when(holds, F.lit(number)).otherwise(first)
    columns = {RULE: F.coalesce(F.col(f"{MARKS}.rule"), first), LABEL: F.lit(None).cast("double")}
    if label is not None:
        value = F.expr(label.expression).cast("string" if label.type == "classes" else "double")
        columns[LABEL] = value if label.type == "classes" else F.when(F.abs(value) < F.lit(float("inf")), value)
        if label.weight is not None:
            columns[WEIGHT] = F.expr(label.weight).cast("double")
    return frame.withColumns(columns)


def label_problems(frame: DataFrame, label: Label) -> list[Problem]:
    """Return what is wrong with the types of the label's expressions over cleaned rows, before any row is looked at."""
    numbers: tuple[type[DataType], ...] = (NumericType, BooleanType, NullType)
    wanted = {
        "binary": (numbers, "a boolean, or 0 and 1 (type: classes takes text)"),
        "classes": ((*numbers, StringType), "text, integers or booleans"),
        "regression": (numbers, "numbers"),
    }[label.type]
    problems = []
    for name, sql, (types, words) in (
        ("expression", label.expression, wanted),
        ("weight", label.weight, (numbers, "numbers, 0 or more")),
    ):
        if sql is None:
            continue
        try:
            (found,) = frame.select(F.expr(sql)).schema
        except PySparkException as error:
            said = str(error).splitlines()[0]
            problems.append(Problem(("label", name), f"Spark refused: {said}"))
            continue
        if not isinstance(found.dataType, types):
            shown = found.dataType.simpleString()
            problems.append(Problem(("label", name), f"({sql}) is of type {shown}; expected {words}"))
    return problems


def _column(name: str) -> Column:
    return F.col(quoted(name))


def _normal(frame: DataFrame, names: set[str] | None = None) -> DataFrame:
    """Make "", NaN and infinities NULL and -0.0 0.0 in the columns of these lower-case names (None: in all)."""
    changes: dict[str, Column] = {}
    not_finite: Column = F.col(f"{MARKS}.not_finite")
    for field in frame.schema.fields:
        if field.name in (ROW, MARKS) or (names is not None and field.name.lower() not in names):
            continue
        column = _column(field.name)
        if isinstance(field.dataType, StringType):
            changes[field.name] = F.nullif(column, F.lit(""))
        elif isinstance(field.dataType, (DoubleType, FloatType)):
            finite = F.abs(column) < F.lit(float("inf"))  # Spark orders NaN above infinity.
            not_finite = not_finite + F.coalesce((~finite).cast("int"), F.lit(0))
            # x + 0 turns -0.0 into 0.0 and leaves every other number as it is.
            changes[field.name] = F.when(finite, column + F.lit(0.0).cast(field.dataType))
    if not changes:
        return frame
    return frame.withColumns({**changes, MARKS: F.col(MARKS).withField("not_finite", not_finite)})


def _changed(column: Column, step: Clean, is_text: bool) -> Column:
    if step.clip is not None:
        return _clipped(column, step.clip)
    if step.null_if is not None:
        return F.when(~column.isin(*[str(value) if is_text else value for value in step.null_if]), column)
    for verb in step.text or ():
        column = _text(column, verb)
    return column


def _clipped(column: Column, clip: Clip) -> Column:
    # A bound takes part only where it changes the value: the column keeps its type unless a bound needs another.
    if clip.min is not None:
        column = F.when(column < F.lit(clip.min), F.lit(_number(clip.min))).otherwise(column)
    if clip.max is not None:
        column = F.when(column > F.lit(clip.max), F.lit(_number(clip.max))).otherwise(column)
    return column


def _number(value: float) -> int | float:
    return int(value) if value == int(value) and abs(value) < 2**31 else value


def _text(column: Column, verb: str) -> Column:
    if verb == "trim":
        # SQL's trim takes spaces only; people mean tabs, line ends and no-break spaces too.
        return F.regexp_replace(column, r"^[\s\p{Z}]+|[\s\p{Z}]+$", "")
    if verb == "collapse":
        return F.regexp_replace(column, r"[\s\p{Z}]+", " ")
    if verb == "strip_control":
        return F.regexp_replace(column, r"\p{Cc}", "")
    if verb == "nfkc":
        # PySpark warns at the function type that its own stubs ask for.
        return arrow_udf(_nfkc, "string")(column)  # type: ignore[call-overload, no-any-return]
    return F.upper(column) if verb == "upper" else F.lower(column)


def _nfkc(texts: pa.Array) -> pa.Array:
    return pc.utf8_normalize(texts, form="NFKC")


def _parsed(frame: DataFrame, place: int, names: Sequence[str], parse: Parse, rule: int | None) -> DataFrame:
    for offset, name in enumerate(names):
        text = _column(name)
        value = _parse(_text(text, "trim"), parse)
        # Blank text is NULL, not unparsable.
        failed = (_text(text, "trim") != "") & value.isNull()
        note = F.when(failed, F.concat_ws(FIELD, F.lit(str(place)), F.lit(name), text))
        columns = {f"{_NOTE}unparsable_{place}_{offset}": note, name: value}
        if rule is not None:
            broken = F.coalesce(F.col(f"{MARKS}.rule"), F.when(failed, F.lit(rule + offset)))
            columns[MARKS] = F.col(MARKS).withField("rule", broken)
        frame = frame.withColumns(columns)
    return frame


def _parse(text: Column, parse: Parse) -> Column:
    if parse.as_ in ("date", "timestamp"):
        found = F.coalesce(*[_time(text, pattern, parse) for pattern in parse.formats])
        return found.cast("date") if parse.as_ == "date" else found
    if parse.as_ == "boolean":
        lower = F.lower(text)
        yes, no = (lower.isin(*[word.lower() for word in words]) for words in (parse.true_words, parse.false_words))
        return F.when(yes, F.lit(True)).when(no, F.lit(False))
    if parse.as_ == "list":
        assert parse.separator is not None
        items = F.transform(F.split(text, re.escape(parse.separator)), lambda item: _text(item, "trim"))
        return F.nullif(F.filter(items, lambda item: item != ""), F.array().cast("array<string>"))
    return _parsed_number(text, parse)


def _time(text: Column, pattern: str, parse: Parse) -> Column:
    time = F.try_to_timestamp(text, F.lit(pattern))
    if parse.as_ == "date" or parse.zone == "UTC" or parse.names_a_zone(pattern):
        return time
    return F.to_utc_timestamp(time, parse.zone)


def _parsed_number(text: Column, parse: Parse) -> Column:
    if parse.thousands == " ":
        text = F.regexp_replace(text, r"\p{Z}", " ")
    if parse.currency:
        words = "|".join(re.escape(word) for word in sorted(parse.currency, key=len, reverse=True))
        text = F.regexp_replace(text, r"^\((.*)\)$", "-$1")
        text = F.regexp_replace(text, rf"^([+-]?)\s*(?:{words})\s*", "$1")
        text = F.regexp_replace(text, rf"\s*(?:{words})$", "")
    whole = r"\d+"
    if parse.thousands is not None:
        whole = rf"(?:\d{{1,3}}(?:{re.escape(parse.thousands)}\d{{3}})+|\d+)"
    mark = re.escape(parse.decimal)
    fraction = rf"(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?"
    pattern = rf"[+-]?{whole if parse.as_ == 'integer' else fraction}"
    fits = text.rlike(rf"^{pattern}\s*%$" if parse.percent else rf"^{pattern}$")
    plain = F.regexp_replace(text, r"\s*%$", "") if parse.percent else text
    if parse.thousands is not None:
        plain = F.replace(plain, F.lit(parse.thousands), F.lit(""))
    plain = F.replace(plain, F.lit(parse.decimal), F.lit("."))
    number = plain.try_cast("bigint" if parse.as_ == "integer" else "double")
    return F.when(fits, number / 100 if parse.percent else number)


def _corrected(frame: DataFrame, place: int, names: Sequence[str], correct: Correct) -> DataFrame:
    for offset, name in enumerate(names):
        old = _column(name)
        new = _mapped(old, correct) if correct.mapping else _nearest(old, correct)
        note = F.when(old != new, F.concat_ws(FIELD, F.lit(str(place)), F.lit(name), old, new))
        frame = frame.withColumns({f"{_NOTE}corrected_{place}_{offset}": note, name: new})
    return frame


def _mapped(text: Column, correct: Correct) -> Column:
    pairs = F.create_map(*[F.lit(word) for pair in correct.mapping.items() for word in pair])
    return F.coalesce(F.try_element_at(pairs, text), text)


def _nearest(text: Column, correct: Correct) -> Column:
    values = F.array(*[F.lit(value) for value in correct.values])
    edits = F.transform(
        values,
        lambda value: F.struct(F.levenshtein(text, value, correct.max_edits).alias("edits"), value.alias("value")),
    )
    near = F.array_sort(F.filter(edits, lambda pair: pair["edits"] >= 0))
    clear = (F.size(near) == 1) | (
        F.try_element_at(near, F.lit(1))["edits"] < F.try_element_at(near, F.lit(2))["edits"]
    )
    winner = F.when(clear, F.try_element_at(near, F.lit(1))["value"])
    # Most values are right already, and the distances cost.
    return F.when(text.isin(*correct.values), text).otherwise(F.coalesce(winner, text))


def _folded(frame: DataFrame) -> DataFrame:
    """Put the notes of the steps into `_marks`."""
    for kind in ("unparsable", "corrected"):
        notes = [name for name in frame.columns if name.startswith(f"{_NOTE}{kind}_")]
        if notes:
            joined = F.concat_ws(RECORD_END, F.col(f"{MARKS}.{kind}"), *notes)
            frame = frame.withColumn(MARKS, F.col(MARKS).withField(kind, F.nullif(joined, F.lit("")))).drop(*notes)
    return frame


def _custom(frame: DataFrame, name: str) -> DataFrame:
    function = load_function(name)
    hidden = [column for column in (ROW, MARKS) if column in frame.columns]
    try:
        made = function(frame)
    except Exception as error:
        raise InputError(
            f"clean: custom: {name} raised {type(error).__name__}: {str(error).splitlines()[0]}"
        ) from error
    if not isinstance(made, DataFrame):
        raise InputError(f"clean: custom: {name} returned {type(made).__name__}; expected a DataFrame.")
    lost = [column for column in hidden if column not in made.columns]
    if lost:
        raise InputError(
            f"clean: custom: {name} returned no column {lost[0]}, by which each row is followed: add columns with "
            f"withColumn, or select {', '.join(hidden)} too."
        )
    return made
