"""Encoding of values by what was learned, and the cut of rows into files."""

import itertools
from datetime import date, datetime

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakefit.config.features import Categorical, Dates, MultiValued, Numeric
from lakefit.config.features import Features as Section
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
from lakefit.prepare.blocks import bucket_of
from lakefit.prepare.features import encode, model_inputs
from lakefit.prepare.write import files_of_range, range_bits


def numeric(**changes: float | str | None) -> NumericFeature:
    values = {"name": "x", "fill": 2.0, "offset": 1.0, "scale": 4.0, "indicator": "x_missing"}
    return NumericFeature.model_validate({**values, **changes}, strict=False)


CITY = CategoricalFeature(name="city", vocabulary=("Rome", "Oslo"), counts=(3, 2), rare=4)


def test_numbers_are_filled_then_normalized_and_the_gap_is_marked() -> None:
    table = pa.table({"x": pa.array([1.0, None, 9.0])})
    encoded = encode(table, Features(numeric=(numeric(),), categorical=()))
    assert list(encoded) == ["x", "x_missing"]
    assert encoded["x"].to_pylist() == [0.0, 0.25, 2.0]
    assert encoded["x_missing"].to_pylist() == [0.0, 1.0, 0.0]
    assert {array.type for array in encoded.values()} == {pa.float32()}


def test_numbers_far_from_zero_keep_their_digits() -> None:
    table = pa.table({"x": pa.array([1e9 + 0.001, 1e9 - 0.001])})
    feature = numeric(offset=1e9, scale=1e-3, indicator=None)
    (values,) = encode(table, Features(numeric=(feature,), categorical=())).values()
    np.testing.assert_allclose(values.to_numpy(), [1, -1], rtol=1e-4)


def test_categories_are_missing_unknown_or_their_place() -> None:
    table = pa.table({"city": pa.array(["Oslo", None, "Bonn", "Rome"])})
    encoded = encode(table, Features(numeric=(), categorical=(CITY,)))
    assert encoded["city"].to_pylist() == [3, 0, 1, 2]
    assert encoded["city"].type == pa.int32()
    assert CITY.size == 4


def test_a_category_without_vocabulary_knows_missing_and_unknown() -> None:
    empty = CITY.model_copy(update={"vocabulary": (), "counts": ()})
    table = pa.table({"city": pa.array(["Oslo", None])})
    assert encode(table, Features(numeric=(), categorical=(empty,)))["city"].to_pylist() == [1, 0]


some_integers = st.integers(-3, 9) | st.integers(-(2**63), 2**63 - 1) | st.sampled_from([10**5, 2**17, 2**18])


@given(
    st.lists(st.none() | some_integers, max_size=20), st.lists(some_integers.map(str) | st.sampled_from(["x", "01"]))
)
def test_integers_are_the_categories_that_their_text_is(values: list[int | None], vocabulary: list[str]) -> None:
    words = tuple(dict.fromkeys(vocabulary))
    feature = CITY.model_copy(update={"vocabulary": words, "counts": (1,) * len(words)})
    features = Features(numeric=(), categorical=(feature,))
    column = pa.array([0, *values, 0], pa.int64()).slice(1, len(values))
    of_integers, of_texts = (
        encode(pa.table({"city": each}), features)["city"] for each in (column, column.cast(pa.string()))
    )
    assert of_integers.equals(of_texts)


def test_the_model_takes_float64_decimal_text_padded_lists_and_seconds() -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int32()),
            "b": [True, None],
            "i": [-3, None],
            "t": ["x", None],
            "l": [["a", "b", "c"], None],
            "d": pa.array([date(1970, 1, 2), None]),
            "s": pa.array([datetime(1969, 12, 31, 23, 59, 59, 500_000), None], pa.timestamp("us")),
        }
    )
    section = Section(
        numeric=(Numeric(columns=("n",)),),
        categorical=(Categorical(columns=("i", "t", "b")),),
        multi_valued=(MultiValued(columns=("l",), max_values=2),),
        dates=(Dates(columns=("d", "s"), parts=("day",)),),
    )
    found = {name: array.tolist() for name, array in model_inputs(table, section).items()}
    assert repr(found.pop("n")) == "[[1.0], [nan]]"
    assert repr(found.pop("d")) == "[[86400.0], [nan]]"
    assert repr(found.pop("s")) == "[[-0.5], [nan]]"
    assert found == {
        "i": [["-3"], [""]], "t": [["x"], [""]], "b": [["1"], [""]], "l": [["a", "b"], ["", ""]],
    }  # fmt: skip


@pytest.mark.parametrize(
    ("rows", "per_file", "bits"),
    [(0, 10, 0), (10, 10, 0), (11, 10, 1), (20, 10, 1), (21, 10, 2), (10**12, 1, 16)],
)
def test_the_number_of_files_follows_from_the_rows(rows: int, per_file: int, bits: int) -> None:
    assert range_bits(rows, per_file) == bits


@settings(max_examples=50, deadline=None)
@given(st.integers(0, 5), st.integers(0, 5), st.integers(0, 2**64 - 1))
def test_the_files_of_a_range_hold_each_of_its_rows(bucket_bits: int, bits: int, key: int) -> None:
    high = np.array([key], np.uint64)
    bucket, number = (int(bucket_of(high, b)[0]) for b in (bucket_bits, bits))
    staged = [(b, f"bucket {b}") for b in range(1 << bucket_bits)]
    found = {n: files_of_range(staged, n, bucket_bits, bits) for n in range(1 << bits)}
    assert f"bucket {bucket}" in found[number]
    assert found[number] == sorted(found[number], key=lambda name: int(name.split()[1]))
    if bits <= bucket_bits:
        assert sorted(itertools.chain.from_iterable(found.values())) == sorted(path for _, path in staged)
