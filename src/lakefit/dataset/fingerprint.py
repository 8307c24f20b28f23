"""Fingerprints: what a result depends on, as 16 hexadecimal digits."""

import hashlib
import json
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from lakefit.config.functions import function_source
from lakefit.config.pipeline import Pipeline
from lakefit.dataset.inputs import InputFile
from lakefit.dataset.manifest import FORMAT_VERSION

DATASET_SECTIONS = ("clean", "deduplicate", "reject", "require", "expect", "split", "features", "label")


def fingerprint(value: Any) -> str:
    """Return the same digits for equal JSON data, whatever the order of its keys."""
    text = json.dumps(value, sort_keys=True, ensure_ascii=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def dataset_fingerprint(pipeline: Pipeline, inputs: Mapping[str, Sequence[InputFile]], reading: str = "") -> str:
    """Return the fingerprint of the dataset that a pipeline makes of its input files.

    Paths of this machine don't count: a file is its name under its source's root, its size and modification time.
    reading: stands for the version of sources that have none.
    """
    source = pipeline.source
    tables = {
        name: {
            "format": table.format,
            "options": table.options,
            "schema": table.columns,
            "partitions": table.partitions,
            "schema_drift": table.schema_drift,
            "table": table.table,
            "version": reading if table.unversioned else table.version,
            "files": _listed(inputs[name]),
        }
        for name, table in source.tables.items()
    }
    output = pipeline.output
    return fingerprint(
        {
            "format": FORMAT_VERSION,
            "tables": tables,
            "rows": source.rows,
            "query": source.query,
            "sections": without_embeddings(pipeline.dump(*DATASET_SECTIONS)),
            "code": [function_source(step.custom) for step in pipeline.clean if step.custom is not None],
            "output": [output.rows_per_file, output.rows_per_group, output.layout],
        }
    )


def without_embeddings(data: Any) -> Any:
    """Return sections of a pipeline file without what is of the model alone: the dimensions of embeddings."""
    if isinstance(data, dict):
        return {name: without_embeddings(value) for name, value in data.items() if name != "embedding"}
    return [without_embeddings(value) for value in data] if isinstance(data, list) else data


def _listed(files: Iterable[InputFile]) -> list[list[Any]]:
    return [[file.name, file.size, file.modified_ns] for file in files]
