"""An example's pipeline file, for the folder in which its raw data lies."""

import os
from pathlib import Path

from lakefit.dataset.publish import write_atomically
from lakefit.launch.conf import conf_path


def write_pipeline(name: str, directory: str | Path) -> Path:
    """Write `directory/NAME.yaml`, conf/NAME.yaml with its paths led to `directory`; return its path.

    A file that is right already is not touched.
    """
    text = conf_path(f"{name}.yaml").read_text(encoding="utf-8")
    folder = os.fspath(directory).rstrip("/") or "/"
    text = text.replace(f"conf/{name}.yaml", f"{folder}/{name}.yaml").replace(f"data/{name}", folder)
    path = Path(directory) / f"{name}.yaml"
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        write_atomically(path, text)
    return path
