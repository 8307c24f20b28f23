"""A pipeline file as data for others: resolved with every default, and its JSON schema for editors."""

import io
from typing import Any

from ruamel.yaml import YAML

from lakefit.config.features import GROUPS
from lakefit.config.pipeline import Pipeline


def rendered(pipeline: Pipeline) -> str:
    """Return the pipeline as a YAML file with every default, which loads as the same pipeline."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    sink = io.StringIO()
    yaml.dump(_without_none(pipeline.dump()), sink)
    return sink.getvalue()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a pipeline file: a group of features may be one mapping or a list of them."""
    schema = Pipeline.model_json_schema(by_alias=True)
    groups = schema["$defs"]["Features"]["properties"]
    for name in GROUPS:
        one = groups[name]["items"]
        groups[name] = {**{k: v for k, v in groups[name].items() if k not in ("items", "type")}}
        groups[name]["anyOf"] = [one, {"type": "array", "items": one}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}


def _without_none(value: Any) -> Any:
    if isinstance(value, dict):
        return {key: _without_none(item) for key, item in value.items() if item is not None}
    if isinstance(value, list):
        return [_without_none(item) for item in value]
    return value
