"""From judged rows to Parquet: equal bytes whatever the way, and a ledger that adds up."""

import io
import itertools
from collections import Counter
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from buckets import Made, Row, Setup, blocks_of, make, random_rows
from lakefit.config.features import Categorical, Features, Numeric
from lakefit.config.rows import SPLITS, Split
from lakefit.errors import InputError
from lakefit.prepare import spill
from lakefit.prepare.blocks import KEY_HIGH, bucket_of, rows_of
from lakefit.prepare.from_spark import columns_of
from lakefit.prepare.hashing import HIGH_SEED, hash_rows


def made(rows: list[Row], setup: Setup) -> Made:
    with TemporaryDirectory() as folder:
        return make(rows, Path(folder), setup)


def table(dataset: Made, *folders: str) -> pa.Table:
    """Return the rows of the files of the folders, in the order of their paths."""
    wanted = [content for path, content in sorted(dataset.files.items()) if path.split("/")[0] in folders]
    return pa.concat_tables([pq.read_table(io.BytesIO(content)) for content in wanted])


def without_rejects(files: dict[str, bytes]) -> dict[str, bytes]:
    return {path: content for path, content in files.items() if not path.startswith("rejects/")}


ROWS = random_rows(300, seed=1)
SETUP = Setup()


@pytest.fixture(scope="module")
def dataset() -> Made:
    return made(ROWS, SETUP)


@pytest.mark.parametrize(
    ("how", "order"),
    [
        ({"bucket_bits": 0}, None),
        ({"bucket_bits": 3, "batch_rows": 7}, None),
        ({"tasks": 4}, None),
        ({}, 5),
        ({"tasks": 3, "bucket_bits": 5, "batch_rows": 11}, 6),
        ({"bucket_bits": 5, "partition_bits": 1}, None),
    ],
)
def test_equal_rows_make_equal_bytes(dataset: Made, how: dict[str, int], order: int | None) -> None:
    rows = list(ROWS)
    if order is not None:
        np.random.Generator(np.random.PCG64(order)).shuffle(rows)  # type: ignore[arg-type]
    other = made(rows, replace(SETUP, **how))
    assert without_rejects(other.files) == without_rejects(dataset.files)
    assert other.features == dataset.features
    assert other.statistics == dataset.statistics
    rejects = [table(each, "rejects").to_pylist() for each in (dataset, other)]
    assert Counter(map(str, rejects[0])) == Counter(map(str, rejects[1]))


def test_rows_of_one_key_beyond_memory_make_equal_bytes(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    one_key = [replace(row, values=(7, *row.values[1:])) for row in random_rows(130, seed=2) if row.record is None]
    rows = [*ROWS, *one_key]
    expected = made(rows, SETUP)
    monkeypatch.setattr(spill, "HELD_BYTES", 4_000)
    monkeypatch.setattr(spill, "_SLICE_BYTES", 500)
    monkeypatch.setenv("SPARK_LOCAL_DIRS", str(tmp_path))
    spilt: list[int] = []
    spill_once = spill.Partition._spill
    monkeypatch.setattr(spill.Partition, "_spill", lambda self: (spilt.append(1), spill_once(self)))
    found = made(rows, replace(SETUP, bucket_bits=4, partition_bits=1, batch_rows=10, tasks=9))
    assert len(spilt) > 5
    assert found.files == expected.files
    assert found.statistics == expected.statistics
    assert not list(tmp_path.iterdir())


def test_the_comparison_of_bytes_can_fail(dataset: Made) -> None:
    changed = [*ROWS]
    changed[3] = replace(changed[3], values=(*changed[3].values[:3], 123.0, *changed[3].values[4:]))
    assert without_rejects(made(changed, SETUP).files) != without_rejects(dataset.files)
    assert without_rejects(made(ROWS, replace(SETUP, rows_per_group=17)).files) != without_rejects(dataset.files)


def test_files_and_row_groups_are_cut_by_the_rows_alone(dataset: Made) -> None:
    paths = Counter(path.split("/")[0] for path in dataset.files)
    assert paths["train"] > 2
    for entry in dataset.entries:
        file = pq.ParquetFile(io.BytesIO(dataset.files[entry["path"]]))
        groups = [file.metadata.row_group(i).num_rows for i in range(file.num_row_groups)]
        assert groups == entry["row_groups"]
        assert set(groups[:-1]) <= {SETUP.rows_per_group}
        assert 0 < groups[-1] <= SETUP.rows_per_group
        assert len(dataset.files[entry["path"]]) == entry["bytes"]
    assert max(len(entry["row_groups"]) for entry in dataset.entries) > 2


def test_every_row_is_in_one_place(dataset: Made) -> None:
    identities = [
        (row["_row"], row["_occurrence"])
        for name in (*SPLITS, "duplicates", "rejects")
        for row in table(dataset, name).select(["_row", "_occurrence"]).to_pylist()
    ]
    assert len(set(identities)) == len(identities) == len(ROWS) - 2  # each of two files has one header


def test_a_group_is_in_one_split_and_a_feature_has_no_null(dataset: Made) -> None:
    kept = table(dataset, *SPLITS)
    assert all(column.null_count == 0 for column in kept.columns)
    assert kept.schema.field("amount").type == kept.schema.field("amount_missing").type == pa.float32()
    assert kept.schema.field("city").type == pa.int32()
    assert kept.column_names[3:] == ["amount", "stamp", "amount_missing", "stamp_missing", "city", "flag", "label"]
    assert 0.05 < np.mean(kept["amount_missing"].to_numpy()) < 0.15


def test_no_two_rows_share_a_position_and_files_count_theirs_up(dataset: Made) -> None:
    entries = [entry for entry in dataset.entries if entry["split"] in SPLITS]
    seen: list[int] = []
    for entry in sorted(entries, key=lambda entry: entry["first_position"]):
        content = pq.read_table(io.BytesIO(dataset.files[entry["path"]]))
        first = entry["first_position"]
        assert content["_position"].to_pylist() == list(range(first, first + len(content)))
        assert not seen or first > seen[-1]
        seen += content["_position"].to_pylist()
    assert len(seen) == len(table(dataset, *SPLITS)) > 0


def test_a_duplicate_names_the_row_that_was_kept(dataset: Made) -> None:
    duplicates = table(dataset, "duplicates").to_pylist()
    survivors = {
        (row["_row"], row["_occurrence"])
        for name in (*SPLITS, "rejects")
        for row in table(dataset, name).select(["_row", "_occurrence"]).to_pylist()
    }
    assert len(duplicates) > 50
    assert all((row["_kept_row"], row["_kept_occurrence"]) in survivors for row in duplicates)


def test_rejects_have_a_reason_and_their_text(dataset: Made) -> None:
    rejects = table(dataset, "rejects")
    reasons = Counter(rejects["_reason"].to_pylist())
    assert set(reasons) == {
        "refunded",
        "too old",
        "the line does not fit the schema",
        "a header line inside the file",
        "every column of the deduplication key is null",
    }
    assert reasons["the line does not fit the schema"] == 5
    assert reasons["a header line inside the file"] == 1
    broken = rejects.filter(pa.compute.equal(rejects["_rule"], -1))
    assert sorted(broken["_record"].to_pylist()) == [f"broken {i}" for i in (0, 0, 1, 1, 2)]


def test_what_is_learned_is_learned_from_the_training_split(dataset: Made) -> None:
    """Against numpy, over the values as they were before they were normalized."""
    training = table(dataset, "train")
    for feature in dataset.features.numeric:
        ours = training.filter(pa.compute.equal(training[f"{feature.name}_missing"], 0.0))
        back = ours[feature.name].to_numpy().astype(float) * feature.scale + feature.offset
        found = dataset.statistics[feature.name]
        assert (found.count, found.nulls) == (len(ours), len(training) - len(ours))
        assert np.isclose(np.median(back), feature.fill, rtol=1e-6)
        assert np.isclose(back.mean(), found.mean, rtol=1e-6)
        assert np.isclose(back.std(), found.deviation, rtol=1e-4)
        assert np.allclose([back.min(), back.max()], [found.low, found.high], rtol=1e-6, atol=1e-6)
        assert np.allclose(
            np.quantile(back, [float(q) for q in found.quantiles]), list(found.quantiles.values()), rtol=1e-6, atol=1e-6
        )
        assert abs(found.distinct - len(set(back.tolist()))) <= 0.1 * len(set(back.tolist()))
        assert found.most_frequent[0][1] == max(Counter(back.tolist()).values())
        if found.histogram is not None:
            assert sum(found.histogram.counts) == found.count
    for category in dataset.features.categorical:
        indices = Counter(training[category.name].to_pylist())
        assert indices[1] == 0, "nothing of the training split is unknown"
        assert [indices[2 + i] for i in range(len(category.vocabulary))] == list(category.counts)
        assert list(category.counts) == sorted(category.counts, reverse=True)


def test_a_row_keeps_its_split_as_rows_are_added(dataset: Made) -> None:
    more = made([*ROWS, *random_rows(200, seed=2)], SETUP)
    places = [
        {(row["_row"], row["_occurrence"]): name for name in SPLITS for row in table(each, name).to_pylist()}
        for each in (dataset, more)
    ]
    both = places[0].keys() & places[1].keys()
    assert len(both) > 100
    assert all(places[0][row] == places[1][row] for row in both)


def test_a_feature_without_any_value_is_refused() -> None:
    rows = [Row((i, "g", 1, None, "Oslo", True)) for i in range(20)]
    setup = replace(SETUP, split=Split(train=0.9, validation=0.05, test=0.05))
    with pytest.raises(InputError, match="'amount' is null in every row of the training split"):
        made(rows, setup)


def test_rare_categories_are_unknown() -> None:
    cities = ["Oslo"] * 30 + ["Rome"] * 10 + ["Bonn"]
    rows = [Row((i, "g", 1, float(i), city, True)) for i, city in enumerate(cities)]
    section = Features(
        numeric=(Numeric(columns=("amount",)),), categorical=(Categorical(columns=("city",), min_count=5),)
    )
    setup = replace(SETUP, features=section, split=Split(by=("group",), train=0.98, validation=0.01, test=0.01))
    dataset = made(rows, setup)
    (city,) = dataset.features.categorical
    assert (city.vocabulary, city.counts, city.rare) == (("Oslo", "Rome"), (30, 10), 1)
    assert Counter(table(dataset, "train")["city"].to_pylist()) == {2: 30, 3: 10, 1: 1}


@pytest.mark.parametrize("tasks", [1, 3])
@pytest.mark.parametrize("bits", [0, 2, 6])
def test_blocks_hold_the_same_rows_a_partition_for_any_cut(bits: int, tasks: int) -> None:
    def by_partition(batch_rows: int) -> dict[int, Counter[str]]:
        found: dict[int, Counter[str]] = {}
        for block in blocks_of(ROWS, Setup(bucket_bits=bits, partition_bits=bits, batch_rows=batch_rows, tasks=tasks)):
            (cell,) = block.to_pylist()
            (rows,) = rows_of(block["block"])
            assert cell["rows"] == len(rows)
            assert set(bucket_of(rows[KEY_HIGH].to_numpy(), bits)) == {cell["partition"]}
            for half in ("hi", "lo"):
                expected = sum(rows[f"_row_{half}"].to_pylist()) % (1 << 64)
                assert int(cell[f"{half}_sum"]) == expected
            found.setdefault(cell["partition"], Counter()).update(map(str, rows.to_pylist()))
        return found

    whole = by_partition(1000)
    assert whole == by_partition(13)
    assert sum(sum(rows.values()) for rows in whole.values()) == len(ROWS)
    assert len(whole) > 0.8 * (1 << bits)


TYPES = [pa.int8(), pa.int16(), pa.int32(), pa.int64(), pa.float32(), pa.float64(), pa.date32(), pa.timestamp("us")]


@settings(max_examples=50, deadline=None)
@given(st.data(), st.sampled_from(TYPES), st.integers(1, 5), st.integers(0, 1_200), st.booleans())
def test_columns_in_one_list_a_row_are_the_columns(
    data: st.DataObject, of_type: pa.DataType, width: int, rows: int, nulls: bool
) -> None:
    dice = np.random.default_rng(data.draw(st.integers(0, 9)))
    offset = data.draw(st.integers(0, rows))
    words = dice.integers(-128, 128, (rows, width)).astype(f"i{of_type.byte_width}")
    mask = dice.random((rows, width)) < 0.2 if nulls else np.zeros((rows, width), bool)
    bits = pa.array(words.ravel()).type  # floats that are no number differ from themselves
    items = [pa.array(words[:, i], mask=mask[:, i]) for i in range(width)]
    flat = pa.array(words.ravel(), mask=mask.ravel()).view(of_type)
    lists = pa.ListArray.from_arrays(pa.array(np.arange(0, rows * width + 1, width), pa.int32()), flat)
    names = [f"c{i}" for i in range(width)]
    columns = columns_of(lists.slice(offset), names)
    assert list(columns) == names
    for name, expected in zip(names, items, strict=True):
        columns[name].validate(full=True)
        assert columns[name].type == of_type
        assert columns[name].view(bits).equals(expected.slice(offset))


def test_a_large_input_is_cut_into_blocks_as_it_arrives() -> None:
    whole, cut = blocks_of(ROWS, SETUP), blocks_of(ROWS, SETUP, flush_bytes=10_000)
    assert len(cut) > 2 * len(whole)
    contents = [
        Counter(str(row) for block in each for rows in rows_of(block["block"]) for row in rows.to_pylist())
        for each in (whole, cut)
    ]
    assert contents[0] == contents[1]


values = st.tuples(
    st.none() | st.integers(0, 4),
    st.sampled_from([None, "a", "b"]),
    st.none() | st.integers(0, 2),
    st.just(1.5) | st.none(),
    st.sampled_from([None, "Oslo", "Rome"]),
    st.none() | st.booleans(),
)
random_row = st.one_of(
    st.builds(
        Row, values, st.sampled_from([None, None, 0, 1]), st.sampled_from([0.0, 1.0, None]), st.sampled_from("xyz")
    ),
    st.builds(
        lambda text, file: Row(record=text, file=file, label=None), st.sampled_from(["?", "!"]), st.sampled_from("xyz")
    ),
    st.builds(lambda file: Row(record="h", file=file, header=True, label=None), st.sampled_from("xyz")),
)


def expected_ledger(rows: list[Row], setup: Setup) -> dict[str, Any]:
    """Classify each row by plain Python: kept, duplicate, rejected (by rule), header; in total and by file."""
    state: dict[int, str] = {}
    headers_seen: set[str] = set()
    groups: dict[Any, list[int]] = {}
    for i, row in enumerate(rows):
        if row.header:
            state[i] = "header" if row.file not in headers_seen else "rejected -2"
            headers_seen.add(row.file)
        elif row.record is not None:
            state[i] = "rejected -1"
        elif setup.remove and row.values[0] is None:
            state[i] = "rejected -3"
        elif setup.remove:
            groups.setdefault(row.values[0], []).append(i)
        else:
            groups[i] = [i]
    for members in groups.values():
        stamps = [rows[i].values[2] for i in members if rows[i].values[2] is not None]
        best = [i for i in members if rows[i].values[2] == max(stamps, default=None)]
        # Which of several equally good rows stays is decided by their content; only where all of them fare alike is it
        # known here.
        fates = {rows[i].rule for i in best}
        for i in members:
            state[i] = "duplicate"
        state[best[0]] = "unknown" if len(fates) > 1 else "kept" if None in fates else f"rejected {fates.pop()}"
    return {"states": state, "certain": "unknown" not in state.values()}


@given(st.lists(random_row, min_size=1, max_size=40), st.booleans(), st.integers(0, 3))
@settings(max_examples=40, deadline=None)
def test_the_ledger_adds_up_for_any_rows(rows: list[Row], remove: bool, bits: int) -> None:
    key = ("key",) if remove else ()
    setup = replace(
        SETUP, bucket_bits=bits, key=key, remove=remove, order=("stamp", True), rows_per_file=5, rows_per_group=3
    )
    categorical = Features(categorical=(Categorical(columns=("city",)),))
    dataset = made(rows, replace(setup, features=categorical))
    summaries = dataset.summaries
    expected = expected_ledger(rows, setup)
    states = Counter(expected["states"].values())
    kept = sum(sum(summary["kept"].values()) for summary in summaries)
    duplicates = sum(summary["duplicates"] for summary in summaries)
    rejected: Counter[int] = Counter()
    for summary in summaries:
        rejected.update({int(rule): count for rule, count in summary["rejected"].items()})
    headers = sum(summary["headers"] for summary in summaries)
    assert (
        sum(summary["arrived"][0] for summary in summaries)
        == len(rows)
        == kept + duplicates + rejected.total() + headers
    )
    assert (headers, duplicates) == (states["header"], states["duplicate"])
    if expected["certain"]:
        assert kept == states["kept"]
        assert rejected == {int(s.split()[1]): count for s, count in states.items() if s.startswith("rejected")}
    by_file: dict[str, list[int]] = {}
    for summary in summaries:
        for name, counts in summary["files"].items():
            by_file[name] = [a + b for a, b in zip(by_file.get(name, [0, 0, 0]), counts, strict=True)]
    for name in {row.file for row in rows}:
        own = [i for i, row in enumerate(rows) if row.file == name and expected["states"][i] != "header"]
        assert sum(by_file[name]) == len(own)
    written = Counter()
    for entry in dataset.entries:
        written[entry["split"]] += sum(entry["row_groups"])
    assert sum(written[name] for name in SPLITS) == kept
    assert (written["duplicates"], written["rejects"]) == (duplicates, rejected.total())


def test_rules_judge_the_row_that_is_kept_and_no_other() -> None:
    """A stale copy never survives because its correction was rejected, nor is it rejected in its correction's place."""
    stale, correction = (1, "g", 1, 1.5, "Oslo", True), (1, "g", 2, 1.5, "Oslo", True)
    setup = replace(SETUP, features=Features(categorical=(Categorical(columns=("city",)),)))
    for rules, fate in (((None, 0), (0, 1, {"0": 1})), ((0, None), (1, 1, {}))):
        rows = [Row(values, rule) for values, rule in zip((stale, correction), rules, strict=True)]
        (summary,) = made(rows, setup).summaries
        assert (sum(summary["kept"].values()), summary["duplicates"], summary["rejected"]) == fate


def test_the_identities_of_all_rows_are_summed_on_arrival(dataset: Made) -> None:
    identities = [
        identity for name in (*SPLITS, "duplicates", "rejects") for identity in table(dataset, name)["_row"].to_pylist()
    ]
    header = hash_rows([pa.array(["the,header"]), *(pa.nulls(1, kind) for kind in VALUE_TYPES)], 1, 1)
    halves = [sum(int.from_bytes(i[8 * half : 8 * half + 8], "big") for i in identities) for half in (0, 1)]
    arrived = [sum(summary["arrived"][1 + half] for summary in dataset.summaries) for half in (0, 1)]
    assert arrived[0] % 2**64 == (halves[0] + 2 * int(header[0])) % 2**64
    assert arrived[1] % 2**64 != halves[1] % 2**64


def test_the_split_of_a_group_is_the_hash_of_its_values(dataset: Made) -> None:
    """Rows of one group, kept in any split, carry the identity of a raw row of that group."""
    raw = [row for row in ROWS if row.record is None]
    columns = [pa.array([None] * len(raw), pa.string())] + [
        pa.array([row.values[i] for row in raw], kind) for i, kind in enumerate(VALUE_TYPES)
    ]
    hashes = [hash_rows(columns, len(raw), seed) for seed in (1, 2)]
    group_of = {
        int(hi).to_bytes(8, "big") + int(lo).to_bytes(8, "big"): row.values[1]
        for hi, lo, row in zip(*hashes, raw, strict=True)
    }
    splits: dict[str | None, set[str]] = {}
    for name in SPLITS:
        for identity in table(dataset, name)["_row"].to_pylist():
            splits.setdefault(group_of[identity], set()).add(name)
    assert len(splits) > 30
    assert all(len(names) == 1 for names in splits.values())
    assert set(itertools.chain.from_iterable(splits.values())) == set(SPLITS)


VALUE_TYPES = (pa.int32(), pa.string(), pa.int64(), pa.float64(), pa.string(), pa.bool_())
assert HIGH_SEED not in (1, 2)
