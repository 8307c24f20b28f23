"""The identity that numpy computes is the one that Spark computes, for any values; and it never changes."""

from datetime import UTC, date, datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from lakefit.prepare.identity import identities, identity_columns

TYPES = {
    "t": (pa.string(), st.text(max_size=70)),
    "b": (pa.binary(), st.binary(max_size=70)),
    "i": (pa.int32(), st.integers(-(2**31), 2**31 - 1)),
    "l": (pa.int64(), st.integers(-(2**63), 2**63 - 1)),
    "s": (pa.int16(), st.integers(-(2**15), 2**15 - 1)),
    "d": (pa.float64(), st.floats(allow_nan=True)),
    "f": (pa.float32(), st.floats(width=32)),
    "o": (pa.bool_(), st.booleans()),
    "y": (pa.date32(), st.dates(date(1, 1, 1), date(9999, 12, 31))),
    "m": (
        pa.timestamp("us", "UTC"),
        st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1)).map(lambda t: t.replace(tzinfo=UTC)),
    ),
}
SCHEMA = pa.schema([(name, of_type) for name, (of_type, _) in TYPES.items()])
row = st.tuples(*(st.none() | values for _, values in TYPES.values()))


def of_spark(spark: Any, table: pa.Table) -> list[tuple[int, int]]:
    frame = spark.createDataFrame(table).coalesce(1)
    hi, lo = identity_columns({field.name: field.dataType for field in frame.schema.fields})
    return [(row[0] % 2**64, row[1] % 2**64) for row in frame.select(hi, lo).collect()]


def of_numpy(table: pa.Table) -> list[tuple[int, int]]:
    hi, lo = identities([column.combine_chunks() for column in table.columns], len(table))
    return list(zip(hi.tolist(), lo.tolist(), strict=True))


@settings(max_examples=8, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(row, min_size=1, max_size=40))
def test_spark_and_numpy_agree(spark: Any, rows: list[tuple[Any, ...]]) -> None:
    table = pa.table(
        [pa.array(column, field.type) for column, field in zip(zip(*rows, strict=True), SCHEMA, strict=True)],
        schema=SCHEMA,
    )
    assert of_numpy(table) == of_spark(spark, table)


def test_many_columns_and_rows_agree_too(spark: Any) -> None:
    draw = np.random.Generator(np.random.PCG64(4))
    columns = {
        f"c{i}": pa.array(draw.integers(0, 3, 40_000), pa.int32(), mask=draw.random(40_000) < 0.3) for i in range(130)
    }
    table = pa.table(columns)
    assert of_numpy(table) == of_spark(spark, table)
    assert len(set(of_numpy(table))) == len(table)


def test_long_texts_agree_too(spark: Any) -> None:
    draw = np.random.Generator(np.random.PCG64(5))
    lengths = [*range(4_090, 4_140), (1 << 20) + 7, 3_000_001]
    table = pa.table({"text": [bytes(draw.integers(32, 127, length, np.uint8)).decode() for length in lengths]})
    assert of_numpy(table) == of_spark(spark, table)


@pytest.mark.parametrize(
    ("of_type", "one", "other"),
    [
        (pa.int32(), [None, 1], [1, None]),
        (pa.string(), ["", None], [None, ""]),
        (pa.int32(), [0, None], [None, None]),
    ],
)
def test_null_is_no_value_in_any_place(of_type: pa.DataType, one: list[Any], other: list[Any]) -> None:
    both = pa.table({"a": pa.array([one[0], other[0]], of_type), "b": pa.array([one[1], other[1]], of_type)})
    assert len(set(of_numpy(both))) == 2


def test_the_identity_never_changes() -> None:
    table = pa.table({"a": [1, None], "b": ["Łódź and some more than thirty-two bytes", ""], "c": [-0.0, 1.5]})
    assert of_numpy(table) == GOLDEN, "a change makes other rows of every dataset: raise FORMAT_VERSION with it"


GOLDEN = [(0x56189F4C63F1E539, 0x9C1B45E5327ABFFE), (0x147303D59FCB5AD, 0xA2C3C55A66DD96B9)]
