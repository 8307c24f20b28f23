"""A proxy of TCP connections that can stop to forward those of one process, without a word to either end."""

import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any


class Proxy:
    """Forwards ports of the address `host` to the same ports of 127.0.0.1."""

    def __init__(self, host: str, ports: list[int]) -> None:
        self._cut: set[int] = set()
        self._threads: list[threading.Thread] = []
        self._sockets = [socket.create_server((host, port)) for port in ports]
        for server in list(self._sockets):
            self._start(self._accept, server)

    def cut(self, pid: int) -> None:
        """Drop from now on what goes to and comes from a process, also through connections that it will open."""
        self._cut.add(pid)

    def close(self) -> None:
        for one in self._sockets:
            # Whoever waits for it does not wait any longer.
            with suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)
            one.close()
        for thread in self._threads:
            thread.join(timeout=10)

    def _start(self, function: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=function, args=arguments, daemon=True)
        self._threads.append(thread)
        thread.start()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, (_, port) = server.accept()
                target = socket.create_connection(("127.0.0.1", server.getsockname()[1]))
                self._sockets += [client, target]
                owners: list[int] = []
                for source, sink in ((client, target), (target, client)):
                    self._start(self._forward, source, sink, port, owners)

    def _forward(self, source: socket.socket, sink: socket.socket, port: int, owners: list[int]) -> None:
        with suppress(OSError):
            while content := source.recv(1 << 16):
                if not owners:
                    owners.append(_owner(port))
                if owners[0] not in self._cut:
                    sink.sendall(content)
            if not owners or owners[0] not in self._cut:
                sink.shutdown(socket.SHUT_WR)


def _owner(port: int) -> int:
    """Return the process that has a connection from a local port; 0 where there is none any more."""
    for table in ("tcp", "tcp6"):
        for line in Path(f"/proc/net/{table}").read_text().splitlines()[1:]:
            fields = line.split()
            if int(fields[1].rpartition(":")[2], 16) == port and fields[9] != "0":
                wanted = f"socket:[{fields[9]}]"
                for link in Path("/proc").glob("[0-9]*/fd/*"):
                    with suppress(OSError):
                        if str(link.readlink()) == wanted:
                            return int(link.parts[2])
    return 0


@contextmanager
def proxy(host: str, ports: list[int]) -> Iterator[Proxy]:
    running = Proxy(host, ports)
    try:
        yield running
    finally:
        running.close()
