"""PySpark's daemon, whose workers say nothing where the JVM has hung up on them: `spark.python.daemon.module`.

So ends a task that failed elsewhere or is not needed any more. Its reason comes to the driver; here would be a stack
trace.
"""

import os
import socket

from pyspark import daemon

_worker = daemon.worker


def worker(sock: socket.socket, authenticated: bool) -> int:
    """Serve the JVM behind a socket until it ends the connection; return the exit code."""
    try:
        return int(_worker(sock, authenticated))
    except (BrokenPipeError, ConnectionResetError):
        os._exit(1)


if __name__ == "__main__":
    daemon.worker = worker
    daemon.manager()
