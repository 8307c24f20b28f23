"""Runs each contender of a benchmark in a process of its own, several times; prints a table, writes build/bench/."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

Contender = Callable[[Path, str], float]
"""Does the job in a folder, from input of a form; returns the seconds that count (session start and imports apart)."""

ROOT = Path(__file__).resolve().parents[2]
RUNS = int(os.environ.get("RUNS", "3"))


def run_benchmark(
    file: str,
    contenders: Mapping[str, Contender],
    data: Callable[[Path, int], None],
    sizes: Sequence[int],
    forms: Sequence[str],
) -> None:
    """Measure every contender at every size and form of input; print medians and the ratio to the first contender.

    `data(folder, rows)` writes the input once a size. Called with `CONTENDER FORM FOLDER` this process is a contender.
    """
    if len(sys.argv) == 4 and sys.argv[1] in contenders:
        seconds = contenders[sys.argv[1]](Path(sys.argv[3]), sys.argv[2])
        print(json.dumps({"seconds": seconds}))
        return
    name = Path(file).stem
    build = ROOT / "build" / "bench"
    results: list[dict[str, Any]] = []
    for rows in sizes:
        folder = build / name / str(rows)
        folder.mkdir(parents=True, exist_ok=True)
        data(folder, rows)
        for form in forms:
            for contender in contenders:
                runs = [_measure(file, contender, form, folder) for _ in range(RUNS)]
                seconds, peak, read = (statistics.median(run[i] for run in runs) for i in range(3))
                results.append(
                    {
                        "contender": contender,
                        "input": form,
                        "rows": rows,
                        "seconds": round(seconds, 3),
                        "rows_per_s": round(rows / seconds),
                        "peak_mb": round(peak),
                        "passes": round(read / (folder / f"raw.{form}").stat().st_size, 1),
                    }
                )
                _print_row(results)
    (build / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _measure(file: str, contender: str, form: str, folder: Path) -> tuple[float, float, float]:
    """Return the seconds a contender reports, and of all its processes the peak memory in MB and the bytes read.

    Bytes read are those of read calls, files that are mapped into memory apart.
    """
    # Whoever comes first would read from the disk what the others find in memory.
    with open(folder / f"raw.{form}", "rb") as raw:
        while raw.read(1 << 24):
            pass
    process = subprocess.Popen(
        [sys.executable, file, contender, form, str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    peak = 0.0
    read: dict[int, int] = {}

    def look() -> None:
        nonlocal peak
        peak = max(peak, _look(process.pid, read))

    with watching(look):
        output, _ = process.communicate()
    if process.returncode != 0:
        raise SystemExit(f"{contender} failed with exit code {process.returncode}; run it alone: {file} {contender} …")
    return float(json.loads(output.splitlines()[-1])["seconds"]), peak, float(sum(read.values()))


def _look(session: int, read: dict[int, int]) -> float:
    """Return the resident memory of a session's processes in MB, shared pages counted once a process; note `read`."""
    total = 0
    for entry in processes_of(session):
        with suppress(OSError, ValueError):
            total += int((entry / "statm").read_text().split()[1])
            read[int(entry.name)] = int((entry / "io").read_text().split()[1])
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


@contextmanager
def watching(look: Callable[[], None]) -> Iterator[None]:
    """Call `look` ten times a second, in a thread of its own."""
    ended = threading.Event()

    def watch() -> None:
        while not ended.wait(0.1):
            look()

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        ended.set()
        watcher.join()


def processes_of(session: int) -> list[Path]:
    """Return the folders in /proc of a session's processes, each of which may end meanwhile."""
    found = []
    for entry in Path("/proc").iterdir():
        with suppress(OSError):
            if entry.name.isdigit() and os.getsid(int(entry.name)) == session:
                found.append(entry)
    return found


def _print_row(results: Sequence[Mapping[str, Any]]) -> None:
    row = results[-1]
    first = next(other for other in results if (other["rows"], other["input"]) == (row["rows"], row["input"]))
    if len(results) == 1:
        titles = f"{'contender':16}{'input':>9}{'rows':>12}{'seconds':>10}{'rows/s':>12}{'peak MB':>10}"
        print(f"{titles}{'passes':>8}{'ratio':>8}", flush=True)
    line = f"{row['contender']:16}{row['input']:>9}{row['rows']:>12,}{row['seconds']:>10.2f}{row['rows_per_s']:>12,}"
    ratio = row["seconds"] / first["seconds"]
    print(f"{line}{row['peak_mb']:>10,}{row['passes']:>8.1f}{ratio:>8.2f}", flush=True)


def stopwatch() -> Callable[[], float]:
    """Return a function that tells the seconds since now."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
