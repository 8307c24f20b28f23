"""docs/manifest.md is that of the types, and their JSON schema takes what Lakefit writes."""

from lakefit.dataset.reference import reference
from shop import ROOT


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs/manifest.md").read_text(encoding="utf-8") == reference(), "run `make docs`"
