"""`clean` and the rules of `reject` and `require`, as Spark SQL expressions over one row."""

import re
from collections.abc import Callable, Mapping, Sequence
from decimal import Decimal

import pyarrow as pa
import pyarrow.compute as pc
from pyspark.errors import PySparkException
from pyspark.sql import Column, DataFrame
from pyspark.sql import functions as F
from pyspark.sql.pandas.functions import arrow_udf
from pyspark.sql.pandas.types import from_arrow_type
from pyspark.sql.types import (
    ArrayType,
    BooleanType,
    DataType,
    DecimalType,
    DoubleType,
    FloatType,
    NullType,
    NumericType,
    StringType,
)

from lakefit.config.check import is_reserved
from lakefit.config.clean import Clean, Clip, Correct, Parse
from lakefit.config.file import Key, Problem
from lakefit.config.functions import load_function
from lakefit.config.images import FAULTS, Image, made_columns
from lakefit.config.pipeline import Pipeline, Rule
from lakefit.config.rows import Label
from lakefit.config.sql import FIELD, MARKS, RECORD_END, ROW, quoted
from lakefit.errors import InputError
from lakefit.prepare.images import SCHEMA as IMAGE
from lakefit.prepare.images import prepare_images
from lakefit.prepare.near import Groups

RULE = "_rule"
_NOTE = "_lakefit_note_"


def label_column(label: Label) -> str:
    """Return the column that holds a label's values on their way to the files."""
    return f"_lakefit_label_{label.name}"


def weight_column(label: Label) -> str:
    """Return the column that holds the weights of a label that has a weight of its own."""
    return f"_lakefit_weight_{label.name}"


def clean(frame: DataFrame, steps: Sequence[Clean], near: Mapping[str, Groups] | None = None) -> DataFrame:
    """Return the frame after the steps, with `_marks` beside its columns; columns whose names begin with `_` stay.

    near: the groups of a column's images that look alike; without them each image is a group.

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
    for place, step in enumerate(steps):
        columns = step.columns
        if step.custom is not None:
            frame = _custom(_folded(frame), step.custom)
            columns = tuple(frame.columns)
        elif step.drop is not None:
            frame = frame.drop(*step.drop)
        elif step.derive is not None:
            spelt = {name.lower(): name for name in frame.columns}
            columns = (spelt.get(columns[0].lower(), columns[0]),)
            frame = frame.withColumn(columns[0], F.expr(step.derive))
        elif step.parse is not None:
            rejects = step.parse.rejects
            frame = _parsed(frame, place, columns, step.parse, rules if rejects else None)
            rules += len(columns) if rejects else 0
        elif step.image is not None:
            frame = _prepared(frame, place, columns, step.image, rules, near or {})
            rules += len(columns) * len(step.faults)
        elif step.correct is not None:
            frame = _corrected(frame, place, columns, step.correct)
        else:
            types = {field.name.lower(): field.dataType for field in frame.schema.fields}
            frame = frame.withColumns({name: _changed(_column(name), step, types[name.lower()]) for name in columns})
        if columns:
            # What a step leaves is what the next one finds: no "" and no NaN.
            frame = _normal(frame, {name.lower() for name in columns})
    return _folded(frame)


def judge(frame: DataFrame, rules: Sequence[Rule], labels: Sequence[Label]) -> DataFrame:
    """Add `_rule` (the number of the first rule that rejects the row, or NULL), the labels and their weights.

    A label is a double, for classes text, for several of them a list of text. A weight is a double.
    """
    first: Column = F.lit(None).cast("int")
    for number, rule in reversed(list(enumerate(rules))):
        if rule.predicate is not None:
            holds = F.coalesce(F.expr(rule.predicate), F.lit(rule.null == "reject"))
            first = F.when(holds, F.lit(number)).otherwise(first)
    columns = {RULE: F.coalesce(F.col(f"{MARKS}.rule"), first)}
    for label in labels:
        value = F.expr(label.expression).cast(_LABEL_TYPES.get(label.type, "double"))
        columns[label_column(label)] = (
            value if label.type in _LABEL_TYPES else F.when(F.abs(value) < F.lit(float("inf")), value)
        )
        if label.weight is not None:
            columns[weight_column(label)] = F.expr(label.weight).cast("double")
    return frame.withColumns(columns)


_LABEL_TYPES = {"classes": "string", "multi_label": "array<string>"}


def predicate_problems(frame: DataFrame, pipeline: Pipeline) -> list[Problem]:
    """Return what Spark says against the predicates of `reject` and `require`, each at its place in the file."""
    predicates: list[tuple[Key, str]] = [(("reject", i, "when"), rule.when) for i, rule in enumerate(pipeline.reject)]
    predicates += [(("require", i, "that"), rule.that) for i, rule in enumerate(pipeline.require)]
    problems = []
    for key, sql in predicates:
        try:
            of_type = frame.select(F.expr(sql)).schema[0].dataType
        except PySparkException as error:
            problems.append(Problem(key, f"Spark refused: {str(error).splitlines()[0]}"))
            continue
        if not isinstance(of_type, BooleanType):
            problems.append(Problem(key, f"{sql!r} is of type {of_type.simpleString()}; expected a condition"))
    return problems


def label_problems(frame: DataFrame, label: Label, place: int) -> list[Problem]:
    """Return what is wrong with the types of a label's expressions over cleaned rows, before any row is looked at.

    place: of the label in the pipeline file.
    """
    numbers: tuple[type[DataType], ...] = (NumericType, BooleanType, NullType)
    wanted = {
        "binary": (numbers, "a boolean, or 0 and 1 (type: classes takes text)"),
        "classes": ((*numbers, StringType), "text, integers or booleans"),
        "multi_label": ((ArrayType,), "a list of text (clean: parse: {as: list} makes them)"),
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
            problems.append(Problem(("label", place, name), f"Spark refused: {said}"))
            continue
        if not isinstance(found.dataType, types):
            shown = found.dataType.simpleString()
            problems.append(Problem(("label", place, name), f"({sql}) is of type {shown}; expected {words}"))
    return problems


def _column(name: str) -> Column:
    return F.col(quoted(name))


def _normal(frame: DataFrame, names: set[str] | None = None) -> DataFrame:
    """Make "", NaN and infinities NULL and -0.0 0.0 in the columns of these lower-case names (None: in all)."""
    changes: dict[str, Column] = {}
    not_finite = F.col(f"{MARKS}.not_finite")
    strange_floats: list[str] = []
    for field in frame.schema.fields:
        if field.name in (ROW, MARKS) or (names is not None and field.name.lower() not in names):
            continue
        name = quoted(field.name)
        # As text what thousands of columns have: to build each expression from Python takes milliseconds.
        if isinstance(field.dataType, StringType):
            changes[field.name] = F.expr(f"nullif({name}, '') AS {name}")
        elif isinstance(field.dataType, (DoubleType, FloatType)):
            # x - x is NaN for what is not finite. x + 0 turns -0.0 into 0.0 and leaves every other number as it is.
            zero = "0D" if isinstance(field.dataType, DoubleType) else "0F"
            finite = f"{name} - {name} = {zero}"
            strange_floats.append(f"coalesce(NOT {finite}, false)")
            changes[field.name] = F.expr(f"IF({finite}, {name} + {zero}, NULL) AS {name}")
        elif isinstance(field.dataType, ArrayType) and isinstance(field.dataType.elementType, (DoubleType, FloatType)):
            column, of_type = _column(field.name), field.dataType.elementType
            strange = F.size(F.filter(column, lambda item: ~_is_finite(item)))
            not_finite = not_finite + F.when(column.isNotNull(), strange).otherwise(F.lit(0))
            changes[field.name] = _finite_items(column, of_type).alias(field.name)
    if not changes:
        return frame
    if strange_floats:
        # A sum of thousands of terms takes Spark minutes to parse and to optimize.
        not_finite = not_finite + F.expr(f"size(array_remove(array({', '.join(strange_floats)}), false))")
    changes[MARKS] = F.col(MARKS).withField("not_finite", not_finite).alias(MARKS)
    # withColumns compares each name with each.
    return frame.select(*(changes.get(name, quoted(name)) for name in frame.columns))


def _is_finite(number: Column) -> Column:
    # Spark orders NaN above infinity.
    return F.abs(number) < F.lit(float("inf"))


def _finite(number: Column, of_type: DataType) -> Column:
    return F.when(_is_finite(number), number + F.lit(0.0).cast(of_type))


def _finite_items(numbers: Column, of_type: DataType) -> Column:
    return F.transform(numbers, lambda number: _finite(number, of_type))


def _changed(column: Column, step: Clean, of_type: DataType) -> Column:
    if step.clip is not None:
        return _clipped(column, step.clip, of_type)
    if step.null_if is not None:
        same = [literal for value in step.null_if if (literal := _like(value, of_type)) is not None]
        return F.when(~column.isin(*same), column) if same else column
    for verb in step.text or ():
        column = _text(column, verb)
    return column


def _like(value: str | int | float, of_type: DataType) -> Column | None:
    """Return a value as a column of this type would hold it; None where none could."""
    if isinstance(of_type, StringType):
        return F.lit(str(value))
    if isinstance(value, str):
        return F.lit(value)
    if isinstance(of_type, (DoubleType, FloatType)):
        return F.lit(float(value)).cast(of_type)
    if value != int(value):
        return F.lit(Decimal(repr(value))) if isinstance(of_type, DecimalType) else None
    return F.lit(int(value)) if abs(value) < 2**63 else None


def _clipped(column: Column, clip: Clip, of_type: DataType) -> Column:
    # A bound takes part only where it changes the value: the column keeps its type unless a bound needs another.
    if clip.min is not None:
        column = F.when(column < _bound(clip.min, of_type), _bound(clip.min, of_type)).otherwise(column)
    if clip.max is not None:
        column = F.when(column > _bound(clip.max, of_type), _bound(clip.max, of_type)).otherwise(column)
    return column


def _bound(value: float, of_type: DataType) -> Column:
    """Return a bound that takes nothing from the precision of the column's values."""
    whole = value == int(value)
    if isinstance(of_type, (DoubleType, FloatType)):
        return F.lit(int(value) if whole and abs(value) < 2**31 else value)
    if whole and abs(value) < 2**63:
        return F.lit(int(value))
    return F.lit(Decimal(repr(value))) if isinstance(of_type, DecimalType) and abs(value) < 1e18 else F.lit(value)


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
        note = F.when(failed, F.concat_ws(FIELD, F.lit(str(place)), F.lit(name), _in_note(text)))
        columns = {f"{_NOTE}unparsable_{place}_{offset}": note, name: value}
        if rule is not None:
            broken = F.coalesce(F.col(f"{MARKS}.rule"), F.when(failed, F.lit(rule + offset)))
            columns[MARKS] = F.col(MARKS).withField("rule", broken)
        frame = frame.withColumns(columns)
    return frame


def _prepared(
    frame: DataFrame, place: int, names: Sequence[str], image: Image, rule: int, near: Mapping[str, Groups]
) -> DataFrame:
    for offset, name in enumerate(names):
        held = f"{_NOTE}image"
        frame = frame.withColumn(held, _image_udf(image, near.get(name))(_column(name)))
        said, fault = F.col(f"{held}.said"), F.col(f"{held}.fault")
        note = F.when(fault.isNotNull(), F.concat_ws(FIELD, F.lit(str(place)), F.lit(name), _in_note(said)))
        broken = F.coalesce(F.col(f"{MARKS}.rule"), fault + F.lit(rule + offset * len(FAULTS)))
        columns = {
            f"{_NOTE}unparsable_{place}_{offset}": note,
            MARKS: F.col(MARKS).withField("rule", broken),
            **{made: F.col(f"{held}.{made.removeprefix(f'{name}_')}") for made in made_columns(name, image)},
            name: F.col(f"{held}.content"),
        }
        frame = frame.withColumns(columns).drop(held)
    return frame


def _image_udf(image: Image, groups: Groups | None) -> Callable[[Column], Column]:
    def prepared(images: pa.Array) -> pa.Array:
        return prepare_images(images, image, groups)

    # PySpark warns at the function type that its own stubs ask for.
    return arrow_udf(prepared, from_arrow_type(IMAGE))  # type: ignore[call-overload, no-any-return]


def _in_note(text: Column) -> Column:
    """Return text without the characters that end a field or a record of a note."""
    return F.translate(text, FIELD + RECORD_END, "\ufffd\ufffd")


def _parse(text: Column, parse: Parse) -> Column:
    if parse.as_ in ("date", "timestamp"):
        # Spark overflows over years of six digits, which only a sign makes possible.
        readable = F.when(~text.rlike(r"[+-]\d{6,}"), text)
        found = F.coalesce(*[_time(readable, pattern, zoned, parse) for pattern, zoned in parse.patterns()])
        return found.cast("date") if parse.as_ == "date" else found
    if parse.as_ == "boolean":
        lower = F.lower(text)
        words = [[word.strip().lower() for word in some] for some in (parse.true_words, parse.false_words)]
        yes, no = (lower.isin(*some) for some in words)
        return F.when(yes, F.lit(True)).when(no, F.lit(False))
    if parse.as_ == "list":
        assert parse.separator is not None
        items = F.transform(F.split(text, re.escape(parse.separator)), lambda item: _text(item, "trim"))
        return F.nullif(F.filter(items, lambda item: item != ""), F.array().cast("array<string>"))
    return _parsed_number(text, parse)


def _time(text: Column, pattern: str, zoned: bool, parse: Parse) -> Column:
    """Return the time in UTC; as a date, midnight of the day in question."""
    time = F.try_to_timestamp(text, F.lit(pattern))
    time = F.when(F.year(time).between(1, 9999), time)
    if parse.zone == "UTC" or zoned == (parse.as_ == "timestamp"):
        return time
    if parse.as_ == "date":
        # Only a text that names a zone has a day that depends on where one stands.
        return F.from_utc_timestamp(time, parse.zone)
    utc = F.to_utc_timestamp(time, parse.zone)
    # What the clocks leave out in spring comes back as another time.
    return F.when(F.from_utc_timestamp(utc, parse.zone) == time, utc)


def _parsed_number(text: Column, parse: Parse) -> Column:
    # People and Excel write no-break blanks, real minus signs and curly apostrophes.
    text = F.regexp_replace(text, r"\p{Z}", " ")
    text = F.regexp_replace(text, "\u2212", "-")
    if parse.thousands == "'":
        text = F.regexp_replace(text, "\u2019", "'")
    if parse.currency:
        words = "|".join(re.escape(word) for word in sorted(parse.currency, key=len, reverse=True))
        text = F.regexp_replace(text, r"^\((.*)\)$", "-$1")
        text = F.regexp_replace(text, rf"(?i)^([+-]?)\s*(?:{words})\s*", "$1")
        text = F.regexp_replace(text, rf"(?i)\s*(?:{words})$", "")
    whole = r"\d+"
    if parse.thousands is not None:
        whole = rf"(?:[1-9]\d{{0,2}}(?:{re.escape(parse.thousands)}\d{{3}})+|\d+)"
    mark = re.escape(parse.decimal)
    fraction = rf"(?:{whole}(?:{mark}\d*)?|{mark}\d+)(?:[eE][+-]?\d+)?"
    pattern = rf"[+-]?{whole if parse.as_ == 'integer' else fraction}"
    fits = text.rlike(rf"^{pattern}\s*%$" if parse.percent else rf"^{pattern}$")
    plain = F.regexp_replace(text, r"\s*%$", "") if parse.percent else text
    if parse.thousands is not None:
        plain = F.replace(plain, F.lit(parse.thousands), F.lit(""))
    plain = F.replace(plain, F.lit(parse.decimal), F.lit("."))
    if parse.as_ == "integer":
        return F.when(fits, plain.try_cast("bigint"))
    number = plain.try_cast("double")
    # Digits beyond what a float64 can hold are no number.
    return F.when(fits & _is_finite(number), number / 100 if parse.percent else number)


def _corrected(frame: DataFrame, place: int, names: Sequence[str], correct: Correct) -> DataFrame:
    for offset, name in enumerate(names):
        old = _column(name)
        new = _mapped(old, correct) if correct.mapping else _nearest(old, correct)
        note = F.when(old != new, F.concat_ws(FIELD, F.lit(str(place)), F.lit(name), _in_note(old), _in_note(new)))
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
    step = f"clean: custom: {name}"
    hidden = {field.name: field.dataType for field in frame.schema if field.name in (ROW, MARKS)}
    try:
        made = function(frame)
    except (Exception, SystemExit) as error:
        said = (str(error).splitlines() or [""])[0]
        raise InputError(f"{step} raised {type(error).__name__}{': ' + said if said else ''}.") from error
    if not isinstance(made, DataFrame):
        library = type(made).__module__.partition(".")[0]
        kind = f"{type(made).__name__}{f' of {library}' if library != 'builtins' else ''}"
        raise InputError(f"{step} returned {kind}; expected a DataFrame of Spark.")
    there = {field.name: field.dataType for field in made.schema}
    lost = [column for column in hidden if column not in there]
    if lost:
        raise InputError(
            f"{step} returned no column {lost[0]}, by which each row is followed: add columns with withColumn, or "
            f"select {', '.join(hidden)} too."
        )
    changed = [column for column, of_type in hidden.items() if there[column] != of_type]
    if changed:
        raise InputError(f"{step} changed the column {changed[0]}, by which each row is followed: leave it as it is.")
    wrong = [column for column in there if "." in column or (column not in hidden and is_reserved(column))]
    if wrong:
        why = "holds a dot" if "." in wrong[0] else "is Lakefit's own"
        raise InputError(f"{step} returned the column {wrong[0]!r}, whose name {why}: give it another.")
    return made
