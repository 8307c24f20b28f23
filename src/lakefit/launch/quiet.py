"""TensorFlow's start without its notes (oneDNN, CPU features): they come from C++ before any log level counts."""

import importlib
import os
import sys
import tempfile


def import_tensorflow_quietly(*modules: str) -> None:
    """Import TensorFlow and Keras (or only the modules named) with standard error held back; it is shown where the
    import fails."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if "tensorflow" in sys.modules:
        return
    sys.stderr.flush()
    kept = os.dup(2)
    with tempfile.TemporaryFile() as held:
        os.dup2(held.fileno(), 2)
        try:
            for name in modules or ("tensorflow", "keras"):
                importlib.import_module(name)
        except BaseException:
            held.seek(0)
            os.write(kept, held.read())
            raise
        finally:
            os.dup2(kept, 2)
            os.close(kept)
