"""Hashes are a part of the data format: the same for ever, for any layout of equal values, and different otherwise."""

from datetime import UTC, date, datetime
from decimal import Decimal

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lakefit.prepare.hashing import HIGH_SEED, hash_rows, mix64, mix_number

VALUES = {
    "text": pa.array(["", "a", "Łódź", "longer than eight bytes", None]),
    "integer": pa.array([0, 1, -1, 2**62, None], pa.int64()),
    "float": pa.array([0.0, 1.5, -1e300, 5e-324, None]),
    "boolean": pa.array([False, True, None]),
    "time": pa.array([datetime(2013, 1, 1, tzinfo=UTC), None], pa.timestamp("us", "UTC")),
    "date": pa.array([date(2013, 1, 1), None]),
    "decimal": pa.array([Decimal("1.50"), None], pa.decimal128(9, 2)),
    "list": pa.array([[1, 2], [], None], pa.list_(pa.int32())),
}
GOLDEN = {
    "text": [0x9E53EAD7C7DA8C19, 0xF4443791CFDFB738, 0xC3FAF890952B2DC7, 0xAB7024DB4DE67F95, 0x1A0DBBA3551898F6],
    "integer": [0x17633389B61CDDDF, 0x2F40980C5902D925, 0x3276A8FDB328B91E, 0xCD0EBE48063C2464, 0x1A0DBBA3551898F6],
    "float": [0x17633389B61CDDDF, 0x13DA694AA7216065, 0x62132FD556A4BFC8, 0x2F40980C5902D925, 0x1A0DBBA3551898F6],
    "boolean": [0x17633389B61CDDDF, 0x2F40980C5902D925, 0x1A0DBBA3551898F6],
    "time": [0xEAC0058BD1EFA8D7, 0x1A0DBBA3551898F6],
    "date": [0x65FA2BA3462C9301, 0x1A0DBBA3551898F6],
    "decimal": [0xC933005157A75110, 0x1A0DBBA3551898F6],
    "list": [0x3633A0C47A571DAA, 0xAF6052B40399E4A3, 0x1A0DBBA3551898F6],
}  # fmt: skip


def hashed(*columns: pa.Array | pa.ChunkedArray, seed: int = HIGH_SEED) -> list[int]:
    return hash_rows(columns, len(columns[0]), seed).tolist()


@pytest.mark.parametrize("name", VALUES)
def test_the_hash_of_a_value_never_changes(name: str) -> None:
    assert hashed(VALUES[name]) == GOLDEN[name], "a change reorders every dataset: raise FORMAT_VERSION with it"


def test_the_mixing_functions_never_change() -> None:
    # The first outputs of splitmix64 from the state 0 are published with it.
    assert mix64(np.zeros(1, np.uint64)).tolist() == [0xE220A8397B1DCDAF]
    assert mix_number(1, 2) == 0xBCD9DBB49673066B
    assert mix_number(1, 2) != mix_number(2, 1)


@pytest.mark.parametrize("name", VALUES)
def test_null_is_no_value(name: str) -> None:
    hashes = hashed(VALUES[name])
    assert len(set(hashes)) == len(hashes)


def test_null_is_one_value_whatever_the_type() -> None:
    assert len({hashed(array)[-1] for array in VALUES.values()}) == 1


def test_where_one_text_ends_and_the_next_begins_counts() -> None:
    assert hashed(pa.array(["a"]), pa.array(["bc"])) != hashed(pa.array(["ab"]), pa.array(["c"]))
    assert hashed(pa.array(["a", "a\0", "a\0\0"]))[0] not in hashed(pa.array(["a\0", "a\0\0"]))
    assert (
        hashed(pa.array([None, "a"]), pa.array(["a", None]))[0]
        != hashed(pa.array(["a"]), pa.array([None], "string"))[0]
    )


def test_the_order_of_columns_counts() -> None:
    one, two = pa.array([1, 2]), pa.array([2, 1])
    assert hashed(one, two) != hashed(two, one)
    assert len(set(hashed(one, two))) == 2


def test_the_two_halves_are_independent() -> None:
    column = pa.array([str(i) for i in range(100)])
    assert not set(hashed(column)) & set(hashed(column, seed=1))


def test_widths_of_integers_and_floats_do_not_count() -> None:
    numbers = [0, 1, 127, None, 3]
    assert len({tuple(hashed(pa.array(numbers, t))) for t in (pa.int8(), pa.int32(), pa.int64(), pa.uint64())}) == 1
    halves = [0.5, None, -2.25]
    assert hashed(pa.array(halves, pa.float32())) == hashed(pa.array(halves, pa.float64()))


texts = st.lists(st.none() | st.text(max_size=20), max_size=30)


@settings(max_examples=50, deadline=None)
@given(texts, st.integers(0, 5), st.integers(0, 5))
def test_layout_does_not_count(values: list[str | None], before: int, after: int) -> None:
    plain = pa.array(values, pa.string())
    expected = hashed(plain) if len(plain) else []
    padded = pa.array(["before"] * before + values + ["after"] * after, pa.string())
    sliced = padded.slice(before, len(values))
    cut = len(values) // 2
    layouts = {
        "slice": sliced,
        "dictionary": plain.dictionary_encode(),
        "slice of a dictionary": padded.dictionary_encode().slice(before, len(values)),
        "large": plain.cast(pa.large_string()),
        "chunks": pa.chunked_array([sliced.slice(0, cut), sliced.slice(cut)]),
        "chunks of dictionaries": pa.chunked_array(
            [plain.slice(0, cut).dictionary_encode(), plain.slice(cut).dictionary_encode()]
        ).unify_dictionaries(),
    }
    for name, layout in layouts.items():
        assert hash_rows([layout], len(values), HIGH_SEED).tolist() == expected, name


@settings(max_examples=50, deadline=None)
@given(st.lists(st.none() | st.integers(-(2**63), 2**63 - 1), max_size=30), st.integers(0, 70))
def test_offsets_of_numbers_do_not_count(values: list[int | None], before: int) -> None:
    padded = pa.array([7] * before + values, pa.int64()).slice(before)
    assert (
        hash_rows([padded], len(values), 1).tolist()
        == hash_rows([pa.array(values, pa.int64())], len(values), 1).tolist()
    )


@settings(max_examples=50, deadline=None)
@given(st.lists(st.tuples(st.text(max_size=9), st.text(max_size=9)), unique=True, max_size=40))
def test_different_rows_have_different_hashes(rows: list[tuple[str, str]]) -> None:
    columns = [pa.array([row[i] for row in rows], pa.string()) for i in range(2)]
    assert len(set(hash_rows(columns, len(rows), HIGH_SEED).tolist())) == len(rows)


def test_hashes_are_spread_evenly() -> None:
    hashes = hash_rows([pa.array(np.arange(1 << 14))], 1 << 14, HIGH_SEED)
    counts = np.bincount((hashes >> np.uint64(60)).astype(int), minlength=16)
    assert abs(counts - 1024).max() < 160  # 5 standard deviations
