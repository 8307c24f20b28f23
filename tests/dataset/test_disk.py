"""Which errors are those of a full disk."""

import errno
from pathlib import Path

import pytest

from lakefit.dataset.disk import FullDiskError, full_disk_named
from lakefit.errors import InputError


class JvmError(Exception):
    """Asks a JVM for its text, which has ended."""

    def __str__(self) -> str:
        raise ConnectionRefusedError(errno.ECONNREFUSED, "Connection refused")


@pytest.mark.parametrize("said", [OSError(errno.ENOSPC, "full"), RuntimeError("... No space left on device ...")])
def test_a_full_disk_is_known_wherever_it_stands_among_the_causes(tmp_path: Path, said: Exception) -> None:
    with pytest.raises(FullDiskError, match="the disk is full"), full_disk_named(tmp_path):
        raise ValueError("of that") from said


def test_an_error_that_can_not_be_asked_any_more_leaves_the_one_that_it_caused(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is damaged"), full_disk_named(tmp_path):
        raise InputError("a file is damaged") from JvmError()
