"""The Spark session: the one that is running, else a local one of ours that is stopped at the end."""

import fcntl
import os
import shutil
import socket
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from urllib.parse import urlsplit

from py4j.protocol import Py4JJavaError
from pyspark import SparkConf, SparkContext
from pyspark.errors import PySparkException
from pyspark.errors.exceptions.captured import CapturedException
from pyspark.logger import PySparkLogger
from pyspark.sql import SparkSession

from lakefit.errors import InputError, text_of, without_credentials
from lakefit.launch.conf import conf_path
from lakefit.launch.java import java_environment

_PREFIX = "lakefit-spark-"
_HELD = "held"


@contextmanager
def spark_session(master: str | None = None) -> Iterator[SparkSession]:
    """Yield the active session and leave it running; where there is none, one of the server at SPARK_REMOTE, or else a
    local one, which is stopped afterwards.

    master: in place of what the settings say, such as spark://host:7077, or sc://host:15002 for Spark Connect.

    Raises:
        InputError: no Java of 17 or newer (for a session of our own); the server at SPARK_REMOTE does not answer.
    """
    # An error that we hand on as a sentence would be printed with the stack of the JVM as well.
    for name in ("SQLQueryContextLogger", "DataFrameQueryContextLogger"):
        PySparkLogger.getLogger(name).disabled = True
    active = SparkSession.getActiveSession() or _submitted_session()
    if active is not None:
        yield active
        return
    if master is not None and master.startswith("sc://"):
        os.environ["SPARK_REMOTE"] = master
    if os.environ.get("SPARK_REMOTE"):
        with _remote_session() as session:
            yield session
        return
    os.environ.update(java_environment())
    # Without these Python workers would be whichever python3 is first on PATH.
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    os.environ.setdefault("PYSPARK_DRIVER_PYTHON", sys.executable)
    log4j = conf_path("spark/log4j2.properties")
    builder = SparkSession.builder
    defaults = spark_defaults(master)
    if defaults["spark.master"].startswith("spark://"):
        _must_answer(defaults["spark.master"], 7077, "Spark master")
    own_options = defaults.pop("spark.driver.extraJavaOptions", "").split()
    for key, value in defaults.items():
        builder = builder.config(key, value)
    # G1, the default, spends more on short pauses than a batch job on few cores has of them.
    # The stack is for plans of thousands of columns, which Java writes recursively.
    # The thresholds are four times Java's: a job that takes seconds has no use for all the code that Java would make
    # faster for it, a third of its time on two cores.
    options = ["-XX:+UseParallelGC", "-Xss16m", "-XX:Tier4InvocationThreshold=20000", "-XX:Tier4CompileThreshold=60000"]
    options.append(f"-Dlog4j2.configurationFile=file:{log4j}")
    builder = builder.config("spark.driver.extraJavaOptions", " ".join([*options, *own_options]))
    with _scratch_folder() as scratch:
        builder = builder.config("spark.sql.warehouse.dir", f"file://{scratch}/warehouse")
        if "SPARK_LOCAL_DIRS" not in os.environ:
            builder = builder.config("spark.local.dir", scratch)
        session = builder.getOrCreate()
        try:
            yield session
        except Exception as error:
            _keep_texts(error)
            raise
        finally:
            session.stop()
            _end_gateway()


def _must_answer(address: str, port: int, what: str) -> None:
    """Raise InputError where nothing listens at an address, or any of several with commas between: Spark would try for
    minutes."""
    problems = []
    for one in address.split(","):
        parts = urlsplit(one if "://" in one else f"//{one}")
        try:
            socket.create_connection((parts.hostname or "", parts.port or port), timeout=20).close()
            return
        except OSError as error:
            problems.append(str(error))
    raise InputError(f"no {what} answers at {without_credentials(address)}: {problems[0]}")


@contextmanager
def _remote_session() -> Iterator[SparkSession]:
    """Yield a session of Spark Connect at SPARK_REMOTE (sc://host:port), and end it."""
    address = without_credentials(os.environ["SPARK_REMOTE"])
    _must_answer(os.environ["SPARK_REMOTE"], 15002, "Spark Connect server")
    try:
        session = SparkSession.builder.getOrCreate()
        session.range(1).count()
    except ImportError as error:
        raise InputError(f"SPARK_REMOTE is {address}, and Spark Connect needs more packages: {error}") from None
    except PySparkException as error:
        (first, *_) = str(error).strip().splitlines() or [type(error).__name__]
        raise InputError(f"no Spark Connect server answers at {address}: {first}") from None
    try:
        yield session
    finally:
        session.stop()


@contextmanager
def _scratch_folder() -> Iterator[str]:
    """Yield a folder for the session's temporary files, and remove it; also those that killed processes left."""
    _remove_left()
    with tempfile.TemporaryDirectory(prefix=_PREFIX) as scratch:
        # Locked before it has its name: whoever finds it unlocked knows that its process is dead.
        descriptor, made = tempfile.mkstemp(prefix=_PREFIX)
        try:
            with suppress(OSError):
                fcntl.flock(descriptor, fcntl.LOCK_EX)
            os.rename(made, Path(scratch) / _HELD)
            yield scratch
        finally:
            os.close(descriptor)


def _remove_left() -> None:
    """Remove this user's folders of sessions whose process was killed; there may be gigabytes of shuffles in them."""
    for held in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*/{_HELD}"):
        with suppress(OSError), open(held, "rb") as file:
            if os.fstat(file.fileno()).st_uid == os.getuid():
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                shutil.rmtree(held.parent, ignore_errors=True)


def spark_defaults(master: str | None = None) -> dict[str, str]:
    """Return the settings of conf/spark/spark-defaults.conf, and before them those of the one in SPARK_CONF_DIR.

    Where those, or `master`, name that of a cluster, what is meant for one machine is left out.
    """
    ours = _settings(conf_path("spark/spark-defaults.conf"))
    folder = os.environ.get("SPARK_CONF_DIR")
    theirs = Path(folder) / "spark-defaults.conf" if folder else None
    own = _settings(theirs) if theirs is not None and theirs.is_file() else {}
    if master is not None:
        own["spark.master"] = master
    if not own.get("spark.master", "local").startswith("local"):
        ours = {key: value for key, value in ours.items() if key not in _ONE_MACHINE}
    return ours | own


_ONE_MACHINE = ("spark.driver.host", "spark.driver.bindAddress", "spark.ui.enabled", "spark.shuffle.compress")


def _settings(path: Path) -> dict[str, str]:
    lines = path.read_text(encoding="utf-8").splitlines()
    pairs = (line.split(None, 1) for line in lines if line.strip() and not line.lstrip().startswith("#"))
    return {key: value.strip() for key, value in pairs}


def _keep_texts(error: BaseException | None) -> None:
    """Ask the JVM for what its errors among the causes say, before it ends; `text_of` finds it in their notes."""
    while error is not None:
        if isinstance(error, Py4JJavaError | CapturedException):
            error.add_note(text_of(error))
        error = error.__cause__ or error.__context__


def _submitted_session() -> SparkSession | None:
    """Under spark-submit a JVM is waiting with the submitted settings: the session is built from those."""
    if "PYSPARK_GATEWAY_PORT" not in os.environ:
        return None
    os.environ.setdefault("PYSPARK_PYTHON", sys.executable)
    SparkContext._ensure_initialized()
    master = SparkConf().get("spark.master", "")
    if str(master).startswith("spark://"):
        _must_answer(str(master), 7077, "Spark master")
    return SparkSession.builder.getOrCreate()


def _end_gateway() -> None:
    """End the JVM of a stopped local session, whose memory training can use."""
    gateway = SparkContext._gateway
    if gateway is None:
        return
    gateway.shutdown()
    process = getattr(gateway, "proc", None)
    if process is not None:
        process.stdin.close()
        process.wait(timeout=30)
    SparkContext._gateway = None
    SparkContext._jvm = None
