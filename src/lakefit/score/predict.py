"""The exported model inside Spark's Python workers: batches of cleaned rows in, Parquet files out."""

import json
from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
from numpy.typing import NDArray

from lakefit.config.features import Features
from lakefit.config.sql import ROW
from lakefit.dataset.features import LabelFeature
from lakefit.dataset.inputs import local_path
from lakefit.dataset.mirror import mirrored
from lakefit.dataset.object_path import AnyPath, any_path
from lakefit.dataset.predictions import by_label, prediction_columns, rows_at_once
from lakefit.dataset.publish import new_file
from lakefit.launch.quiet import import_tensorflow_quietly
from lakefit.prepare.arrays import one_array
from lakefit.prepare.clean import RULE
from lakefit.prepare.features import model_inputs

RESULT_SCHEMA = "result STRING"
REJECTS = "_rejects"
Predict = Callable[[dict[str, NDArray[Any]]], Any]
_loaded: dict[str, Predict] = {}


@dataclass(frozen=True, slots=True)
class ScorePlan:
    """All that a task needs: where the model is, where its files go, what their names end in, what it predicts, what
    stands beside that, and the reasons, by the numbers of rules that `clean` marks, for which a row can't be scored."""

    model: str
    target: str
    suffix: str
    features: Features
    labels: tuple[LabelFeature, ...]
    keys: tuple[str, ...]
    unscorable: dict[int, str]
    versions: dict[str, str]


def score_partition(batches: Iterable[pa.RecordBatch], plan: ScorePlan) -> Iterator[pa.RecordBatch]:
    """Score one partition into one file; yield its counts as one row of `RESULT_SCHEMA`.

    The file's name is the partition's, so a second attempt replaces the first instead of standing beside it.
    """
    from pyspark import TaskContext

    context = TaskContext.get()
    number = context.partitionId() if context is not None else 0
    name = f"part-{number:05d}{plan.suffix}.parquet"
    target = any_path(plan.target)
    scored, rejects = _File(target / name), _File(target / REJECTS / name)
    counts: dict[str, Any] = {"arrived": [0, 0, 0], "headers": 0, "reasons": Counter()}
    size = rows_at_once(section.shape for section in plan.features.images for _ in section.columns)
    for batch in batches:
        for start in range(0, batch.num_rows, size):
            _score_rows(pa.Table.from_batches([batch.slice(start, size)]), plan, scored, rejects, counts)
    rows = {name: scored.close(), f"{REJECTS}/{name}": rejects.close()}
    files = {file: count for file, count in rows.items() if count}
    result = {**counts, "scored": rows[name], "rejected": rows[f"{REJECTS}/{name}"], "files": files}
    yield pa.RecordBatch.from_pydict({"result": pa.array([json.dumps(result)])})


def _score_rows(table: pa.Table, plan: ScorePlan, scored: "_File", rejects: "_File", counts: dict[str, Any]) -> None:
    struct = one_array(table[ROW])
    hi, lo = (pc.struct_field(struct, name).to_numpy().view(np.uint64) for name in ("hi", "lo"))
    sums = (len(table), int(hi.sum(dtype=np.uint64)), int(lo.sum(dtype=np.uint64)))
    counts["arrived"] = [a + b for a, b in zip(counts["arrived"], sums, strict=True)]
    words = np.stack([hi, lo], axis=1).astype(">u8")
    identity = pa.FixedSizeBinaryArray.from_buffers(pa.binary(16), len(table), [None, pa.py_buffer(words.tobytes())])
    header = pc.struct_field(struct, "header")
    record = pc.struct_field(struct, "record")
    counts["headers"] += int(pc.sum(header).as_py() or 0)
    broken = pc.and_(pc.is_valid(record), pc.invert(header))
    reason = pc.if_else(broken, "the line does not fit the schema", pa.scalar(None, pa.string()))
    good = pc.is_null(record)
    if plan.unscorable:
        found = pa.array([plan.unscorable.get(number) for number in table[RULE].to_pylist()], pa.string())
        reason = pc.coalesce(reason, found)
        good = pc.and_(good, pc.is_null(found))
    lines = pa.table({"_row": identity, "_file": pc.struct_field(struct, "file"), "_record": record, "_reason": reason})
    lines = lines.filter(pc.is_valid(reason))
    # As preparation writes it in its rejects.
    paths = pa.array([local_path(uri) for uri in lines["_file"].to_pylist()], pa.string())
    lines = lines.set_column(1, "_file", paths)
    counts["reasons"].update(lines["_reason"].to_pylist())
    rejects.add(lines)
    rows = table.append_column("_identity", identity).filter(good)
    if not len(rows):
        return
    found = _model(plan.model)(model_inputs(rows, plan.features))
    predictions = prediction_columns(by_label(found, plan.labels), plan.labels)
    columns = {"_row": rows["_identity"], **{name: rows[name] for name in plan.keys}}
    versions = {name: pa.array([value] * len(rows)).dictionary_encode() for name, value in plan.versions.items()}
    scored.add(pa.table({**columns, **predictions, **versions}))


def _model(path: str) -> Predict:
    """Load the model once a Python worker."""
    if path not in _loaded:
        import_tensorflow_quietly("tensorflow")
        import tensorflow as tf

        if not _loaded:
            # Spark runs one task a core: TensorFlow's own threads would only get in their way.
            tf.config.threading.set_intra_op_parallelism_threads(1)
            tf.config.threading.set_inter_op_parallelism_threads(1)
        # Without Keras, and without the user's code that the model may have been made of.
        with mirrored(any_path(path)) as folder:
            model = tf.saved_model.load(str(folder.local))

        def predict(arrays: dict[str, NDArray[Any]]) -> Any:
            found = model.serve({name: tf.constant(array) for name, array in arrays.items()})
            return tf.nest.map_structure(lambda tensor: tensor.numpy(), found)

        _loaded[path] = predict
    return _loaded[path]


class _File:
    """A Parquet file written in pieces under a name of its own and renamed at the end; none where no row came."""

    def __init__(self, path: AnyPath) -> None:
        self._path = path
        self._open = ExitStack()
        self._writer: pq.ParquetWriter | None = None
        self._rows = 0

    def add(self, rows: pa.Table) -> None:
        if not len(rows):
            return
        if self._writer is None:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            self._writer = pq.ParquetWriter(self._open.enter_context(new_file(self._path)), rows.schema)
        self._writer.write_table(rows)
        self._rows += len(rows)

    def close(self) -> int:
        """Publish the file; return its rows."""
        if self._writer is not None:
            self._writer.close()
            self._open.close()
        return self._rows
