"""A pipeline file as data for others: resolved with every default, and its JSON schema for editors."""

import io
from typing import Any

from ruamel.yaml import YAML

from lakefit.config.features import GROUPS
from lakefit.config.pipeline import Pipeline
from lakefit.config.rows import SPLITS


def rendered(pipeline: Pipeline) -> str:
    """Return the pipeline as a YAML file with every default (`null` where none is set), which loads as the same."""
    yaml = YAML(typ="safe", pure=True)
    yaml.default_flow_style = False
    yaml.sort_base_mapping_type_on_output = False  # type: ignore[assignment]
    yaml.width = 110
    data = pipeline.dump()
    # No defaults: a step has one verb, and a split that goes by no shares refuses them.
    data["clean"] = [{key: value for key, value in step.items() if value is not None} for step in data["clean"]]
    if not pipeline.split.by_shares:
        data["split"] = {key: value for key, value in data["split"].items() if key not in SPLITS}
    sink = io.StringIO()
    yaml.dump(data, sink)
    return sink.getvalue()


def json_schema() -> dict[str, Any]:
    """Return the JSON schema (2020-12) of a pipeline file; groups of features and labels are one mapping or a list."""
    schema = Pipeline.model_json_schema(by_alias=True)
    groups = schema["$defs"]["Features"]["properties"]
    for listed in (*(groups[name] for name in GROUPS), schema["properties"]["label"]):
        one = listed.pop("items")
        del listed["type"]
        listed["anyOf"] = [one, {"type": "array", "items": one}]
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", **schema}
