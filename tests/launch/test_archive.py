"""What is given to executors lies in its own folder, whole."""

import io
import tarfile
from pathlib import Path

import pytest

from lakefit.errors import LakefitError
from lakefit.launch.package import check_archive


def packed(path: Path, *members: tarfile.TarInfo) -> Path:
    with tarfile.open(path, "w:gz") as tar:
        for member in members:
            content = b"x" * 50_000 if member.isreg() else b""
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))
    return path


def link(name: str, target: str) -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type, member.linkname = tarfile.SYMTYPE, target
    return member


def test_what_lies_in_its_folder_is_taken(tmp_path: Path) -> None:
    check_archive(packed(tmp_path / "a.tar.gz", tarfile.TarInfo("bin/python3.11"), link("bin/python", "python3.11")))


@pytest.mark.parametrize(
    "member",
    [
        tarfile.TarInfo("../evil"),
        link("bin/python", "/usr/bin/python3"),
        link("lib/up", "../../../etc/passwd"),
    ],
    ids=lambda member: member.linkname or member.name,
)
def test_what_lies_or_leads_outside_is_refused(tmp_path: Path, member: tarfile.TarInfo) -> None:
    with pytest.raises(LakefitError, match="can't be given to executors"):
        check_archive(packed(tmp_path / "a.tar.gz", member))


def test_a_damaged_archive_is_refused(tmp_path: Path) -> None:
    archive = packed(tmp_path / "a.tar.gz", tarfile.TarInfo("a"), tarfile.TarInfo("b"))
    archive.write_bytes(archive.read_bytes()[:-40])
    with pytest.raises(LakefitError, match="can't be given to executors"):
        check_archive(archive)
