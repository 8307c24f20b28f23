"""A fingerprint names what a dataset depends on: all of it and nothing else."""

from dataclasses import replace
from pathlib import Path

import pytest

from lakefit.config import load_pipeline
from lakefit.dataset.fingerprint import dataset_fingerprint, fingerprint
from lakefit.dataset.inputs import InputFile
from shop import write_shop

FILES = {
    "orders": (
        InputFile("orders-0.csv", "/here/orders-0.csv", 10, 1),
        InputFile("orders-1.csv", "/here/orders-1.csv", 20, 2),
    ),
    "cities": (InputFile("cities.csv", "/here/cities.csv", 30, 3),),
}


@pytest.fixture
def shop(tmp_path: Path) -> Path:
    return write_shop(tmp_path, rows=5)


def print_of(path: Path, *overrides: str, files: dict[str, tuple[InputFile, ...]] = FILES) -> str:
    return dataset_fingerprint(load_pipeline(path, overrides)[0], files)


def test_the_order_of_keys_does_not_count() -> None:
    assert fingerprint({"a": 1, "b": [1, 2]}) == fingerprint({"b": [1, 2], "a": 1})
    assert fingerprint({"a": [1, 2]}) != fingerprint({"a": [2, 1]})
    assert fingerprint({"a": 1, "b": "é"}) == "6071e7aa781e8adc", "a change makes every dataset again"


def test_comments_layout_and_written_defaults_do_not_count(shop: Path) -> None:
    before = print_of(shop)
    text = (
        shop.read_text(encoding="utf-8")
        .replace("seed: 3}", "seed: 3} # why 3?")
        .replace("min_count: 2", "min_count:   2")
    )
    shop.write_text(text.replace("indicator: true", "indicator: true, normalize: standard"), encoding="utf-8")
    assert print_of(shop) == before


@pytest.mark.parametrize(
    "override",
    [
        "source.tables.orders.schema=id INT, day INT, city STRING, amount DOUBLE, weight DOUBLE, stamp INT, late LONG",
        "source.tables.orders.options.nullValue=none",
        "source.tables.cities.format=xml",
        "source.query=SELECT * FROM orders",
        "clean.0.text=[upper]",
        "deduplicate.keep=first by stamp",
        "deduplicate.key=[id, day]",
        "reject.0.when=amount < 1",
        "reject.0.because=returned",
        "split.seed=4",
        "split.by=[city]",
        "features.numeric.fill=mean",
        "features.categorical.min_count=3",
        "label.expression=late > 1",
        "output.rows_per_file=10",
        "output.rows_per_group=10",
    ],
)
def test_each_section_that_makes_the_dataset_counts(shop: Path, override: str) -> None:
    assert print_of(shop, override) != print_of(shop)


@pytest.mark.parametrize(
    "override", ["train.fit.epochs=9", "name=other", "output.path=/elsewhere", "evaluate.baseline_rows=5"]
)
def test_what_comes_after_the_dataset_does_not_count(shop: Path, override: str) -> None:
    assert print_of(shop, override) == print_of(shop)


@pytest.mark.parametrize("change", [{"size": 11}, {"modified_ns": 9}, {"name": "orders-9.csv"}])
@pytest.mark.parametrize("table", ["orders", "cities"])
def test_each_input_file_counts(shop: Path, table: str, change: dict[str, int]) -> None:
    first, *others = FILES[table]
    assert print_of(shop, files={**FILES, table: (replace(first, **change), *others)}) != print_of(shop)
    assert print_of(shop, files={**FILES, table: tuple(others)}) != print_of(shop)


def test_where_the_files_lie_on_this_machine_does_not_count(shop: Path) -> None:
    moved = {name: tuple(replace(f, path=f"/there/{f.name}") for f in files) for name, files in FILES.items()}
    assert print_of(shop, files=moved) == print_of(shop)
