"""Where the files of `conf/` are, in a checkout and in an installed wheel."""

from pathlib import Path

from lakefit.errors import InputError


def conf_path(name: str) -> Path:
    """Return the absolute path of a file of conf/, such as "spark/spark-defaults.conf" or "flights.yaml".

    Raises InputError with the names that there are where it has no such file.
    """
    folder = _conf_folder()
    path = folder / name
    if not path.is_file():
        names = sorted(str(file.relative_to(folder)) for file in folder.rglob("*") if file.is_file())
        raise InputError(f"Lakefit has no configuration file {name!r}. {folder} holds: {', '.join(names) or 'none'}")
    return path


def _conf_folder() -> Path:
    """The wheel carries conf/ as lakefit/conf; a checkout has it beside src/."""
    package = Path(__file__).resolve().parents[1]
    in_wheel = package / "conf"
    return in_wheel if in_wheel.is_dir() else package.parents[1] / "conf"
