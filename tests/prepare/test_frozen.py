"""Features of an earlier dataset are taken over only where they were made of the same columns in the same way."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from lakefit.config import load_pipeline
from lakefit.config.file import ConfigError
from lakefit.dataset.features import CategoricalFeature, Features, LabelFeature, NumericFeature
from lakefit.dataset.ledger import Ledger
from lakefit.dataset.manifest import MANIFEST, Manifest
from lakefit.dataset.statistics import ColumnStatistics
from lakefit.prepare.frozen import check_types, frozen_manifest
from shop import write_shop

FINGERPRINT = "0123456789abcdef"
FROZEN = (f"features.statistics.from='{FINGERPRINT}'",)
TYPES = {"amount": "double", "city": "string", "id": "int"}


def statistics_of(sql_type: str) -> ColumnStatistics:
    return ColumnStatistics(
        type=sql_type, count=1, nulls=0, distinct=1, mean=None, deviation=None, low=None, high=None, quantiles={},
        quantile_error=0.0, histogram=None, most_frequent=None,
    )  # fmt: skip


@pytest.fixture
def take_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[..., Manifest | None]:
    """Publish a dataset of the shop, and take its features over into a pipeline that is changed."""
    write_shop(tmp_path, rows=5)
    monkeypatch.chdir(tmp_path)
    pipeline, _ = load_pipeline("shop.yaml")
    manifest = Manifest(
        format_version=2, fingerprint=FINGERPRINT, name="shop", created="", versions={},
        inputs=(), excluded=(), reader="Arrow",
        pipeline=pipeline.dump(), layout="wide",
        features=Features(
            numeric=(NumericFeature(name="amount", fill=1.0),), categorical=(CategoricalFeature(name="city"),)
        ),
        labels=(LabelFeature(),), statistics={name: statistics_of(found) for name, found in TYPES.items()}, splits={},
        duplicates=(), rejects=(), corrections=(), strata=(), expectations=(),
        ledger=Ledger(rows_in=0, kept={}, rejected={}, duplicates=0, not_finite=0, unparsable={}, files={}),
    )  # fmt: skip
    (tmp_path / FINGERPRINT).mkdir()
    (tmp_path / FINGERPRINT / MANIFEST).write_text(json.dumps(manifest.model_dump(mode="json", by_alias=True)))

    def run(*overrides: str, types: dict[str, str] = TYPES) -> Manifest | None:
        changed, source = load_pipeline("shop.yaml", overrides)
        found = frozen_manifest(changed, source, tmp_path)
        if found is not None:
            check_types(found, types, source)
        return found

    return run


def test_nothing_is_taken_over_unless_it_is_asked_for(take_over: Callable[..., Manifest | None]) -> None:
    assert take_over() is None


def test_rows_splits_and_columns_that_are_no_features_may_change(take_over: Callable[..., Manifest | None]) -> None:
    found = take_over(*FROZEN, "split.seed=9", "reject=[]", types={**TYPES, "id": "bigint"})
    assert found is not None
    assert found.fingerprint == FINGERPRINT


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ("features.numeric.indicator=false", "was made with another features.numeric"),
        ("label.expression=late > 1", "was made with another label.expression"),
        ("clean.0.text=[trim, lower]", "was made with another clean.0"),
        ("clean=[]", "was made with another clean.0"),
        ("features.statistics.from='aaaaaaaaaaaaaaaa'", "no such file"),
    ],
)
def test_what_was_made_otherwise_is_refused_by_its_section(
    take_over: Callable[..., Manifest | None], change: str, says: str
) -> None:
    with pytest.raises(ConfigError, match=r"features\.statistics\.from: ") as error:
        take_over(*FROZEN, change)
    assert says in str(error.value)


def test_a_feature_of_another_type_is_refused(take_over: Callable[..., Manifest | None]) -> None:
    with pytest.raises(ConfigError, match="has learned 'city' as string, and it is bigint now"):
        take_over(*FROZEN, types={**TYPES, "city": "bigint"})
