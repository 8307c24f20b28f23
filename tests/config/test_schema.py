"""The JSON schemas of pipeline files and manifests: they explain every key, and refuse what they can tell is wrong."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from ruamel.yaml import YAML

from lakefit.config import load_pipeline
from lakefit.config.examples import EXAMPLES
from lakefit.config.render import json_schema, rendered
from lakefit.dataset import manifest
from shop import ROOT, write_shop


def properties(schema: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    for name, section in [("", schema), *schema["$defs"].items()]:
        for key, value in section["properties"].items():
            yield name, key, value


@pytest.mark.parametrize("schema", [json_schema(), manifest.json_schema()], ids=["pipeline", "manifest"])
def test_every_property_is_described(schema: dict[str, Any]) -> None:
    jsonschema.Draft202012Validator.check_schema(schema)
    assert [f"{name}.{key}" for name, key, value in properties(schema) if not value.get("description")] == []


def test_a_description_is_the_meaning_of_the_reference() -> None:
    reference = (ROOT / "docs/pipeline-file.md").read_text(encoding="utf-8")
    found = {(name, key): value["description"] for name, key, value in properties(json_schema())}
    for at in (("Deduplicate", "keep"), ("Split", "fold"), ("Label", "classes"), ("Clean", "text")):
        assert f"| {found[at]} |" in reference


def yaml_data(text: str) -> Any:
    return YAML(typ="safe", pure=True).load(text)


def errors(text: str, at: str | None = None) -> list[Any]:
    """Return the errors of a file's text, or of a section's by its name among the schema's definitions."""
    schema = json_schema()
    if at is not None:
        schema = {"$schema": schema["$schema"], "$ref": f"#/$defs/{at}", "$defs": schema["$defs"]}
    return list(jsonschema.Draft202012Validator(schema).iter_errors(yaml_data(text)))


def test_rendered_files_are_valid(tmp_path: Path) -> None:
    for path in (write_shop(tmp_path, rows=5), ROOT / "conf/flights.yaml"):
        assert errors(rendered(load_pipeline(path)[0])) == []


def test_every_example_of_the_reference_is_valid() -> None:
    for section, examples in EXAMPLES.items():
        for example in examples:
            text = example.yaml.replace("2024-03-01", '"2024-03-01"').replace("2024-04-01", '"2024-04-01"')
            assert errors(text, section.__name__) == [], example.yaml


@pytest.mark.parametrize(
    ("section", "text"),
    [
        ("Clean", "{column: a}"),
        ("Clean", "{column: a, text: [trim], derive: b + 1}"),
        ("Output", "{path: lake, grace: a while}"),
        ("Output", "{path: lake, grace: 5 days ago}"),
        ("Deduplicate", "{keep: newest}"),
        ("Split", "{seed: x}"),
    ],
)
def test_what_is_wrong_in_itself_is_refused(section: str, text: str) -> None:
    assert errors(text, section) != []


def test_the_manifest_has_one_format() -> None:
    assert manifest.json_schema()["properties"]["format_version"]["const"] == manifest.FORMAT_VERSION


def test_no_key_that_we_write_is_null_to_other_readers() -> None:
    """YAML takes a bare `null` for no value, as a key too."""
    texts = [example.yaml for examples in EXAMPLES.values() for example in examples]
    texts += [path.read_text(encoding="utf-8") for path in (ROOT / "conf").glob("*.yaml")]

    def keys(value: Any) -> Iterator[Any]:
        for item in value.values() if isinstance(value, dict) else value if isinstance(value, list) else ():
            yield from keys(item)
        yield from value if isinstance(value, dict) else ()

    assert [key for text in texts for key in keys(yaml_data(text)) if not isinstance(key, str)] == []


@pytest.mark.parametrize("key", ["null", '"null"', "'null'"])
def test_the_key_null_is_read_with_quotes_and_without(tmp_path: Path, key: str) -> None:
    path = write_shop(tmp_path, rows=5)
    text = path.read_text(encoding="utf-8").replace("because: refunded", f"because: refunded, {key}: reject")
    path.write_text(text, encoding="utf-8")
    assert load_pipeline(path)[0].reject[0].null == "reject"
