"""Workers meet before TensorFlow connects them: who is missing or in the way is named, and nobody waits for ever."""

import socket
import threading
import time
from contextlib import suppress
from typing import Any

import pytest

from lakefit.errors import InputError, LakefitError, StoppedError
from lakefit.launch.meeting import meet
from lakefit.launch.place import Place
from lakefit.launch.stop import Stop

ABOUT = {"run": "a", "keras": "3"}


def addresses(count: int) -> tuple[str, ...]:
    held = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    found = tuple(f"127.0.0.1:{server.getsockname()[1]}" for server in held)
    for server in held:
        server.close()
    return found


def met(
    of: dict[int, dict[str, str]], workers: int, timeout_s: float = 20, late_s: float = 0, stops: tuple[Stop, ...] = ()
) -> tuple[dict[int, Any], list[str]]:
    """Let workers meet, each about something; return what each has raised or None, and what was said. late_s: the last
    one comes so late."""
    at, raised, said = addresses(workers), {}, []

    def one(worker: int, about: dict[str, str]) -> None:
        time.sleep(late_s if worker == max(of) else 0)
        try:
            meet(Place(worker, at), about, stops[worker] if stops else Stop(), timeout_s, said.append)
            raised[worker] = None
        except LakefitError as error:
            raised[worker] = error

    threads = [threading.Thread(target=one, args=item) for item in of.items()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
        assert not thread.is_alive()
    return raised, said


def waiting_chief(at: tuple[str, ...]) -> tuple[threading.Thread, list[Any], socket.socket]:
    """Let a chief wait; return its thread, what `meet` will have returned there, and a connection to it."""
    outcome: list[Any] = []
    waits = threading.Thread(target=lambda: outcome.append(meet(Place(0, at), ABOUT, Stop(), 30, lambda _: None)))
    waits.start()
    host, _, port = at[0].rpartition(":")
    for _ in range(50):
        with suppress(OSError):
            return waits, outcome, socket.create_connection((host, int(port)))
        time.sleep(0.05)
    raise AssertionError("the chief does not listen")


@pytest.mark.parametrize("workers", [2, 5])
def test_all_go_on_once_the_last_one_has_come(workers: int) -> None:
    assert met(dict.fromkeys(range(workers), ABOUT), workers, late_s=1)[0] == dict.fromkeys(range(workers))
    # The chief last: the others look for it.
    assert met({1: ABOUT, 2: ABOUT, 0: ABOUT}, 3)[0] == dict.fromkeys(range(3))


def test_one_that_is_about_something_else_ends_all_of_them_with_both_told() -> None:
    raised, _ = met({0: ABOUT, 1: {**ABOUT, "run": "b"}, 2: ABOUT}, 3)
    for error in raised.values():
        assert isinstance(error, InputError)
        assert "worker 1 has another run than the chief: b, and a. Give all workers the same" in str(error)


@pytest.mark.parametrize("alone", [0, 1])
def test_one_whose_others_do_not_come_says_who_and_ends_in_time(alone: int, monkeypatch: pytest.MonkeyPatch) -> None:
    raised, said = met({alone: ABOUT}, 2, timeout_s=6)
    assert (type(raised[alone]), raised[alone].exit_code) == (LakefitError, 3)
    assert f"has waited 6 s (train.step_timeout) for worker {1 - alone} at 127.0.0.1:" in str(raised[alone])
    assert [text.partition(" at ")[0] for text in said] == [f"worker {alone} of 2 waits for worker {1 - alone}"]


@pytest.mark.parametrize("alone", [0, 1])
def test_one_that_waits_can_be_stopped(alone: int) -> None:
    stop = Stop()
    threading.Timer(0.5, setattr, [stop, "asked", True]).start()
    began = time.monotonic()
    raised, _ = met({alone: ABOUT}, 2, timeout_s=60, stops=(stop, stop))
    assert isinstance(raised[alone], StoppedError)
    assert time.monotonic() - began < 30


def test_one_that_has_come_and_gone_is_waited_for_again() -> None:
    at = addresses(3)
    waits, outcome, gone = waiting_chief(at)
    gone.sendall(b'{"worker": 1, "about": {"run": "a", "keras": "3"}}\n')
    time.sleep(0.5)
    gone.close()
    others = [
        threading.Thread(target=meet, args=(Place(worker, at), ABOUT, Stop(), 30, lambda _: None)) for worker in (2, 1)
    ]
    others[0].start()
    time.sleep(1)
    assert waits.is_alive()
    others[1].start()
    for thread in (*others, waits):
        thread.join(30)
        assert not thread.is_alive()
    assert outcome == [None]


@pytest.mark.parametrize("said", [b"GET / HTTP/1.1\r\n\r\n", b"\n", b'{"worker": 7}\n', b"[1]\n", b"\xff" * 100_000])
def test_what_is_no_worker_is_passed_over(said: bytes) -> None:
    at = addresses(2)
    waits, outcome, stranger = waiting_chief(at)
    with stranger:
        stranger.sendall(said)
        meet(Place(1, at), ABOUT, Stop(), 30, lambda _: None)
    waits.join(30)
    assert outcome == [None]


@pytest.mark.parametrize("worker", [0, 1])
def test_a_port_that_is_taken_is_named(worker: int) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        at = tuple(f"127.0.0.1:{port if number == worker else 1}" for number in range(2))
        with pytest.raises(InputError, match=f"TF_CONFIG: port {port} of this machine, 127.0.0.1, is taken by another"):
            meet(Place(worker, at), ABOUT, Stop(), 5, _nothing)


def _nothing(_: str) -> None:
    pass
