"""`hooks`: who is told when a run ends badly."""

import shlex
from typing import Annotated

from pydantic import AfterValidator

from lakefit.config.duration import Duration, seconds
from lakefit.config.sections import Section


def _checked(command: str) -> str:
    try:
        words = shlex.split(command)
    except ValueError as error:
        raise ValueError(f"no command: {str(error).lower()}") from None
    if not words:
        raise ValueError("expected a command, such as /usr/local/bin/page --team ml")
    return command


class Hooks(Section):
    """Commands that are told how a run has ended. No shell reads them: quotes group words, and nothing is expanded.

    on_failure: called when a run ends with an exit code other than 0 and 10, with the run's JSON on its standard input
    (docs/unattended.md). timeout: it is ended after that; what it does changes no exit code.
    """

    on_failure: Annotated[str, AfterValidator(_checked)] | None = None
    timeout: Duration = "60 seconds"

    @property
    def timeout_seconds(self) -> float:
        return seconds(self.timeout)
