"""What is learned from the training split: moments, medians, vocabularies."""

import json
from collections import Counter
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from pyspark.sql import SparkSession

from lakefit.config.features import Categorical, Numeric
from lakefit.config.pipeline import Pipeline
from lakefit.dataset.features import CategoricalFeature, Features, NumericFeature
from lakefit.errors import InputError
from lakefit.prepare.bucket import unpack_moments
from lakefit.prepare.statistics import Moments, Prefix, concatenate, count_bins_of, merge_up, select_ranks
from lakefit.prepare.write import training_values

_BINS_SCHEMA = "prefix INT, bin INT, count BIGINT"


def learn_features(
    spark: SparkSession, pipeline: Pipeline, results: pa.Table, staged: Sequence[str], bucket_bits: int
) -> Features:
    """Return the features of a dataset from the buckets' results and the staged files of kept rows.

    Raises:
        InputError: a numeric feature has no value at all in the training split.
    """
    numeric, categorical = pipeline.features.numeric, pipeline.features.categorical
    return Features(
        numeric=_numeric(spark, numeric, results, staged, bucket_bits) if numeric else (),
        categorical=_categorical(categorical, results) if categorical else (),
    )


def _numeric(
    spark: SparkSession, section: Numeric, results: pa.Table, staged: Sequence[str], bucket_bits: int
) -> tuple[NumericFeature, ...]:
    columns = section.columns
    parts = [unpack_moments(packed, len(columns)) for packed in results["moments"].to_pylist()]
    root = merge_up(concatenate(parts, len(columns)), bucket_bits, 0)
    training_rows = sum(json.loads(text)["kept"]["train"] for text in results["summary"].to_pylist())
    for place, name in enumerate(columns):
        if not root.count[0, place]:
            raise InputError(
                f"features.numeric: the column {name!r} is null in every row of the training split ({training_rows:,} "
                "rows): nothing can be learned from it. Remove it from the features, or check the query that fills it."
            )
        if not np.isfinite(root.squares[0, place]):
            raise InputError(
                f"features.numeric: the values of {name!r} are too large for a deviation in float64 (largest "
                f"{root.high[0, place]:g}). Scale the column in source.query."
            )
    medians = _medians(spark, root, columns, staged) if section.fill == "median" else {}
    return tuple(_feature(section, root, place, training_rows, medians) for place in range(len(columns)))


def _feature(
    section: Numeric, root: Moments, place: int, training_rows: int, medians: Mapping[str, float]
) -> NumericFeature:
    name = section.columns[place]
    count, mean = int(root.count[0, place]), float(root.mean[0, place])
    low, high = float(root.low[0, place]), float(root.high[0, place])
    deviation = float(np.sqrt(root.squares[0, place] / count))
    fill = medians[name] if section.fill == "median" else mean if section.fill == "mean" else float(section.fill)
    offset, scale = {
        "standard": (mean, deviation),
        "min_max": (low, high - low),
        "none": (0.0, 1.0),
    }[section.normalize]
    return NumericFeature(
        name=name,
        fill=fill,
        offset=offset,
        scale=scale or 1.0,  # a constant column becomes 0, not NaN
        indicator=f"{name}_missing" if section.indicator else None,
        count=count,
        nulls=training_rows - count,
        mean=mean,
        deviation=deviation,
        low=low,
        high=high,
    )


def _medians(spark: SparkSession, root: Moments, columns: Sequence[str], staged: Sequence[str]) -> dict[str, float]:
    ranks = {}
    for place, name in enumerate(columns):
        count = int(root.count[0, place])
        ranks[name] = sorted({(count - 1) // 2, count // 2})
    selected = select_ranks(ranks, partial(_count_bins, spark, staged))
    # Halves first: the sum of two values near the largest float would overflow.
    return {
        name: values[0] / 2 + values[-1] / 2 if values[0] != values[-1] else values[0]
        for name, values in selected.items()
    }


def _count_bins(
    spark: SparkSession, staged: Sequence[str], prefixes: Sequence[Prefix]
) -> dict[Prefix, NDArray[np.int64]]:
    tasks = min(len(staged), 2 * spark.sparkContext.defaultParallelism)
    files = spark.range(0, len(staged), 1, numPartitions=tasks)
    counted = files.mapInArrow(partial(_bins_of_files, staged=tuple(staged), prefixes=tuple(prefixes)), _BINS_SCHEMA)
    table = counted.toArrow()
    number, bins, counts = (table[name].to_numpy() for name in ("prefix", "bin", "count"))
    found = {}
    for place, prefix in enumerate(prefixes):
        mine = number == place
        found[prefix] = np.bincount(bins[mine], weights=counts[mine], minlength=1 << 16).astype(np.int64)
    return found


def _bins_of_files(
    batches: Iterable[pa.RecordBatch], staged: Sequence[str], prefixes: Sequence[Prefix]
) -> Iterator[pa.RecordBatch]:
    files = [staged[number] for batch in batches for number in batch["id"].to_pylist()]
    for column in sorted({prefix.column for prefix in prefixes}):
        mine = [(place, prefix) for place, prefix in enumerate(prefixes) if prefix.column == column]
        totals = {place: np.zeros(1 << 16, np.int64) for place, _ in mine}
        for values in training_values(files, column):
            for place, prefix in mine:
                totals[place] += count_bins_of(values, prefix)
        for place, total in totals.items():
            filled = np.flatnonzero(total)
            yield pa.RecordBatch.from_pydict(
                {
                    "prefix": pa.array(np.full(len(filled), place, np.int32)),
                    "bin": pa.array(filled.astype(np.int32)),
                    "count": pa.array(total[filled]),
                }
            )


def _categorical(section: Categorical, results: pa.Table) -> tuple[CategoricalFeature, ...]:
    totals: list[Counter[str]] = [Counter() for _ in section.columns]
    for packed in results["categories"].to_pylist():
        for entry in json.loads(packed):
            if entry["value"] is not None:
                totals[entry["column"]][entry["value"]] += entry["count"]
    features = []
    for name, total in zip(section.columns, totals, strict=True):
        known = [(value, count) for value, count in total.items() if count >= section.min_count]
        known.sort(key=lambda pair: (-pair[1], pair[0].encode()))
        features.append(
            CategoricalFeature(
                name=name,
                vocabulary=tuple(value for value, _ in known),
                counts=tuple(count for _, count in known),
                rare=len(total) - len(known),
            )
        )
    return tuple(features)
