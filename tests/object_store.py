"""An S3 server on loopback, real but for its provider (moto), that is slow or fails as it is told.

`python tests/object_store.py LATENCY_S` serves and prints its port. POST /__faults__ {"kind": "503", "count": 3} makes
the next reads of objects fail: with 500, 503, "reset" (the connection is reset in the middle of the answer), or "cut"
(it is closed there); "careless" makes the next writes take no notice of their conditions. {"hold": "/manifest.json$"}
leaves the next write of such an object without an answer, and undone.
"""

import contextlib
import json
import os
import re
import socket
import struct
import subprocess
import sys
import threading
import time
import urllib.request
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from unittest.mock import patch


@dataclass(frozen=True)
class Operation:
    """A request. path: /bucket/key. condition: its If-Match or If-None-Match. copied: the object that it copies.

    status: with which it was answered."""

    method: str
    path: str
    condition: str
    copied: str
    status: int


@dataclass(frozen=True)
class ObjectStore:
    """A running server. endpoint: host:port."""

    endpoint: str

    def address(self, path: str) -> str:
        """Return the address of bucket/key for pyarrow."""
        return f"s3://{path}?endpoint_override={self.endpoint}&scheme=http&region=us-east-1"

    def fail(self, kind: str, count: int) -> None:
        """Make the next `count` reads fail."""
        self._ask("/__faults__", json.dumps({"kind": kind, "count": count}).encode())

    def hold(self, pattern: str) -> None:
        """Leave the next write of an object whose /bucket/key has a match of the pattern undone, without an answer."""
        self._ask("/__faults__", json.dumps({"hold": pattern}).encode())

    def holds(self) -> bool:
        """Say whether that write has come."""
        return bool(json.loads(self._ask("/__held__", None)))

    def reads(self) -> int:
        """Return how many reads of objects were answered, or failed, so far."""
        return int(self._ask("/__reads__", None))

    def operations(self) -> list["Operation"]:
        """Return all requests so far that could change something, in their order."""
        return [Operation(*fields) for fields in json.loads(self._ask("/__operations__", None))]

    @property
    def environment(self) -> dict[str, str]:
        """What makes every client of a process use this server."""
        return {**CREDENTIALS, "AWS_ENDPOINT_URL": f"http://{self.endpoint}", "AWS_REGION": "us-east-1"}

    def make(self, bucket: str) -> "tuple[Any, str]":
        """Make a bucket; return pyarrow's file system and the bucket's path in it."""
        from pyarrow import fs

        files, base = fs.FileSystem.from_uri(self.address(bucket) + "&allow_bucket_creation=true")
        files.create_dir(base)
        return files, base

    def _ask(self, path: str, content: bytes | None) -> bytes:
        with urllib.request.urlopen(f"http://{self.endpoint}{path}", content) as answer:
            return bytes(answer.read())

    def upload(self, folder: Path, bucket: str) -> None:
        """Put all files of a folder into a new bucket."""
        from pyarrow import fs

        files, base = self.make(bucket)
        fs.copy_files(str(folder), base, destination_filesystem=files)


SECRET = "sesame/51c8+planted"
CREDENTIALS: Mapping[str, str] = {"AWS_ACCESS_KEY_ID": "AKIATEST", "AWS_SECRET_ACCESS_KEY": SECRET}


@contextmanager
def object_store(latency_s: float = 0.0) -> Iterator[ObjectStore]:
    """Start a server in a process of its own, so that it does not take the interpreter from whom it serves."""
    server = subprocess.Popen([sys.executable, __file__, str(latency_s)], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    try:
        yield ObjectStore(f"127.0.0.1:{int(server.stdout.readline())}")
    finally:
        server.kill()
        server.communicate()


@contextmanager
def store_of_this_process() -> Iterator[ObjectStore]:
    """Start a server to which this process has the key."""
    with patch.dict(os.environ, CREDENTIALS), object_store() as store:
        yield store


class _Faulty:
    """moto's application, slower, and failing where it is told to."""

    def __init__(self, application: Callable[..., Iterable[bytes]], latency_s: float) -> None:
        self._application = application
        self._latency_s = latency_s
        self._faults: list[str] = []
        self._reads = 0
        self._careless = 0
        self._hold: re.Pattern[str] | None = None
        self._held = False
        self._operations: list[tuple[str, str, str, str, int]] = []
        self._lock = threading.Lock()

    def __call__(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
        if environ["PATH_INFO"] == "/__faults__":
            told = json.loads(environ["wsgi.input"].read(int(environ["CONTENT_LENGTH"])))
            if "hold" in told:
                self._hold, self._held = re.compile(told["hold"]), False
            elif told["kind"] == "careless":
                self._careless = told["count"]
            else:
                self._faults = [told["kind"]] * told["count"]
            start_response("200 OK", [])
            return []
        if environ["PATH_INFO"] == "/__reads__":
            start_response("200 OK", [])
            return [str(self._reads).encode()]
        if environ["PATH_INFO"] == "/__held__":
            start_response("200 OK", [])
            return [json.dumps(self._held).encode()]
        if environ["PATH_INFO"] == "/__operations__":
            start_response("200 OK", [])
            return [json.dumps(self._operations).encode()]
        if environ["REQUEST_METHOD"] not in ("GET", "HEAD"):
            self._wait_if_told(environ["PATH_INFO"])
            start_response = self._noting(environ, start_response)
        time.sleep(self._latency_s)
        fault = None
        if environ["REQUEST_METHOD"] == "GET" and "HTTP_RANGE" in environ:
            with self._lock:
                self._reads += 1
                fault = self._faults.pop() if self._faults else None
        if fault in ("500", "503"):
            code = "SlowDown" if fault == "503" else "InternalError"
            start_response(f"{fault} {code}", [("Content-Type", "application/xml")])
            return [f"<Error><Code>{code}</Code><Message>as told</Message></Error>".encode()]
        answer = self._application(environ, start_response)
        return _broken(answer, environ["werkzeug.socket"], fault == "reset") if fault else answer

    def _wait_if_told(self, path: str) -> None:
        with self._lock:
            if self._hold is None or not self._hold.search(path):
                return
            self._hold, self._held = None, True
        # Until this server ends: whoever asked is killed meanwhile.
        threading.Event().wait()

    def _noting(self, environ: dict[str, Any], start_response: Callable[..., Any]) -> Callable[..., Any]:
        """Return a start_response that notes the request with its answer."""
        conditions = [environ.get(name, "") for name in ("HTTP_IF_MATCH", "HTTP_IF_NONE_MATCH")]
        if self._careless and any(conditions):
            self._careless -= 1
            environ.pop("HTTP_IF_MATCH", None)
            environ.pop("HTTP_IF_NONE_MATCH", None)

        def noting(status: str, *rest: Any) -> Any:
            copied = environ.get("HTTP_X_AMZ_COPY_SOURCE", "")
            fields = (environ["REQUEST_METHOD"], environ["PATH_INFO"], "".join(conditions), copied, int(status[:3]))
            with self._lock:
                self._operations.append(fields)
            return start_response(status, *rest)

        return noting


def _broken(answer: Iterable[bytes], connection: socket.socket, reset: bool) -> Iterator[bytes]:
    content = b"".join(answer)
    yield content[: len(content) // 2]
    if reset:
        connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    with contextlib.suppress(OSError):
        connection.shutdown(socket.SHUT_RDWR) if not reset else connection.close()


def main() -> None:
    import logging

    from moto.moto_server.werkzeug_app import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import WSGIRequestHandler, make_server

    logging.getLogger("werkzeug").setLevel(logging.CRITICAL)
    WSGIRequestHandler.protocol_version = "HTTP/1.1"
    application = _Faulty(DomainDispatcherApplication(create_backend_app), float(sys.argv[1]))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    print(server.server_port, flush=True)
    # Nobody is to read what werkzeug says of broken connections.
    os.dup2(os.open(os.devnull, os.O_WRONLY), 2)
    server.serve_forever()


if __name__ == "__main__":
    main()
