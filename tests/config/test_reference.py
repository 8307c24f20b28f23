"""The reference is that of the types, and each of its examples is the same section from YAML and from Python."""

import json

import pytest
from ruamel.yaml import YAML

from lakefit import config
from lakefit.config import Features, Pipeline, clean, features
from lakefit.config.examples import EXAMPLES, Example
from lakefit.config.reference import reference
from lakefit.config.sections import Section, explained, sections_in
from lakefit.dataset.manifest import Manifest
from shop import ROOT


def all_sections(section: type[Section]) -> set[type[Section]]:
    """Return a section and all that are inside it."""
    inner = {one for field in section.__pydantic_fields__.values() for one in sections_in(field.annotation)}
    return {section}.union(*(all_sections(one) for one in inner))


ONE_LINE = {name: getattr(config, name) for name in config.__all__}
"""What `from lakefit.config import …` brings."""


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
    assert from_yaml == eval(example.python, dict(ONE_LINE))


def test_every_section_comes_by_one_import_and_has_an_example_where_it_is_no_part_of_another() -> None:
    assert all_sections(Pipeline) <= set(ONE_LINE.values())
    parts = {one for section in EXAMPLES for one in all_sections(section)}
    assert all_sections(Pipeline) - {Pipeline} <= parts


@pytest.mark.parametrize("section", sorted(all_sections(Pipeline) | all_sections(Manifest), key=lambda s: s.__name__))
def test_every_key_is_explained(section: type[Section]) -> None:
    text, meanings = explained(section)
    assert text
    assert {key for key, meaning in meanings.items() if meaning} == {
        field.alias or name for name, field in section.__pydantic_fields__.items()
    }


@pytest.mark.parametrize("section", sorted(all_sections(Pipeline), key=lambda s: s.__name__))
def test_a_meaning_tells_of_its_own_key(section: type[Section]) -> None:
    """No docstring part `other: …` has slipped into the meaning of the key before it."""
    for key, meaning in explained(section)[1].items():
        others = set(explained(section)[1]) - {key}
        assert not [other for other in others if f" {other}: " in meaning.replace("`", " ")]


def test_every_verb_has_an_example() -> None:
    verbs = {verb for verb in clean.VERBS if not any(f"{verb}:" in example.yaml for example in EXAMPLES[clean.Clean])}
    assert verbs == set()
    for group in features.GROUPS:
        (section,) = Features.model_fields[group].annotation.__args__[:1]
        assert section in EXAMPLES, group
