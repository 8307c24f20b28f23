"""An environment for executors that lies anywhere: Python, its packages and Lakefit, as one archive (`make package`).

`python -m lakefit.launch.package FOLDER LOCK WHEEL` makes it of the Python that it runs on. Spark unpacks the archive
beside each executor: `--archives FOLDER.tar.gz#environment`, PYSPARK_PYTHON=./environment/bin/python. A virtual
environment would not do, since it is a folder of links to a Python that every machine must have in the same place.
"""

import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zlib
from pathlib import Path

from lakefit.errors import LakefitError

_LEFT_OUT = ("site-packages", "dist-packages", "__pycache__", "test", "idlelib", "tkinter", "turtledemo", "config-*")
# A Python of Debian's looks for its packages elsewhere.
_SITE = """import os
import site

site.addsitedir(os.path.join(os.path.dirname(__file__), "site-packages"))
"""


def package(folder: Path, lock: Path, wheel: Path) -> Path:
    """Make the environment in `folder`, and of that `folder`.tar.gz, which is returned.

    lock: of the packages, with hashes. wheel: Lakefit's own.
    """
    shutil.rmtree(folder, ignore_errors=True)
    name = f"python{sys.version_info.major}.{sys.version_info.minor}"
    library, commands = folder / "lib" / name, folder / "bin"
    shutil.copytree(sysconfig.get_path("stdlib"), library, symlinks=True, ignore=shutil.ignore_patterns(*_LEFT_OUT))
    commands.mkdir()
    # From where this file lies Python finds the folder lib beside it.
    shutil.copy(Path(sys.executable).resolve(), commands / name)
    for link in ("python", "python3"):
        (commands / link).symlink_to(name)
    shared = Path(sysconfig.get_config_var("LIBDIR")) / str(sysconfig.get_config_var("INSTSONAME"))
    if sysconfig.get_config_var("Py_ENABLE_SHARED") and shared.is_file():
        shutil.copy(shared, folder / "lib")
    (library / "sitecustomize.py").write_text(_SITE, encoding="utf-8")
    site = library / "site-packages"
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "--quiet",
        "--no-deps",
        "--no-build-isolation",
        "--target",
        str(site),
    ]
    subprocess.run([*pip, "--require-hashes", "--requirement", str(lock)], check=True)
    subprocess.run([*pip, str(wheel)], check=True)
    archive = folder.with_suffix(".tar.gz")
    with tarfile.open(archive, "w:gz", compresslevel=1) as tar:
        for path in sorted(folder.iterdir()):
            tar.add(path, arcname=path.name)
    check_archive(archive)
    return archive


def check_archive(archive: Path) -> None:
    """Read an archive to its end. Raises LakefitError where something in it lies, or leads, outside of the folder that
    it is unpacked into, or is damaged."""
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                tarfile.data_filter(member, "/environment")
    except (tarfile.TarError, OSError, EOFError, zlib.error) as error:
        raise LakefitError(f"{archive}: can't be given to executors: {error}") from error


if __name__ == "__main__":
    print(package(*map(Path, sys.argv[1:4])))
