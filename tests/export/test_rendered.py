"""The artifact's pipeline file loads as the pipeline that was run."""

from pathlib import Path

import pytest
from ruamel.yaml import YAML

from lakefit.config import load_pipeline
from lakefit.dataset.inputs import InputFile
from shop import ROOT, write_shop


@pytest.mark.parametrize("which", ["shop", "flights"])
def test_a_rendered_pipeline_loads_as_the_same(tmp_path: Path, which: str) -> None:
    from lakefit.config.render import rendered

    path = write_shop(tmp_path, rows=5) if which == "shop" else ROOT / "conf/flights.yaml"
    odd = "reject.0.because='yes: no # or 2013-01-01'"
    false = f"source.tables.{'orders' if which == 'shop' else 'flights'}.options={{header: false, sep: ''}}"
    pipeline, _ = load_pipeline(path, (odd, false, "label.expression='1e5'", "train.seed=7"))
    (tmp_path / "rendered.yaml").write_text(rendered(pipeline), encoding="utf-8")
    again, _ = load_pipeline(tmp_path / "rendered.yaml")
    assert again == pipeline
    assert again.label[0].expression == "1e5"
    assert rendered(again) == rendered(pipeline)


@pytest.mark.parametrize(
    "changes",
    [
        (),
        ("split={column: city}",),
        ("split={time: {column: day, validation: 10, test: 20}}",),
        ("split={by: [day], folds: 4, fold: 1}",),
        ("split={stratify: [city], train: 0.5, validation: 0.25, test: 0.25}",),
        ("train.model.sequential=[{Flatten: null}, {Dense: {units: 1, activation: null}}]",),
        ("features={dates: {columns: [day], parts: [year]}, statistics: {from: 0123456789abcdef}}",),
        ("clean=[{column: amount, clip: {max: 5}}, {drop: [city]}]", "label.class_weights={'0': 1, '1': 2}"),
        ("reject.0.null=reject", "output.keep=3", "score={input: orders-*.csv, output: scored}"),
    ],
)
def test_every_default_is_written_and_changes_neither_pipeline_nor_fingerprint(
    tmp_path: Path, changes: tuple[str, ...]
) -> None:
    from lakefit.config.render import rendered
    from lakefit.dataset.fingerprint import dataset_fingerprint

    pipeline, _ = load_pipeline(write_shop(tmp_path, rows=5), changes)
    text = rendered(pipeline)
    (tmp_path / "rendered.yaml").write_text(text, encoding="utf-8")
    again, _ = load_pipeline(tmp_path / "rendered.yaml")
    assert again == pipeline
    inputs: dict[str, tuple[InputFile, ...]] = {"orders": (), "cities": ()}
    assert dataset_fingerprint(again, inputs) == dataset_fingerprint(pipeline, inputs)
    data = YAML(typ="safe", pure=True).load(text)
    no_defaults = {"clean"} | ({"split"} if changes and "split" in changes[0] else set())
    for section, fields in pipeline.dump().items():
        if section not in no_defaults:
            assert data[section] == fields, section


def test_keys_without_a_value_are_shown(tmp_path: Path) -> None:
    from lakefit.config.render import rendered

    text = rendered(load_pipeline(write_shop(tmp_path, rows=5))[0])
    for line in ("  keep: null", "  stratify: null", "score: null", "    version: null"):
        assert line in text
