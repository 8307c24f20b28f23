"""The reference is that of the types, and each of its examples is the same section from YAML and from Python."""

import json
from typing import Any

import pytest
from ruamel.yaml import YAML

from lakefit.config import clean, expect, features, pipeline, rows, source
from lakefit.config.examples import EXAMPLES, Example
from lakefit.config.features import Features
from lakefit.config.reference import reference
from lakefit.config.sections import Section
from shop import ROOT

NAMES: dict[str, Any] = {
    name: value for module in (clean, expect, features, pipeline, rows, source) for name, value in vars(module).items()
}


def test_the_reference_is_current() -> None:
    assert (ROOT / "docs/pipeline-file.md").read_text(encoding="utf-8") == reference(), "run `make docs`"


@pytest.mark.parametrize(
    ("model", "example"),
    [(model, example) for model, examples in EXAMPLES.items() for example in examples],
    ids=lambda value: value.yaml[:30] if isinstance(value, Example) else value.__name__,
)
def test_an_example_is_the_same_from_yaml_and_from_python(model: type[Section], example: Example) -> None:
    data = YAML(typ="safe", pure=True).load(example.yaml)
    from_yaml = model.model_validate_json(json.dumps(data, default=str), strict=True)
    assert from_yaml == eval(example.python, dict(NAMES))


def test_every_verb_has_an_example() -> None:
    verbs = {verb for verb in clean.VERBS if not any(f"{verb}:" in example.yaml for example in EXAMPLES[clean.Clean])}
    assert verbs == set()
    for group in features.GROUPS:
        (section,) = Features.model_fields[group].annotation.__args__[:1]
        assert section in EXAMPLES, group
