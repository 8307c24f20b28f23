"""`lakefit tensorboard`: TensorBoard over the runs of a pipeline, for this machine alone."""

import time
from contextlib import suppress

from lakefit.console import Console
from lakefit.dataset.mirror import mirrored
from lakefit.dataset.object_path import AnyPath
from lakefit.errors import InputError
from lakefit.launch.quiet import import_tensorflow_quietly

EVERY_S = 30
"""In which curves in an object store are looked for anew."""


RUNS, STUDIES = "*/tensorboard", "*/trials/*/tensorboard"
"""Where curves lie below the folders of runs and of studies."""


def serve(folder: AnyPath, curves: str, port: int, console: Console) -> None:
    """Serve curves below a folder, on the loopback address, until the process is stopped.

    curves: the pattern of the folders in which they lie.

    Raises:
        InputError: there are none yet, or the port is taken.
    """
    if not any(folder.glob(f"{curves}/*")):
        raise InputError(
            f"{folder}: nothing has been trained yet, so there is nothing to show. Run `lakefit run` first."
        )
    import_tensorflow_quietly("tensorboard.program")
    from tensorboard import program
    from tensorboard.program import TensorBoardServerException

    with mirrored(folder, curves) as here:
        board = program.TensorBoard()
        board.configure(argv=["tensorboard", "--logdir", str(here.local), "--host", "127.0.0.1", "--port", str(port)])
        try:
            address = board.launch()
        except TensorBoardServerException as error:
            raise InputError(f"--port {port}: {error}. Name another one; 0 takes any that is free.") from error
        console.event("tensorboard", f"TensorBoard shows {folder} at {address} (Ctrl-C ends it)", address=address)
        while True:
            time.sleep(EVERY_S)
            with suppress(OSError):
                here.pull()
