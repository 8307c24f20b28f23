"""One run at a time on an output: an flock, which the system lets go of when its process ends, however it ends."""

import fcntl
import json
import os
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

from lakefit.errors import InputError


@contextmanager
def run_lock(path: Path) -> Iterator[None]:
    """Hold the lock of an output for the block.

    Raises:
        InputError: another run holds it; the message says which.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with open(path, "a+", encoding="utf-8") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            file.seek(0)
            raise InputError(
                f"{path}: another run is writing to this output ({_holder(file.read())}). Wait for it to end, or give "
                "this run another output.path."
            ) from None
        file.truncate(0)
        json.dump({"pid": os.getpid(), "since": datetime.now(UTC).isoformat(timespec="seconds")}, file)
        file.flush()
        yield


def _holder(text: str) -> str:
    try:
        holder = json.loads(text)
        return f"process {holder['pid']}, since {holder['since']}"
    except (ValueError, KeyError, TypeError):
        return "its process did not say which it is"
