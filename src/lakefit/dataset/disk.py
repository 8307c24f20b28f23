"""A full disk: which one it is, how much is free, what to do."""

import errno
import os
import re
import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from lakefit.dataset.object_path import AnyPath
from lakefit.errors import LakefitError, text_of

FULL = (errno.ENOSPC, errno.EDQUOT)
# How the JVM, Arrow and Python's errors in workers say it.
_SAID = re.compile(r"No space left on device|Disk quota exceeded")


class FullDiskError(LakefitError):
    """A disk is full; running again helps once it is not."""


@contextmanager
def full_disk_named(output: AnyPath, spark_local: str | None = None) -> Iterator[None]:
    """Turn what fails of a full disk into a FullDiskError that names the fuller one: of the output, or Spark's own.

    spark_local: `spark.local.dir` of the session.
    """
    try:
        yield
    except FullDiskError:
        raise
    except Exception as error:
        if not _is_full(error):
            raise
        local = os.environ.get("SPARK_LOCAL_DIRS") or spark_local or tempfile.gettempdir()
        spark = {Path(folder): "SPARK_LOCAL_DIRS or TMPDIR" for folder in local.split(",")}
        own = {output: "output.path"} if isinstance(output, Path) else {}
        raise FullDiskError(_message({**own, **spark})) from error


def _is_full(error: BaseException | None) -> bool:
    while error is not None:
        if getattr(error, "errno", None) in FULL or _SAID.search(text_of(error)):
            return True
        error = error.__cause__ or error.__context__
    return False


def _message(places: Mapping[Path, str]) -> str:
    # Errors seldom say where they come from; what was half-written is still there.
    free = {place: shutil.disk_usage(_there(place)) for place in places}
    fullest = min(free, key=lambda place: free[place].free)
    megabytes = (f"{count / 1e6:,.1f} MB" for count in (free[fullest].free, free[fullest].total))
    return (
        f"{fullest}: the disk is full: {' of '.join(megabytes)} are free now. The version in use stays in use. Make "
        f"room there, or name another folder ({places[fullest]})."
    )


def _there(place: Path) -> Path:
    return next(path for path in (place, *place.absolute().parents) if path.exists())
