"""`python -m lakefit.train.worker`: one of several processes that train a model, at the place that TF_CONFIG says.

The first line of standard input is the job. Standard output is events, a JSON object a line; the line `stop` asks for a
checkpoint and the end, and where standard input ends, so does this process: whoever has started it is gone.
"""

import json
import os
import sys
import threading
import traceback
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from typing import IO, Any

from lakefit.console import Console, Look, repeated
from lakefit.errors import LakefitError
from lakefit.launch.memory import memory_left, memory_peak
from lakefit.launch.place import LOST, place
from lakefit.launch.quiet import import_tensorflow_quietly
from lakefit.launch.stop import Stop
from lakefit.launch.threads import budget_threads


class Told(Console):
    """Says all to whoever reads standard output; of what all have to say, the chief alone does."""

    def __init__(self, out: IO[str], chief: bool) -> None:
        super().__init__("json")
        self._out, self._chief = out, chief

    def event(self, event: str, text: str, **fields: Any) -> None:
        if event == "epoch":
            # Of `tune`: how many trials a machine can have at once.
            fields["memory_bytes"] = memory_peak()
            fields["memory_left_bytes"] = memory_left()
        if self._chief or event in ("stalled", "waiting"):
            self.say(event, message=text, **fields)

    def say(self, event: str, **fields: Any) -> None:
        with self._speaking:
            self._out.write(f"{json.dumps({'event': event, **fields}, ensure_ascii=False, default=str)}\n")
            self._out.flush()

    @contextmanager
    def progress(self, title: str, total: int, look: Look) -> Iterator[None]:
        def show() -> None:
            done, text, fields = look()
            self.event("progress", text, done=done, fields=fields)

        with repeated(show, 1):
            yield


def main() -> int:
    """Train, and return the exit code."""
    sent = json.loads(sys.stdin.readline())
    at = place()
    assert at is not None, "whoever starts a worker gives it a place"
    out, stop = sys.stdout, Stop()
    console = Told(out, not at.worker)
    threading.Thread(target=_obey, args=(stop,), daemon=True).start()
    # What models print is no event.
    with redirect_stdout(sys.stderr):
        import_tensorflow_quietly()
        budget_threads(int(sent["cores"]))
        from lakefit.train.stage import TrainJob, train
        from lakefit.train.workers import LostError

        try:
            with stop.listening():
                trouble = train(TrainJob.loads(sent["job"]), console, stop, at)
        except LostError:
            return LOST
        except LakefitError as error:
            console.say("failed", message=str(error), code=error.exit_code)
            return error.exit_code
        except Exception as error:
            # Of code of the user's, or memory that is not there: it would come again.
            traceback.print_exc()
            first = (str(error).strip().splitlines() or [""])[0]
            message = f"{type(error).__name__}: {first}; the worker's log has more"
            console.say("failed", message=message, code=LakefitError.exit_code)
            return LakefitError.exit_code
        console.say("trained", trouble=trouble)
    return 0


def _obey(stop: Stop) -> None:
    for line in sys.stdin:
        if line.strip() == "stop":
            stop.asked = True
    # Not by sys.exit: the main thread may wait for ever for workers that are gone, too.
    os._exit(LOST)


if __name__ == "__main__":
    code = main()
    sys.stdout.flush()
    # TensorFlow's own end waits for the other workers' heartbeats.
    os._exit(code)
