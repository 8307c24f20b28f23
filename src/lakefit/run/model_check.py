"""Asks a process of its own whether the model of a pipeline file can be built (lakefit.train.check)."""

import json
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lakefit.dataset.object_path import AnyPath, address_of
from lakefit.errors import InputError

if TYPE_CHECKING:
    from lakefit.train.check import Answer


def check_model(path: str, overrides: tuple[str, ...], dataset: AnyPath | None, *, search: bool = False) -> str | None:
    """Return what is left to be checked once preparation has run, or None where nothing is.

    path, overrides: the pipeline file. dataset: a prepared one, None where there is none yet. search: what `tune`
    searches is checked as well, and its objective.

    Raises:
        InputError: the model can't be built, with the place in the file, or building it ended the process.
    """
    question = {
        "path": path,
        "overrides": overrides,
        "dataset": address_of(dataset) if dataset is not None else None,
        "search": search,
    }
    answer: Answer | None
    answer, code, said = asked("lakefit.train.check", question)
    if answer is None:
        tail = "\n".join(said[-5:])
        raise InputError(f"{path}: building the model ended its process with exit code {code}. It said:\n{tail}")
    if answer["problem"] is not None:
        raise InputError(answer["problem"])
    return answer["put_off"]


def asked(module: str, question: Mapping[str, Any]) -> tuple[Any, int, list[str]]:
    """Run `python -m module ANSWER` with a question as JSON; return what it has written into that file, None where it
    has failed, its exit code, and the lines that it has printed."""
    with tempfile.TemporaryDirectory(prefix="lakefit-asked-") as folder:
        file = Path(folder) / "answer.json"
        process = subprocess.run(
            [sys.executable, "-m", module, str(file)],
            input=json.dumps(question),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            check=False,
        )
        there = process.returncode == 0 and file.is_file()
        answer = json.loads(file.read_text(encoding="utf-8")) if there else None
    return answer, process.returncode, process.stdout.strip().splitlines()
