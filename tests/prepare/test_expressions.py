"""What is compiled for Arrow gives Spark's result, NULLs included; everything else is left to Spark."""

from typing import Any

import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from pyspark.sql import functions as F

from lakefit.prepare.expressions import compile_sql

TYPES = {"i": pa.int32(), "l": pa.int64(), "d": pa.float64(), "t": pa.string(), "b": pa.bool_(), "c": pa.bool_()}
SCHEMA = pa.schema(list(TYPES.items()))
row = st.tuples(
    st.none() | st.integers(-3, 3) | st.integers(-(2**31), 2**31 - 1),
    st.none() | st.integers(-3, 3) | st.integers(-(2**63), 2**63 - 1),
    st.none() | st.sampled_from([0.0, 0.5, -1.5, 3.0, 1e300]) | st.floats(allow_nan=False, allow_infinity=False),
    st.none() | st.sampled_from(["", "a", "A", "b", "\u00e4", "z\U0001f600", "\uffff"]),
    st.none() | st.booleans(),
    st.none() | st.booleans(),
)
operators = st.sampled_from(["=", "<>", "!=", "<", "<=", ">", ">="])
comparisons = st.one_of(
    st.builds(
        "{} {} {}".format, st.sampled_from("il"), operators, st.sampled_from(["i", "l", "0", "-2", "2147483647"])
    ),
    st.builds(
        "{} {} {}".format, st.just("d"), operators, st.sampled_from(["d", "0", "-1.5", "0.1", "3", "1000000.25"])
    ),
    st.builds("{} {} {}".format, st.just("t"), operators, st.sampled_from(["t", "'a'", "'\u00e4'", "''"])),
    st.builds("{} IS {}NULL".format, st.sampled_from("ildtb"), st.sampled_from(["", "NOT "])),
    st.sampled_from(["b", "c", "true", "b = c", "b = false"]),
)
conditions = st.recursive(
    comparisons,
    lambda inner: st.one_of(
        st.builds("({} AND {})".format, inner, inner),
        st.builds("({} OR {})".format, inner, inner),
        st.builds("NOT ({})".format, inner),
    ),
    max_leaves=6,
)


@settings(max_examples=12, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(row, min_size=1, max_size=20), st.lists(conditions, min_size=15, max_size=15))
def test_arrow_gives_sparks_result(spark: Any, rows: list[tuple[Any, ...]], conditions: list[str]) -> None:
    columns = [pa.array(values, field.type) for values, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)]
    table = pa.Table.from_arrays(columns, schema=SCHEMA)
    frame = spark.createDataFrame(table).coalesce(1)
    expected = frame.select(*[F.expr(sql).alias(str(i)) for i, sql in enumerate(conditions)]).toArrow()
    for i, sql in enumerate(conditions):
        compiled = compile_sql(sql, TYPES)
        assert compiled is not None, sql
        assert compiled.evaluate(table).to_pylist() == expected[str(i)].to_pylist(), sql


@pytest.mark.parametrize(
    "sql",
    ["i > 0.5", "l = 0.5", "i + 1 > 2", "d / 0 > 1", "upper(t) = 'A'", "t LIKE 'a%'", "i = t", "d = '1'", "x > 1",
     "t = 'a\\\\b'", "i IN (1, 2)", "d > 1e3", "l > 9999999999", "CASE WHEN b THEN 1 END = 1", "t.i = 1", "i > d",
     "i <=> l"],
)  # fmt: skip
def test_everything_else_is_sparks(sql: str) -> None:
    assert compile_sql(sql, TYPES) is None
