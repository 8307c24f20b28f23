"""One run at a time on an output: an flock among the processes of a machine, and a lease that other machines read.

The system lets go of an flock when its process ends, however it ends; but on many network file systems and mounted
object stores other machines don't see it. So the lock file also says who holds it, and is written again while the run
lasts: a holder elsewhere that has not done so for `LEASE_S` is dead. An empty file is held by nobody. In an object
store there is the lease alone, and each of its writes is on condition that nobody else has written.
"""

import fcntl
import json
import os
import socket
import threading
import time
import uuid
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from lakefit.dataset.conditional import ChangedError, Seen, look, replace
from lakefit.dataset.object_path import AnyPath, ObjectPath
from lakefit.errors import InputError, LakefitError

LEASE_S = 120.0
_RENEWALS = 6  # in that time: some may fail or come late
_PATIENCE_S = 60.0


class Lease(ABC):
    """What the run that holds a lock says of itself in it, again and again from a thread of its own."""

    def __init__(self, path: AnyPath, lease_s: float, **more: str) -> None:
        self._path = path
        self._said: dict[str, Any] = {
            "pid": os.getpid(), "host": socket.gethostname(), "since": _now(), "renewed": _now("milliseconds"),
            "lease_s": lease_s, **more, "token": uuid.uuid4().hex,
        }  # fmt: skip
        self._write()
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._renew, args=(lease_s / _RENEWALS,), daemon=True)
        self._thread.start()

    def check(self) -> None:
        """Raise LakefitError where another run has taken over, because this one did not renew for too long."""
        holder = _read(self._path)
        if holder.get("token") != self._said["token"]:
            raise LakefitError(
                f"{self._path}: this run has lost its lock: it was suspended, or could not reach the place, for more "
                f"than {self._said['lease_s']:g} s. Now it is held by another run ({_described(holder)}). Nothing was "
                "taken into use; run again when that one has ended."
            )

    def release(self) -> None:
        """Leave the lock to the next run, unless it is another's by now."""
        self._ended.set()
        # Of a store that does not answer any more nobody waits for the end.
        self._thread.join(timeout=_PATIENCE_S)
        with suppress(OSError, LakefitError):
            self.check()
            self._clear()

    @abstractmethod
    def _write(self) -> None:
        """Write what is said into the lock."""

    @abstractmethod
    def _clear(self) -> None:
        """Make it one that nobody holds."""

    def _renew(self, every_s: float) -> None:
        while not self._ended.wait(every_s):
            with suppress(OSError, LakefitError):
                self.check()
                self._said["renewed"] = _now("milliseconds")
                self._write()


class _FileLease(Lease):
    def __init__(self, path: Path, descriptor: int, lease_s: float) -> None:
        self._descriptor = descriptor
        super().__init__(path, lease_s, flock=_flock_of(descriptor))

    def _write(self) -> None:
        # In place, since an flock is of this very file; always of one length, since others read meanwhile.
        os.pwrite(self._descriptor, json.dumps(self._said).encode(), 0)
        os.fsync(self._descriptor)

    def _clear(self) -> None:
        os.ftruncate(self._descriptor, 0)


class _ObjectLease(Lease):
    """Each write replaces what this run has written before, and fails where that is not there any more."""

    def __init__(self, path: ObjectPath, seen: Seen, lease_s: float) -> None:
        self._seen = seen
        super().__init__(path, lease_s)

    def _write(self) -> None:
        try:
            self._seen = replace(self._path, self._said, self._seen)
        except ChangedError:
            seen = look(self._path)
            if seen.value.get("token") != self._said["token"]:
                raise
            # Written by this run, which never heard of it.
            self._seen = replace(self._path, self._said, seen)

    def _clear(self) -> None:
        self._seen = replace(self._path, {}, self._seen)


@contextmanager
def run_lock(
    path: AnyPath, lease_s: float = LEASE_S, waiting: Callable[[str], None] = lambda _: None
) -> Iterator[Lease]:
    """Hold the lock of an output for the block.

    A run on another machine that holds it is refused to once it has renewed its lease, which shows that it lives; one
    that lets it run out is dead, and was perhaps this very job, moved to another machine. waiting: is told so.

    Raises:
        InputError: another run holds it; the message says which. OSError: the file can't be written.
    """
    if isinstance(path, ObjectPath):
        lease: Lease = _take_object(path, lease_s, waiting)
        try:
            yield lease
        finally:
            lease.release()
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o666)
    try:
        _take(path, descriptor, waiting)
        lease = _FileLease(path, descriptor, lease_s)
        try:
            yield lease
        finally:
            lease.release()
    finally:
        os.close(descriptor)


def _take(path: Path, descriptor: int, waiting: Callable[[str], None]) -> None:
    """Lock the file and empty it. Raises InputError where it is another's."""
    locked = True
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        for _ in range(20):
            # One that has just locked the file is about to say who it is.
            if "pid" in _read(path):
                break
            time.sleep(0.05)
        raise _refused(path, "Wait for it to end") from None
    except OSError:
        locked = False  # this file system has no flock: the lease alone tells
    holder = _read(path)
    if holder and not (locked and holder.get("flock") == _flock_of(descriptor)):
        # A process that the flock says nothing of.
        _await_end(path, holder, waiting)
    os.ftruncate(descriptor, 0)


def _take_object(path: ObjectPath, lease_s: float, waiting: Callable[[str], None]) -> Lease:
    """Write this run into a lock that nobody holds. Raises InputError where it is another's."""
    # What was judged is what may be replaced: of several that wait for one dead holder, one takes over.
    seen = _await_object(path, waiting)
    try:
        lease = _ObjectLease(path, seen, lease_s)
    except ChangedError:
        raise _refused(path, "Wait for it to end") from None
    try:
        replace(path, {}, seen)
    except ChangedError:
        return lease
    except BaseException:
        lease.release()
        raise
    lease.release()
    raise InputError(
        f"{path}: this store takes a write on condition (If-Match, If-None-Match) whatever the condition, so two runs "
        "could write at once. Name a store that keeps to them, or a mounted folder, in output.path."
    )


def _await_object(path: ObjectPath, waiting: Callable[[str], None]) -> Seen:
    """Return the lock as it was seen when nobody held it, or the holder's lease had run out. Raises InputError as soon
    as the holder is seen to live."""
    seen = look(path)
    if not seen.value:
        return seen
    left = seen.value.get("lease_s", 0) - seen.age_s
    if left > 0:
        held = f"{path}: is held by another run ({_described(seen.value)})"
        waiting(f"{held}: waiting up to {left + 1:.0f} s to see whether it lives")
    while left > 0:
        time.sleep(min(left, 1.0))
        now = look(path)
        if not now.value:
            return now
        if now.etag != seen.etag:
            raise _refused(path, "Wait for it to end")
        left = now.value.get("lease_s", 0) - now.age_s
    return seen


def _await_end(path: Path, holder: dict[str, Any], waiting: Callable[[str], None]) -> None:
    """Return once the holder's lease has run out or it has let go. Raises InputError as soon as it is seen to live."""
    renewed = path.stat().st_mtime_ns
    left = holder.get("lease_s", 0) - _age(path)
    if left > 0:
        held = f"{path}: is held by another run ({_described(holder)})"
        waiting(f"{held}: waiting up to {left + 1:.0f} s to see whether it lives")
    while left > 0 and _read(path):
        time.sleep(min(left, 1.0))
        if path.stat().st_mtime_ns != renewed and _read(path):
            raise _refused(path, "Wait for it to end")
        left = holder.get("lease_s", 0) - _age(path)


def _age(path: Path) -> float:
    """Return the seconds since the lock was written, by the clock of its file system: those of machines differ."""
    probe = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    try:
        probe.touch()
        return probe.stat().st_mtime - path.stat().st_mtime
    finally:
        probe.unlink(missing_ok=True)


def holder(path: AnyPath) -> dict[str, Any]:
    """Return what the run that holds a lock says of itself; nothing where nobody does, or the one who did is dead.

    To look does not touch the flock: a run that starts at this moment must not find it taken.
    """
    if isinstance(path, ObjectPath):
        seen = look(path)
        said, age = dict(seen.value), seen.age_s
    else:
        said = _read(path)
        # By this machine's clock: the file system's would be asked by writing.
        age = time.time() - path.stat().st_mtime if said else 0.0
    if not said or age >= said.get("lease_s", 0):
        return {}
    here = said.get("host") == socket.gethostname() and "pid" in said
    return {} if here and not Path(f"/proc/{said['pid']}").exists() else said


def _read(path: AnyPath) -> dict[str, Any]:
    """Return what the holder says of itself: nothing where nobody holds the lock, or has said it yet."""
    if isinstance(path, ObjectPath):
        return dict(look(path).value)
    text = path.read_text(encoding="utf-8", errors="replace").rstrip("\0") if path.exists() else ""
    try:
        holder = json.loads(text) if text else {}
    except ValueError:
        holder = None
    # What can't be read may be half of what one is just writing.
    return holder if isinstance(holder, dict) else {"lease_s": LEASE_S}


def _refused(path: AnyPath, advice: str) -> InputError:
    return InputError(
        f"{path}: another run is writing to this output ({_described(_read(path))}). {advice}, or give this run "
        "another output.path."
    )


def _described(holder: Mapping[str, Any]) -> str:
    if "pid" not in holder or "since" not in holder:
        return "its process did not say which it is"
    more = [f"{word} {holder[key]}" for word, key in (("on", "host"), ("renewed", "renewed")) if key in holder]
    return ", ".join([f"process {holder['pid']}", f"since {holder['since']}", *more])


def _flock_of(descriptor: int) -> str:
    """Return what two processes have in common that see each other's flock: the running kernel, its mount, the file."""
    status = os.fstat(descriptor)
    return f"{_boot()}:{status.st_dev}:{status.st_ino}"


def _boot() -> str:
    try:
        return Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
    except OSError:
        return socket.gethostname()


def _now(to: str = "seconds") -> str:
    return datetime.now(UTC).isoformat(timespec=to)
