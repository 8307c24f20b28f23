"""Asks a process of its own whether the model of a pipeline file can be built (lakefit.train.check)."""

import json
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import TYPE_CHECKING

from lakefit.dataset.object_path import AnyPath, address_of
from lakefit.errors import InputError

if TYPE_CHECKING:
    from lakefit.train.check import Answer


def check_model(path: str, overrides: tuple[str, ...], dataset: AnyPath | None) -> str | None:
    """Return what is left to be checked once preparation has run, or None where nothing is.

    path, overrides: the pipeline file. dataset: a prepared one, None where there is none yet.

    Raises:
        InputError: the model can't be built, with the place in the file, or building it ended the process.
    """
    question = {"path": path, "overrides": overrides, "dataset": address_of(dataset) if dataset is not None else None}
    with tempfile.TemporaryDirectory(prefix="lakefit-check-") as folder:
        file = Path(folder) / "answer.json"
        process = subprocess.run(
            [sys.executable, "-m", "lakefit.train.check", str(file)],
            input=json.dumps(question),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        if process.returncode != 0 or not file.is_file():
            tail = "\n".join(process.stdout.strip().splitlines()[-5:])
            raise InputError(
                f"{path}: building the model ended its process with exit code {process.returncode}. It said:\n{tail}"
            )
        answer: Answer = json.loads(file.read_text(encoding="utf-8"))
    if answer["problem"] is not None:
        raise InputError(answer["problem"])
    return answer["put_off"]
