"""What is learned: scikit-learn's numbers, the same bits for any buckets, from the training rows alone."""

import json
from collections.abc import Sequence
from decimal import Decimal
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pytest
from numpy.typing import NDArray
from sklearn.impute import SimpleImputer
from sklearn.preprocessing import (
    MaxAbsScaler,
    MinMaxScaler,
    PowerTransformer,
    QuantileTransformer,
    RobustScaler,
    StandardScaler,
)

from lakefit.config.rows import Label
from lakefit.dataset.features import Features, LabelFeature, NumericFeature
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.dataset.transform import interpolated
from lakefit.errors import InputError
from lakefit.prepare.features import encode, encode_label
from lakefit.prepare.learn import UnlearnableError, learn_label
from lakefit.prepare.statistics import Summary
from learning import ROWS, learner, section


def numbers(kind: str) -> NDArray[np.float64]:
    draw = np.random.Generator(np.random.PCG64(3))
    values = {
        "normal": draw.normal(5, 2, ROWS),
        "skewed": draw.lognormal(0, 1.5, ROWS),
        "negative": -draw.lognormal(1, 1, ROWS),
        "ties": np.round(draw.normal(0, 2, ROWS)) + 0.0,  # -0.0 is gone after `clean`
        "zeros": np.where(draw.random(ROWS) < 0.5, 0, draw.random(ROWS)),
        "constant": np.full(ROWS, 0.1),
        "far": 1e9 + 1e-3 * draw.normal(size=ROWS),
    }[kind]
    values[draw.random(ROWS) < 0.1] = np.nan
    return values


def encoded(values: NDArray[np.float64], folder: Path, **settings: Any) -> tuple[NDArray[np.float64], NumericFeature]:
    """Return the numbers in float64 as preparation makes them, and what it learned."""
    from lakefit.dataset.transform import normalized

    table = pa.table({"x": pa.array(values, from_pandas=True)})
    features = section(numeric={"columns": ["x"], **settings})
    (feature,) = learner(table, features, folder).learn().numeric
    return np.asarray(normalized(np, values, feature)), feature


SCALERS = {
    "standard": StandardScaler(),
    "min_max": MinMaxScaler(),
    "robust": RobustScaler(),
    "max_abs": MaxAbsScaler(),
    "quantile": QuantileTransformer(n_quantiles=101, subsample=None),
}
FILLS = {"mean": "mean", "median": "median", "most_frequent": "most_frequent"}


@pytest.mark.parametrize("kind", ["normal", "skewed", "negative", "ties", "zeros", "constant"])
@pytest.mark.parametrize("normalize", SCALERS)
def test_scaling_is_scikit_learns(tmp_path: Path, kind: str, normalize: str) -> None:
    values = numbers(kind)
    ours, _ = encoded(values, tmp_path, normalize=normalize)
    theirs = SCALERS[normalize].fit(values[:, None]).transform(values[:, None])[:, 0]
    known = ~np.isnan(values)
    np.testing.assert_allclose(ours[known], theirs[known], rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["zeros", "ties", "constant"])
def test_quantiles_of_values_that_were_not_seen_are_scikit_learns(tmp_path: Path, kind: str) -> None:
    values = numbers(kind)
    _, feature = encoded(values, tmp_path, normalize="quantile")
    theirs = SCALERS["quantile"].fit(values[:, None])
    seen = np.unique(values[~np.isnan(values)])
    others = np.concatenate([seen, np.nextafter(seen, np.inf), np.nextafter(seen, -np.inf), seen + 0.5, [-1e9, 1e9]])
    expected = theirs.transform(others[:, None])[:, 0]
    np.testing.assert_allclose(interpolated(np, others, feature.references), expected, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("kind", ["normal", "skewed", "negative", "ties", "far"])
@pytest.mark.parametrize("fill", FILLS)
def test_fills_are_scikit_learns(tmp_path: Path, kind: str, fill: str) -> None:
    values = numbers(kind)
    _, feature = encoded(values, tmp_path, fill=fill, normalize="none")
    assert feature.fill == pytest.approx(SimpleImputer(strategy=fill).fit(values[:, None]).statistics_[0], rel=1e-9)


@pytest.mark.parametrize("kind", ["normal", "skewed", "negative", "ties"])
@pytest.mark.parametrize("power", [None, -1.5, 0.0, 0.7, 2.0])
def test_yeo_johnson_is_scikit_learns(tmp_path: Path, kind: str, power: float | None) -> None:
    values = numbers(kind)
    given = {} if power is None else {"lambda": power}
    ours, feature = encoded(values, tmp_path, normalize="yeo_johnson", **given)
    known = ~np.isnan(values)
    theirs = PowerTransformer().fit(values[known, None])
    if power is not None:
        theirs.lambdas_ = np.array([power])
        theirs.standardize = False
        transformed = theirs.transform(values[known, None])
        expected = StandardScaler().fit_transform(transformed)[:, 0]
        np.testing.assert_allclose(ours[known], expected, rtol=1e-9, atol=1e-9)
    else:
        # scikit-learn's own lambda moves by 1e-8 with the order of the rows.
        assert feature.power == pytest.approx(theirs.lambdas_[0], abs=1e-6)
        np.testing.assert_allclose(ours[known], theirs.transform(values[known, None])[:, 0], rtol=1e-6, atol=1e-6)


@pytest.mark.parametrize("kind", ["thousands", "years", "tight", "below zero"])
def test_the_power_of_numbers_far_from_zero_and_close_together_is_the_likeliest(tmp_path: Path, kind: str) -> None:
    draw = np.random.Generator(np.random.PCG64(4)).normal(size=ROWS)
    values = {
        "thousands": 1e5 + 10 * draw, "years": 2000 + 10 * np.exp(draw / 3), "tight": 1e6 * np.exp(0.01 * draw),
        "below zero": -1e5 - 10 * np.exp(draw / 2),
    }[kind]  # fmt: skip
    ours, feature = encoded(values, tmp_path, normalize="yeo_johnson")
    assert feature.power is not None

    def likelihood(power: float) -> float:
        # y in units of its slope at the center, so that the Jacobian is 1 there.
        log = np.log1p((np.abs(values) - abs(values[0])) / (1 + abs(values[0])))
        exponent = power if values[0] > 0 else 2 - power
        y = np.expm1(exponent * log) / exponent if exponent else log
        return float(-ROWS / 2 * np.log(np.var(y)) + (exponent - 1) * log.sum())

    best = likelihood(feature.power)
    for other in (1.0, 0.9 * feature.power, 1.1 * feature.power, PowerTransformer().fit(values[:, None]).lambdas_[0]):
        assert likelihood(float(other)) <= best
    assert (ours.mean(), ours.std()) == pytest.approx((0, 1), abs=1e-6)
    assert (np.argsort(ours) == np.argsort(values)).all()
    assert len(np.unique(ours.astype(np.float32))) > 0.99 * len(np.unique(values))


@pytest.mark.parametrize("settings", [{"normalize": "yeo_johnson"}, {"clip": {"robust_z": 5}}, {"fill": "mean"}])
@pytest.mark.parametrize("largest", [1e150, 1e300, 8e307])
def test_the_largest_numbers_are_scaled_too(tmp_path: Path, largest: float, settings: dict[str, Any]) -> None:
    values = largest * np.random.Generator(np.random.PCG64(4)).uniform(-1, 1, ROWS)
    ours, _ = encoded(values, tmp_path, **settings)
    assert (ours.mean(), ours.std()) == pytest.approx((0, 1), abs=1e-6)


def test_a_power_that_leaves_float64_is_refused_with_its_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"'x' \(.*\) leaves float64 under normalize: yeo_johnson with lambda 1e\+06"):
        encoded(numbers("normal"), tmp_path, normalize="yeo_johnson", **{"lambda": 1e6})


def test_a_mean_of_1e9_and_values_near_1e300_and_1e_minus_300_are_scaled_right(tmp_path: Path) -> None:
    plain = numbers("normal")
    expected = (plain - np.nanmean(plain)) / np.nanstd(plain)
    for values, tolerance in ((1e9 + 1e-3 * plain, 1e-3), (1e300 * plain, 1e-9), (1e-300 * plain, 1e-9)):
        ours, _ = encoded(values, tmp_path)
        known = ~np.isnan(values)
        # Near 1e9 a float64 is a multiple of 1.2e-7: what the raw values have lost no scaling brings back.
        np.testing.assert_allclose(ours[known], expected[known], atol=tolerance)


def test_clips_are_learned_before_the_scale(tmp_path: Path) -> None:
    values = numbers("skewed")
    low, high = np.nanquantile(values, [0.05, 0.9])
    clipped = np.clip(values, low, high)
    ours, feature = encoded(values, tmp_path, clip={"quantiles": [0.05, 0.9]})
    assert (feature.low, feature.high) == pytest.approx((low, high), rel=1e-12)
    np.testing.assert_allclose(
        ours[~np.isnan(values)], ((clipped - np.nanmean(clipped)) / np.nanstd(clipped))[~np.isnan(values)], rtol=1e-9
    )
    _, robust = encoded(values, tmp_path, clip={"robust_z": 3})
    median = np.nanmedian(values)
    reach = 3 * 1.482602218505602 * np.nanmedian(np.abs(values - median))
    assert (robust.low, robust.high) == pytest.approx((median - reach, median + reach), rel=1e-9)


def test_constant_columns_become_zero(tmp_path: Path) -> None:
    for normalize in ("standard", "min_max", "robust", "yeo_johnson"):
        ours, _ = encoded(np.full(50, 0.1), tmp_path, normalize=normalize)
        assert (ours == 0).all(), normalize


GROUPS: dict[str, Any] = {
    "numeric": [
        {"columns": ["a"], "clip": {"robust_z": 4}, "normalize": "yeo_johnson", "indicator": True},
        {"columns": ["b"], "normalize": "quantile", "fill": "most_frequent"},
    ],
    "categorical": [{"columns": ["c"], "min_count": 2, "max_size": 3}, {"columns": ["h"], "hash_buckets": 7}],
    "multi_valued": {"columns": ["m"], "max_values": 2},
    "bucketize": {"columns": ["a"], "boundaries": [0, 5]},
    "dates": {"columns": ["d"], "parts": ["month", "hour"], "cyclical": True},
}


def mixed(rows: int = ROWS) -> pa.Table:
    draw = np.random.Generator(np.random.PCG64(5))
    words = np.array(["Oslo", "Rome", "Bonn", "Łódź", "Nice", "", "日本"])

    def some(values: Sequence[Any]) -> list[Any]:
        return [None if draw.random() < 0.1 else value for value in values]

    return pa.table(
        {
            "a": pa.array(some(draw.normal(3, 4, rows).tolist()), pa.float64()),
            "b": pa.array(some((np.round(draw.normal(0, 9, rows)) + 0.0).tolist()), pa.float64()),
            "c": pa.array(some(words[draw.integers(0, 7, rows)].tolist()), pa.string()),
            "h": pa.array(some(draw.integers(0, 99, rows).tolist()), pa.int32()),
            "m": pa.array(some([words[draw.integers(0, 5, n)].tolist() for n in draw.integers(0, 4, rows)])),
            "d": pa.array(some(draw.integers(0, 10**15, rows).tolist()), pa.timestamp("us")),
        }
    )  # fmt: skip


def learned(table: pa.Table, folder: Path, bits: int, training: int) -> tuple[Features, dict[str, ColumnStatistics]]:
    one = learner(table, section(**GROUPS), folder, bits, training)
    return one.learn(), one.statistics(table.column_names, dict.fromkeys(table.column_names, "any"))


def test_everything_learned_has_the_same_bits_for_any_buckets(tmp_path: Path) -> None:
    found = [learned(mixed(), tmp_path, bits, 2_000) for bits in (0, 1, 4)]
    texts = [
        (features.model_dump_json(), json.dumps({k: v.model_dump() for k, v in statistics.items()}))
        for features, statistics in found
    ]
    assert texts[0] == texts[1] == texts[2]


def test_rows_outside_of_the_training_split_teach_nothing(tmp_path: Path) -> None:
    table = mixed()
    alone = learned(table.slice(0, 2_000), tmp_path, 2, 2_000)
    strange = {
        "a": 1e12, "b": -1e12, "c": "unheard", "h": 100_000, "m": ["unheard"] * 9, "d": 4 * 10**15
    }  # fmt: skip
    others = pa.table({name: pa.array([value] * 500, table.schema.field(name).type) for name, value in strange.items()})
    assert learned(pa.concat_tables([table.slice(0, 2_000), others]), tmp_path, 2, 2_000) == alone


def test_statistics_of_every_column(tmp_path: Path) -> None:
    table = mixed()
    _, statistics = learned(table, tmp_path, 2, ROWS)
    frame = table.to_pandas()
    for name in table.column_names:
        assert statistics[name].nulls == table[name].null_count
        assert statistics[name].count == ROWS - table[name].null_count
    a = frame["a"].dropna()
    found = statistics["a"]
    assert (found.mean, found.deviation) == pytest.approx((a.mean(), a.std(ddof=0)), rel=1e-12)
    assert found.distinct == pytest.approx(a.nunique(), rel=0.1)
    for share, value in found.quantiles.items():
        assert value == pytest.approx(a.quantile(float(share)), rel=1e-9)
    assert found.quantile_error == 0
    assert found.histogram is not None
    edges = found.histogram.edges
    counts = np.histogram(a, [-np.inf, *edges, np.inf])[0]
    assert sum(found.histogram.counts) == len(a)
    assert list(found.histogram.counts) == pytest.approx(counts, abs=1)
    assert statistics["c"].most_frequent is not None
    assert dict(statistics["c"].most_frequent) == frame["c"].value_counts().to_dict()
    assert statistics["m"].mean is None
    seconds = frame["d"].dropna().astype("int64") / 1e6
    assert statistics["d"].low == pytest.approx(seconds.min())


def test_moments_are_the_same_bits_where_some_buckets_counted_the_values(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("lakefit.prepare.tally.MAX_COUNTED", 100)
    draw = np.random.Generator(np.random.PCG64(5))
    rows = 200_000
    columns = {}
    for name in "abcdefgh":
        values = np.round(draw.normal(0, 10, rows)) / 7
        rare = draw.choice(rows, 2_000, replace=False)
        values[rare] = draw.normal(0, 10, len(rare))
        values[draw.random(rows) < 0.05] = np.nan
        columns[name] = pa.array(values, from_pandas=True)
    numeric = section(numeric={"columns": ["a"]})
    one, several = (
        learner(pa.table(columns), numeric, tmp_path, bucket_bits=bits, training=rows).totals for bits in (0, 9)
    )
    assert set(one.counts.values()) == {None}
    assert several.summaries == one.summaries


@pytest.mark.parametrize("kind", ["skewed", "far", "negative"])
def test_approximate_quantiles_say_how_wrong_they_may_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, kind: str
) -> None:
    # Else the values would be counted and the quantiles be exact.
    monkeypatch.setattr("lakefit.prepare.tally.MAX_COUNTED", 100)
    values = numbers(kind)
    table = pa.table({"x": pa.array(values, from_pandas=True)})
    one = learner(table, section(numeric={"columns": ["x"]}, quantiles="approximate"), tmp_path)
    found = one.statistics(["x"], {"x": "double"})["x"]
    assert 0 < found.quantile_error < 1e-3 * np.nanmax(np.abs(values))
    for share, value in found.quantiles.items():
        assert abs(value - np.nanquantile(values, float(share))) <= found.quantile_error


@pytest.mark.parametrize(
    "settings",
    [{"clip": {"quantiles": [0.001, 0.9999]}}, {"clip": {"robust_z": 3}}, {"normalize": "quantile"}],
)
def test_the_stated_error_covers_all_that_is_learned_of_quantiles(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, settings: dict[str, Any]
) -> None:
    monkeypatch.setattr("lakefit.prepare.tally.MAX_COUNTED", 100)
    values = numbers("skewed")
    table = pa.table({"x": pa.array(values, from_pandas=True)})
    both = []
    for quantiles in ("exact", "approximate"):
        one = learner(table, section(numeric={"columns": ["x"], **settings}, quantiles=quantiles), tmp_path)
        (feature,) = one.learn().numeric
        both.append((feature, one.statistics(["x"], {"x": "double"})["x"].quantile_error))
    (exact, none), (approximate, error) = both
    assert none == 0 < error
    pairs = [(exact.low, approximate.low), (exact.high, approximate.high)]
    pairs += [(one[0], two[0]) for one, two in zip(exact.references, approximate.references, strict=True)]
    off = [abs(one - two) for one, two in pairs if one is not None and two is not None]
    assert 0 < max(off) <= error


def test_values_that_float64_does_not_tell_apart_have_no_most_frequent_one(tmp_path: Path) -> None:
    large = [2**53, 2**53 + 1, 2**53 + 1, 2**53 - 1]
    columns = {
        "large": pa.array(large), "small": pa.array([2**53 - 1, 7, 7, -(2**53) + 1]),
        "cents": pa.array([Decimal("9999999999999.99"), Decimal("0.10"), Decimal("0.10"), None], pa.decimal128(18, 2)),
        "long": pa.array([Decimal(2**53) + Decimal("0.5")] * 4, pa.decimal128(30, 10)),
        "lists": pa.array([["a"], ["a"], None, []]),
    }  # fmt: skip
    types = {"large": "bigint", "small": "bigint", "cents": "decimal(18,2)", "long": "decimal(30,10)", "lists": "any"}
    one = learner(pa.table(columns), section(numeric={"columns": ["small"]}), tmp_path, training=4)
    found = {name: column.most_frequent for name, column in one.statistics(list(columns), types).items()}
    assert found["large"] is None
    assert found["long"] is None
    assert found["lists"] is None
    assert found["small"] == ((7.0, 2), (-(2.0**53) + 1, 1), (2.0**53 - 1, 1))
    assert found["cents"] == ((0.1, 2), (9999999999999.99, 1))


def test_a_clip_by_deviations_leaves_a_column_whole_that_has_none(tmp_path: Path) -> None:
    values = np.where(np.arange(ROWS) % 3 == 0, np.arange(ROWS), 5.0)
    ours, _ = encoded(values, tmp_path, clip={"robust_z": 1}, normalize="none")
    assert (ours == values).all()


def test_vocabularies_are_cut_by_count_and_by_size(tmp_path: Path) -> None:
    texts = ["a"] * 5 + ["b"] * 5 + ["c"] * 9 + ["d"] * 3 + ["e"]
    lists = [["x", "x", "y"], ["y"], ["y", "z", "z", "z"], None, []]
    table = pa.table({"c": texts, "m": pa.array(lists + [None] * 18, pa.list_(pa.string()))})
    features = section(
        categorical={"columns": ["c"], "min_count": 2, "max_size": 3},
        multi_valued={"columns": ["m"], "max_values": 2},
    )
    found = learner(table, features, tmp_path).learn()
    (category,), (multi,) = found.categorical, found.multi_valued
    assert (category.vocabulary, category.counts, category.rare) == (("c", "a", "b"), (9, 5, 5), 2)
    # A value counts once a row; three values stand beyond the second place.
    assert (multi.vocabulary, multi.counts, multi.cut) == (("y", "x", "z"), (3, 1, 1), 3)
    columns = encode(table.slice(0, 5), found)
    assert [columns[f"m_{i}"].to_pylist() for i in range(2)] == [[3, 2, 2, 0, 0], [3, 0, 4, 0, 0]]


def test_empty_text_in_a_list_is_null(tmp_path: Path) -> None:
    lists = pa.array([["a", "", None], None, [""], ["", "b"], []], pa.list_(pa.string()))
    found = learner(pa.table({"m": lists}), section(multi_valued={"columns": ["m"], "max_values": 2}), tmp_path).learn()
    assert found.multi_valued[0].vocabulary == ("a", "b")
    columns = encode(pa.table({"m": lists.slice(2)}), found)
    assert [columns[f"m_{i}"].to_pylist() for i in range(2)] == [[0, 0, 0], [0, 3, 0]]


def test_a_column_without_values_is_refused_by_name(tmp_path: Path) -> None:
    table = pa.table({"x": pa.array([None] * 9, pa.float64())})
    with pytest.raises(UnlearnableError, match="'x' is null in every row") as error:
        learner(table, section(numeric={"columns": ["x"]}), tmp_path).learn()
    assert error.value.problem.key == ("features", "numeric", 0, "columns", 0)


def label_of(**fields: Any) -> Label:
    return Label.model_validate({"expression": "y", **fields}, strict=False)


def test_classes_are_numbered_and_weighed_by_the_training_split() -> None:
    balanced = learn_label(label_of(type="classes", class_weights="balanced"), 0, None, {"b": 30, "a": 60, "c": 10})
    assert balanced.classes == ("a", "b", "c")
    assert balanced.class_weights == pytest.approx((100 / 180, 100 / 90, 100 / 30))
    encoded = encode_label(pa.array(["c", "a"]), pa.array([1.0, 2.0]), balanced)
    assert encoded["label"].to_pylist() == [2.0, 0.0]
    assert encoded["weight"].to_pylist() == pytest.approx([100 / 30, 200 / 180], rel=1e-6)
    given = learn_label(label_of(type="binary", class_weights={"0": 1, "1": 5}), 0, None, {"0": 1, "1": 1})
    assert encode_label(pa.array([1.0, 0.0]), None, given)["weight"].to_pylist() == [5.0, 1.0]
    with pytest.raises(InputError, match="'a' is not among both"):
        learn_label(label_of(type="classes", class_weights={"z": 1}), 0, None, {"z": 1, "a": 2})


def test_a_class_that_is_none_of_the_labels_is_refused_by_name() -> None:
    label = LabelFeature(kind="classes", classes=("a", "b"), class_weights=(1.0, 2.0))
    with pytest.raises(InputError, match="'d' is not among the classes a, b"):
        encode_label(pa.array(["a", "d"]), None, label)
    with pytest.raises(InputError, match="None is not among"):
        encode_label(pa.array(["a", None]), None, label)


def test_a_regressions_label_is_scaled_and_comes_back() -> None:
    label = learn_label(label_of(type="regression", normalize="standard"), 0, Summary(3, 1e6, 250.0, 0.0, 1.0), {})
    values = np.array([999_000.25, 1e6, 1_000_500.0])
    scaled = encode_label(pa.array(values), None, label)["label"].to_numpy()
    np.testing.assert_allclose(scaled, [-3.999, 0, 2], rtol=1e-6)
    np.testing.assert_allclose([label.undone(float(y)) for y in scaled], values, rtol=1e-9)


def test_without_weights_there_is_no_weight() -> None:
    assert list(encode_label(pa.array([1.0]), None, LabelFeature())) == ["label"]


def test_the_pipeline_takes_one_group_or_a_list_of_them() -> None:
    one, many = section(numeric={"columns": ["x"]}), section(numeric=[{"columns": ["x"]}])
    assert one == many
