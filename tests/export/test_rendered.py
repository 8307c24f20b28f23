"""The artifact's pipeline file loads as the pipeline that was run."""

from pathlib import Path

import pytest

from lakefit.config import load_pipeline
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
    assert again.label.expression == "1e5"
    assert rendered(again) == rendered(pipeline)
