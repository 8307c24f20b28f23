"""Spark SQL that is simple enough for Arrow: comparisons, IS NULL, AND, OR and NOT over plain columns and literals.

What is compiled gives Spark's result exactly (tests/prepare/test_expressions.py holds the two against each other);
everything else is None and stays Spark's.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from decimal import Decimal
from typing import Any, Literal

import pyarrow as pa
import pyarrow.compute as pc
from sqlglot import exp

from lakefit.config.sql import SqlError, parse_statement
from lakefit.prepare.arrays import one_array

Evaluate = Callable[[pa.Table], pa.Array]
_COMPARED: Mapping[type[exp.Expression], Callable[[Any, Any], Any]] = {
    exp.EQ: pc.equal,
    exp.NEQ: pc.not_equal,
    exp.LT: pc.less,
    exp.LTE: pc.less_equal,
    exp.GT: pc.greater,
    exp.GTE: pc.greater_equal,
}


@dataclass(frozen=True, slots=True)
class Compiled:
    """An expression over a table's columns. kind: of its values; rows where it is NULL are null."""

    kind: Literal["boolean", "integer", "float", "text"]
    evaluate: Evaluate
    literal: Decimal | None = None


def compile_sql(sql: str, types: Mapping[str, pa.DataType]) -> Compiled | None:
    """Return the expression for Arrow, or None where only Spark's result is known to be right.

    types: of the columns, by name; their floats hold neither NaN nor infinity.
    """
    try:
        return _compiled(parse_statement(sql), types)
    except SqlError:
        return None


def _compiled(node: exp.Expression, types: Mapping[str, pa.DataType]) -> Compiled | None:
    if isinstance(node, exp.Paren):
        return _compiled(node.this, types)
    if isinstance(node, exp.Column):
        return _column(node, types)
    if isinstance(node, (exp.Literal, exp.Neg, exp.Boolean)):
        return _literal(node)
    if isinstance(node, exp.Not):
        inner = _boolean(node.this, types)
        return inner and Compiled("boolean", lambda table: pc.invert(inner(table)))
    if isinstance(node, (exp.And, exp.Or)):
        return _connected(node, types)
    if isinstance(node, exp.Is) and isinstance(node.expression, exp.Null):
        value = _compiled(node.this, types)
        return value and Compiled("boolean", lambda table: pc.is_null(value.evaluate(table)))
    if type(node) in _COMPARED:
        return _comparison(node, types)
    return None


def _column(node: exp.Column, types: Mapping[str, pa.DataType]) -> Compiled | None:
    found = [name for name in types if name.lower() == node.name.lower()]
    if node.table or len(found) != 1:
        return None
    (name,) = found
    kinds: tuple[tuple[Callable[[pa.DataType], bool], Any], ...] = (
        (pa.types.is_boolean, "boolean"),
        (pa.types.is_integer, "integer"),
        (pa.types.is_float64, "float"),
        (pa.types.is_string, "text"),
    )
    kind = next((kind for is_kind, kind in kinds if is_kind(types[name])), None)
    return Compiled(kind, lambda table: one_array(table[name])) if kind is not None else None


def _literal(node: exp.Expression) -> Compiled | None:
    if isinstance(node, exp.Boolean):
        return Compiled("boolean", _constant(bool(node.this), pa.bool_()))
    negative = isinstance(node, exp.Neg)
    inner = node.this if negative else node
    if not isinstance(inner, exp.Literal):
        return None
    if inner.is_string:
        # Spark reads backslashes in literals as escapes.
        plain = not negative and "\\" not in inner.this
        return Compiled("text", _constant(inner.this, pa.string())) if plain else None
    text = f"-{inner.this}" if negative else inner.this
    if not text.lstrip("-").replace(".", "", 1).isdigit():
        return None
    number = Decimal(text)
    if "." in text:
        return Compiled("float", _constant(float(number), pa.float64()), number)
    return Compiled("integer", _constant(int(number), pa.int64()), number) if abs(number) < 2**31 else None


def _constant(value: Any, of_type: pa.DataType) -> Evaluate:
    return lambda table: pa.repeat(pa.scalar(value, of_type), len(table))


def _boolean(node: exp.Expression, types: Mapping[str, pa.DataType]) -> Evaluate | None:
    value = _compiled(node, types)
    return value.evaluate if value is not None and value.kind == "boolean" else None


def _connected(node: exp.And | exp.Or, types: Mapping[str, pa.DataType]) -> Compiled | None:
    left, right = _boolean(node.this, types), _boolean(node.expression, types)
    if left is None or right is None:
        return None
    connect = pc.and_kleene if isinstance(node, exp.And) else pc.or_kleene
    return Compiled("boolean", lambda table: connect(left(table), right(table)))


def _comparison(node: exp.Expression, types: Mapping[str, pa.DataType]) -> Compiled | None:
    left, right = _compiled(node.this, types), _compiled(node.expression, types)
    if left is None or right is None:
        return None
    compare, one, other = _COMPARED[type(node)], left.evaluate, right.evaluate
    if left.kind == right.kind and left.kind != "float":
        return Compiled("boolean", lambda table: compare(*_as_one_type(one(table), other(table))))
    # A column of integers against a fraction is compared as DECIMAL: only Spark does that.
    if all(side.kind == "float" or side.literal is not None for side in (left, right)):
        double = pa.float64()
        return Compiled("boolean", lambda table: compare(one(table).cast(double), other(table).cast(double)))
    return None


def _as_one_type(left: pa.Array, right: pa.Array) -> tuple[pa.Array, pa.Array]:
    if pa.types.is_integer(left.type):
        return left.cast(pa.int64()), right.cast(pa.int64())
    return left, right
