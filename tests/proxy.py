"""A proxy of TCP connections that can stop to forward those of one process, without a word to either end."""

import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path


class Proxy:
    """Forwards ports of the address `host` to the same ports of 127.0.0.1."""

    def __init__(self, host: str, ports: list[int]) -> None:
        self._cut: set[int] = set()
        self._sockets = [socket.create_server((host, port)) for port in ports]
        for server in self._sockets:
            threading.Thread(target=self._accept, args=(server,), daemon=True).start()

    def cut(self, pid: int) -> None:
        """Drop from now on what goes to and comes from a process, also through connections that it will open."""
        self._cut.add(pid)

    def close(self) -> None:
        for server in self._sockets:
            server.close()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, (_, port) = server.accept()
                target = socket.create_connection(("127.0.0.1", server.getsockname()[1]))
                owners: list[int] = []
                for source, sink in ((client, target), (target, client)):
                    threading.Thread(target=self._forward, args=(source, sink, port, owners), daemon=True).start()

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
