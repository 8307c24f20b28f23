"""What is said is said a line at a time, whoever speaks."""

import json
import threading

import pytest

from lakefit.console import Console


def test_lines_of_several_threads_are_whole(capfd: pytest.CaptureFixture[str]) -> None:
    console = Console("json")
    texts = ["x" * length for length in (1, 100, 5000)]

    def speak() -> None:
        for number in range(200):
            console.event("said", texts[number % 3], number=number)

    threads = [threading.Thread(target=speak) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    lines = [json.loads(line) for line in capfd.readouterr().out.splitlines()]
    assert len(lines) == 1200
    assert {line["message"] for line in lines} == set(texts)
