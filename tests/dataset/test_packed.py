"""The packed layout gives back each value as it was, and refuses what it has not written."""

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays

from lakefit.dataset.packed import pack, unpack


@settings(max_examples=60, deadline=None)
@given(
    arrays.arrays(np.float32, st.tuples(st.integers(0, 20), st.integers(1, 9))),
    st.integers(0, 5),
)
def test_each_value_comes_back_bit_by_bit(values: np.ndarray[tuple[int, int], np.dtype[np.float32]], skip: int) -> None:
    column = pack([pa.array(values[:, place]) for place in range(values.shape[1])])

    assert column.type == pa.binary(4 * values.shape[1])
    assert unpack(column, "float32").tobytes() == values.tobytes()
    assert unpack(column.slice(skip), "float32").tobytes() == values[skip:].tobytes()


def test_a_value_is_little_endian_and_stands_in_the_order_of_the_columns() -> None:
    column = pack([pa.array([1, -1], pa.int32()), pa.array([2, 3], pa.int32())])

    assert column.to_pylist() == [bytes([1, 0, 0, 0, 2, 0, 0, 0]), bytes([255] * 4 + [3, 0, 0, 0])]


def test_it_goes_through_parquet(tmp_path: object) -> None:
    values = np.arange(30, dtype=np.int32).reshape(10, 3)
    pq.write_table(pa.table({"c": pack([pa.array(column) for column in values.T])}), f"{tmp_path}/x.parquet")

    assert unpack(pq.read_table(f"{tmp_path}/x.parquet")["c"].chunk(0), "int32").tolist() == values.tolist()


@pytest.mark.parametrize(
    "column",
    [
        pa.array([b"12345"], pa.binary(5)),
        pa.array([b"1234"], pa.binary()),
        pa.array([b"1234", None], pa.binary(4)),
        pa.array([1.0], pa.float32()),
    ],
)
def test_what_is_not_packed_is_refused(column: pa.Array) -> None:
    with pytest.raises(ValueError, match="not packed float32"):
        unpack(column, "float32")
