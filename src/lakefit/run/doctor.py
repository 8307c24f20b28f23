"""`lakefit doctor`: a hundred rows through all that Lakefit stands on, here and on the executors."""

import importlib.metadata
import os
import platform
import shutil
import socket
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import pyarrow as pa

from lakefit.api import validate
from lakefit.config import Features, Fit, Label, Model, Numeric, Output, Pipeline, Score, Source, Table, Train
from lakefit.console import Console
from lakefit.dataset.object_path import AnyPath, ObjectPath, address_of, any_path, open_input
from lakefit.dataset.publish import ensure_writable, files_below, remove_tree, write_atomically
from lakefit.errors import InputError, LakefitError, text_of
from lakefit.launch.java import find_java
from lakefit.run.lock import run_lock
from lakefit.run.stages import Run, run_stages

if TYPE_CHECKING:
    from pyspark.sql import SparkSession

ROWS = 100
PACKAGES = ("lakefit", "pyspark", "pyarrow", "numpy", "petastorm", "keras")
TENSORFLOW = ("tensorflow", "tensorflow-cpu")


@dataclass(frozen=True, slots=True)
class Finding:
    """What one check has found. ok: None where it could not be tried, since an earlier one failed."""

    name: str
    ok: bool | None
    found: str
    advice: str = ""


@dataclass(slots=True)
class Doctor:
    """The checks, in the order in which one stands on the other.

    folder: where data would go, which driver and executors must see. master: of a cluster, in place of what the
    settings say.
    """

    folder: AnyPath
    master: str | None
    console: Console
    findings: list[Finding] = field(default_factory=list)

    def examine(self) -> bool:
        """Make all checks, say each finding as it comes, and return whether all is well."""
        self._check("python", _python, "pip install 'lakefit[cpu]' (or [gpu]) into this environment")
        if self.master is None or not self.master.startswith("sc://"):
            self._check("java", _java, "")
        self._check("storage", self._storage, "")
        with ExitStack() as stack:
            work = stack.enter_context(self._workplace())
            spark = self._check("spark", lambda: self._spark(stack), "the master's address, its log, and `java` above")
            where = "every executor needs the same packages (make package), and must see the same folder"
            self._check("executors", lambda: _executors(spark, work), where, needs=spark)
            run = self._check("prepare", lambda: _prepared(work), "`lakefit -v` shows where", needs=spark)
            self._check("devices", _devices, "pip install 'lakefit[gpu]' for GPUs, and look at nvidia-smi")
            trained = self._check("train", lambda: _stages(run, "train", "evaluate", "export"), "", needs=run)
            score = "the executors need TensorFlow as well, and room for it: spark.executor.memoryOverhead"
            self._check("score", lambda: _stages(run, "score"), score, needs=trained)
        return all(finding.ok for finding in self.findings)

    def _check(self, name: str, look: Callable[[], tuple[str, Any]], advice: str, needs: Any = True) -> Any:
        """Note what `look` finds; return what it hands on, or None where it fails."""
        handed: Any = None
        if needs is None:
            finding = Finding(name, None, "not tried")
        else:
            try:
                found, handed = look()
                finding = Finding(name, True, found)
            except Exception as error:
                said = text_of(error).strip().splitlines() or [type(error).__name__]
                kind = "" if isinstance(error, LakefitError) else f"{type(error).__name__}: "
                finding = Finding(name, False, f"{kind}{said[0]}", advice)
        self.findings.append(finding)
        word = {True: "ok", False: "FAILED", None: "-"}[finding.ok]
        text = f"{name:<10} {word:<7} {finding.found}{f'; {finding.advice}' if finding.advice else ''}"
        self.console.event("check", text, name=name, ok=finding.ok, found=finding.found, advice=finding.advice)
        return handed

    def _storage(self) -> tuple[str, Any]:
        if isinstance(self.folder, ObjectPath) and self.folder.options:
            raise InputError("raw files have no options in their addresses: give the endpoint as AWS_ENDPOINT_URL")
        ensure_writable(self.folder)
        with _folder_in(self.folder) as folder:
            with run_lock(folder / "lock") as lease:
                lease.check()
            write_atomically(folder / "file", b"x" * 1_000_000)
            if (folder / "file").read_bytes() != b"x" * 1_000_000:
                raise LakefitError(f"{folder}: what was written is not what is read")
        said = f"{self.folder.absolute()}: written, locked and read"
        if isinstance(self.folder, ObjectPath):
            return said, True
        return f"{said}; {shutil.disk_usage(self.folder).free / 1e9:,.0f} GB are free", True

    @contextmanager
    def _workplace(self) -> Iterator[AnyPath]:
        """Yield a folder for the hundred rows and what is made of them, which goes again."""
        usable: AnyPath = self.folder
        try:
            ensure_writable(usable)
        except InputError:
            # The other checks still tell something.
            usable = Path(tempfile.gettempdir())
        with _folder_in(usable) as folder:
            yield folder

    def _spark(self, stack: ExitStack) -> tuple[str, Any]:
        from lakefit.launch.session import spark_session
        from lakefit.launch.slots import is_connect, none_came, slots
        from lakefit.prepare.cluster import cores

        spark = stack.enter_context(spark_session(self.master))
        kind = "Spark Connect" if is_connect(spark) else spark.sparkContext.master
        if slots(spark, 1) == 0:
            raise InputError(none_came(spark))
        count = cores(spark)
        return f"Spark {spark.version}, {kind}, {count} tasks at once", spark


@contextmanager
def _folder_in(folder: AnyPath) -> Iterator[AnyPath]:
    """Yield a new folder in another one, which is removed again."""
    name = f".lakefit-doctor-{uuid.uuid4().hex[:8]}"
    if isinstance(folder, Path):
        # An executor may run as somebody else.
        (folder / name).mkdir()
        os.chmod(folder / name, 0o777)
    try:
        yield folder / name
    finally:
        remove_tree(folder / name)


def _python() -> tuple[str, Any]:
    versions = _versions()
    missing = [name for name in (*PACKAGES, "tensorflow") if name not in versions]
    if missing:
        raise InputError(f"{sys.executable} lacks {', '.join(missing)}")
    named = ", ".join(f"{name} {version}" for name, version in versions.items() if name != "python")
    return f"{versions['python']} ({sys.executable}): {named}", True


def _versions() -> dict[str, str]:
    """Return the versions of Python and of the packages that are installed."""
    found = {"python": platform.python_version()}
    for name in (*PACKAGES, *TENSORFLOW):
        try:
            found[name.removesuffix("-cpu")] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def _java() -> tuple[str, Any]:
    java = find_java()
    return f"{java.version} in {java.home}", True


def _executors(spark: "SparkSession", work: AnyPath) -> tuple[str, Any]:
    """Have every task say what it stands on, write into the folder and import TensorFlow."""
    from lakefit.prepare.cluster import cores

    tasks = max(2, cores(spark))
    seen = work / "seen"
    if isinstance(seen, Path):
        seen.mkdir()
        os.chmod(seen, 0o777)
    frame = spark.range(0, ROWS, 1, numPartitions=tasks)
    schema = "task BIGINT, host STRING, rows BIGINT, versions MAP<STRING, STRING>"
    table = frame.mapInArrow(partial(_in_task, folder=address_of(seen)), schema).toArrow()
    told = table.to_pylist()
    hosts = sorted({one["host"] for one in told})
    if sum(one["rows"] for one in told) != ROWS:
        raise LakefitError(f"{sum(one['rows'] for one in told)} of {ROWS} rows came through the executors")
    here = _versions()
    for one in told:
        theirs = dict(one["versions"])
        for name, version in here.items():
            # Python's and Arrow's formats are kept within these.
            if theirs.get(name, "none").split(".")[:2] != version.split(".")[:2]:
                raise InputError(f"{one['host']} has {name} {theirs.get(name, 'none')}, and the driver has {version}")
    arrived = len(list(seen.iterdir()))
    if arrived != len(told):
        raise InputError(f"{len(told)} tasks wrote a file into {work.parent}, and {arrived} are seen here")
    shown = ", ".join(hosts[:3]) + (f" and {len(hosts) - 3} more" if len(hosts) > 3 else "")
    return f"{ROWS} rows through {len(told)} tasks on {shown}; packages as here; the folder is shared", True


def _in_task(batches: Iterable[pa.RecordBatch], folder: str) -> Iterator[pa.RecordBatch]:
    rows = [number for batch in batches for number in batch["id"].to_pylist()]
    if not rows:
        return
    write_atomically(any_path(folder) / f"{rows[0]}", socket.gethostname())
    versions = pa.array([list(_versions().items())], pa.map_(pa.string(), pa.string()))
    values = [pa.array([rows[0]], pa.int64()), pa.array([socket.gethostname()]), pa.array([len(rows)], pa.int64())]
    yield pa.RecordBatch.from_arrays([*values, versions], ["task", "host", "rows", "versions"])


class _Silent(Console):
    """What the stages say is not what is asked for."""

    def event(self, event: str, text: str, **fields: Any) -> None:
        pass


def _prepared(work: AnyPath) -> tuple[str, Any]:
    raw = work / "raw.csv"
    lines = "".join(f"{i},{i * 37 % 101 / 7},{i * 37 % 101 // 60}\n" for i in range(ROWS))
    write_atomically(raw, f"id,x,late\n{lines}")
    schema = "id INT, x DOUBLE, late INT"
    table = Table.model_validate({"path": str(raw), "format": "csv", "options": {"header": True}, "schema": schema})
    layers: Any = [{"Dense": {"units": 1, "activation": "sigmoid"}}]
    pipeline = Pipeline(
        name="doctor",
        source=Source(tables={"rows": table}, rows="rows"),
        features=Features(numeric=(Numeric(columns=("x",), normalize="standard"),)),
        label=(Label(expression="late > 0"),),
        output=Output(path=address_of(work / "lake")),
        train=Train(model=Model(sequential=layers), fit=Fit(epochs=1, batch_size=32)),
        score=Score(input=str(raw), output=address_of(work / "scored"), keys=("id",)),
    )
    run = Run(validate(pipeline), _Silent("plain"))
    run_stages(run, "prepare")
    from lakefit.dataset.manifest import read_manifest

    kept = read_manifest(run.dataset_dir).ledger.kept
    if sum(kept.values()) != ROWS:
        raise LakefitError(f"{sum(kept.values())} of {ROWS} rows were kept")
    return f"{ROWS} rows read, shuffled and written as Parquet: {', '.join(f'{n} {s}' for s, n in kept.items())}", run


def _stages(run: Run, *stages: Any) -> tuple[str, Any]:
    for stage in stages:
        run_stages(run, stage)
    if "score" in stages:
        import pyarrow.parquet as pq

        assert run.pipeline.score is not None
        rows = 0
        for path, name in files_below(any_path(run.pipeline.score.output)):
            if name.startswith("part-"):
                with open_input(path) as file:
                    rows += pq.read_metadata(file).num_rows
        if rows != ROWS:
            raise LakefitError(f"{rows} of {ROWS} rows were scored")
        return f"{ROWS} rows scored by the exported model on the executors", True
    return "a Keras model trained on what Petastorm read, every row accounted for, evaluated and exported", True


def _devices() -> tuple[str, Any]:
    from lakefit.launch.quiet import import_tensorflow_quietly

    import_tensorflow_quietly()
    import tensorflow as tf

    gpus = [tf.config.experimental.get_device_details(gpu) for gpu in tf.config.list_physical_devices("GPU")]
    names = ", ".join(str(details.get("device_name", "a GPU")) for details in gpus)
    cpus = len(os.sched_getaffinity(0))
    return f"TensorFlow {tf.__version__}: {names or 'no GPU'}, {cpus} CPU cores", True
