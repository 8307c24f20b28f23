"""Workers meet before they train: over plain connections, since TensorFlow waits for others where no signal, no timeout
and no word of who is missing gets through."""

import errno
import faulthandler
import json
import os
import signal
import socket
import time
from collections.abc import Callable, Iterator, Mapping, Set
from contextlib import ExitStack, contextmanager, suppress
from typing import Any

from lakefit.errors import InputError, LakefitError, StoppedError
from lakefit.launch.place import TF_CONFIG, Place
from lakefit.launch.stop import Stop

About = Mapping[str, str]
_LOOK_S = 0.2
_MOST = 65_536
_TOLD_S = 5.0


def meet(at: Place, about: About, stop: Stop, timeout_s: float, say: Callable[[str], None]) -> None:
    """Return once all workers have come to here with the same `about`. say: is told who is waited for.

    Raises:
        InputError: this worker's port is taken, or they are about different things. LakefitError: some have not come in
        time. StoppedError: as `stop` asked.
    """
    host, _, port = at.addresses[at.worker].rpartition(":")
    with _listening(host, int(port)) as server:
        if at.worker:
            # It was free, and TensorFlow is to have it.
            server.close()
            _join(at, about, stop, timeout_s, say)
        else:
            _gather(server, at, about, stop, timeout_s, say)


@contextmanager
def connecting(timeout_s: float) -> Iterator[None]:
    """Within the block TensorFlow connects, and Python hears of nothing meanwhile: a signal ends the process at once,
    and so does the time when it is over. To be entered by the main thread."""
    before = {number: signal.signal(number, signal.SIG_DFL) for number in (signal.SIGTERM, signal.SIGINT)}
    faulthandler.dump_traceback_later(timeout_s, exit=True)
    try:
        yield
    finally:
        faulthandler.cancel_dump_traceback_later()
        for number, handler in before.items():
            signal.signal(number, handler)


def _gather(
    server: socket.socket, at: Place, about: About, stop: Stop, timeout_s: float, say: Callable[[str], None]
) -> None:
    """As the chief: wait for all others, hold what they are about against this, and tell them what came of it."""
    missing = set(range(1, at.workers))
    with ExitStack() as stack:
        come: dict[int, socket.socket] = {}
        problem, found_at = "", 0.0
        for _ in _ticks(at, missing, stop, timeout_s, say):
            with suppress(OSError):
                connection = stack.enter_context(server.accept()[0])
                said = _heard(connection, 2.0)
                worker = said.get("worker")
                if not isinstance(worker, int) or not 1 <= worker < at.workers:
                    continue  # no worker's
                come[worker] = connection
                problem = problem or _difference(worker, said.get("about", {}), about)
            # One that has come may have been ended since.
            come = {worker: connection for worker, connection in come.items() if not _gone(connection)}
            missing.clear()
            missing.update(set(range(1, at.workers)) - come.keys())
            if problem:
                found_at = found_at or time.monotonic()
            # The others are to be told as well, where they come soon.
            if not missing or (problem and time.monotonic() - found_at > _TOLD_S):
                break
        for connection in come.values():
            connection.settimeout(5)
            _tell(connection, {"problem": problem})
        for connection in come.values():
            # Whoever closes first keeps the port busy for a while: not the chief, whose port TensorFlow is to have.
            with suppress(OSError):
                connection.recv(1)
    if problem:
        raise InputError(problem)


def _join(at: Place, about: About, stop: Stop, timeout_s: float, say: Callable[[str], None]) -> None:
    """As another worker: tell the chief what this one is about, and hear what came of it."""
    host, _, port = at.addresses[0].rpartition(":")
    connection: socket.socket | None = None
    try:
        for _ in _ticks(at, {0}, stop, timeout_s, say):
            try:
                if connection is None:
                    connection = socket.create_connection((host, int(port)), timeout=2)
                    _tell(connection, {"worker": at.worker, "about": dict(about)})
                answer = _heard(connection, _LOOK_S)
            except TimeoutError:
                continue  # the chief waits for others
            except OSError:
                answer = {}
            if "problem" not in answer:
                # It is not up yet, or was, and has ended.
                if connection is not None:
                    connection.close()
                connection = None
                time.sleep(_LOOK_S)
                continue
            if answer["problem"]:
                raise InputError(answer["problem"])
            return
    finally:
        if connection is not None:
            connection.close()


def _ticks(at: Place, missing: Set[int], stop: Stop, timeout_s: float, say: Callable[[str], None]) -> Iterator[None]:
    """Yield until the time is over, and say who is missing after five seconds and every half a minute."""

    def named() -> str:
        shown = ", ".join(f"{worker} at {at.addresses[worker]}" for worker in sorted(missing)[:8])
        return f"worker{'s' if len(missing) > 1 else ''} {shown}" + (", …" if len(missing) > 8 else "")

    who, began, reminder = f"worker {at.worker} of {at.workers}", time.monotonic(), 5.0
    while (took := time.monotonic() - began) < timeout_s:
        if stop.asked:
            raise StoppedError("Stopped, as asked, before all workers had come.")
        if took >= reminder:
            say(f"{who} waits for {named()}")
            reminder = took + 30
        yield
    raise LakefitError(
        f"{who} has waited {timeout_s:,.0f} s (train.step_timeout) for {named()}. Start all of them again."
    )


@contextmanager
def _listening(host: str, port: int) -> Iterator[socket.socket]:
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as server:
        server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if os.environ.get("TF_GRPC_REUSE_PORT") == "true":
            # Whoever has started this process holds the port for it.
            server.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEPORT, 1)
        try:
            server.bind(("", port))
            server.listen()
        except OSError as error:
            why = (
                "is taken by another process" if error.errno == errno.EADDRINUSE else f"can't be had ({error.strerror})"
            )
            raise InputError(f"{TF_CONFIG}: port {port} of this machine, {host}, {why}: name another one.") from None
        server.settimeout(_LOOK_S)
        yield server


def _difference(worker: int, theirs: Any, ours: About) -> str:
    if not isinstance(theirs, dict):
        theirs = {}
    for name, mine in ours.items():
        if theirs.get(name) != mine:
            return (
                f"worker {worker} has another {name} than the chief: {theirs.get(name)}, and {mine}. Give all workers "
                "the same pipeline file and --set, code, packages and dataset."
            )
    return ""


def _tell(connection: socket.socket, message: Mapping[str, Any]) -> None:
    with suppress(OSError):
        connection.sendall(f"{json.dumps(message)}\n".encode())


def _gone(connection: socket.socket) -> bool:
    """Say whether the other end is there no more."""
    connection.setblocking(False)
    try:
        return connection.recv(1, socket.MSG_PEEK) == b""
    except BlockingIOError:
        return False
    except OSError:
        return True


def _heard(connection: socket.socket, within_s: float) -> dict[str, Any]:
    """Return what the other end has said in one line; nothing where it is none of ours. Raises TimeoutError."""
    connection.settimeout(within_s)
    text = b""
    while not text.endswith(b"\n") and len(text) < _MOST:
        piece = connection.recv(4096)
        if not piece:
            break
        text += piece
    try:
        found = json.loads(text or b"{}")
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}
