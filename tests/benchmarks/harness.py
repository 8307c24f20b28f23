"""Runs each contender of a benchmark in a process of its own, several times; prints a table, writes build/bench/."""

import json
import os
import statistics
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

Contender = Callable[[Path], float]
"""Does the job in a folder of its own and returns the seconds that count (session start and imports apart)."""

ROOT = Path(__file__).resolve().parents[2]
RUNS = 3


def run_benchmark(
    file: str,
    contenders: Mapping[str, Contender],
    data: Callable[[Path, int], None],
    sizes: Sequence[int],
    **labels: Any,
) -> None:
    """Measure every contender at every size and print medians and the ratio to the first contender.

    `data(folder, rows)` writes the input once a size. Called with `CONTENDER ROWS FOLDER` this process is a contender.
    """
    if len(sys.argv) == 4 and sys.argv[1] in contenders:
        seconds = contenders[sys.argv[1]](Path(sys.argv[3]))
        print(json.dumps({"seconds": seconds}))
        return
    name = Path(file).stem
    build = ROOT / "build" / "bench"
    results: list[dict[str, Any]] = []
    for rows in sizes:
        folder = build / name / str(rows)
        folder.mkdir(parents=True, exist_ok=True)
        data(folder, rows)
        for contender in contenders:
            runs = [_measure(file, contender, rows, folder) for _ in range(RUNS)]
            seconds = statistics.median(run[0] for run in runs)
            results.append(
                {
                    "contender": contender,
                    "rows": rows,
                    **labels,
                    "seconds": round(seconds, 3),
                    "rows_per_s": round(rows / seconds),
                    "peak_mb": round(statistics.median(run[1] for run in runs)),
                }
            )
            _print_row(results)
    (build / f"{name}.json").write_text(json.dumps(results, indent=2) + "\n", encoding="utf-8")


def _measure(file: str, contender: str, rows: int, folder: Path) -> tuple[float, float]:
    """Return the seconds a contender reports and the peak memory of all its processes in MB."""
    process = subprocess.Popen(
        [sys.executable, file, contender, str(rows), str(folder)],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        start_new_session=True,
    )
    peak = 0.0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.1):
            peak = max(peak, _session_mb(process.pid))

    watcher = threading.Thread(target=watch)
    watcher.start()
    output, _ = process.communicate()
    ended.set()
    watcher.join()
    if process.returncode != 0:
        raise SystemExit(f"{contender} failed with exit code {process.returncode}; run it alone: {file} {contender} …")
    return float(json.loads(output.splitlines()[-1])["seconds"]), peak


def _session_mb(session: int) -> float:
    """Return the resident memory, shared pages counted once a process, of a session's processes in MB."""
    total = 0
    for entry in Path("/proc").iterdir():
        if not entry.name.isdigit():
            continue
        try:
            if os.getsid(int(entry.name)) == session:
                total += int((entry / "statm").read_text().split()[1])
        except (OSError, ValueError):
            continue
    return total * os.sysconf("SC_PAGE_SIZE") / 1e6


def _print_row(results: Sequence[Mapping[str, Any]]) -> None:
    row = results[-1]
    first = next(other for other in results if other["rows"] == row["rows"])
    if len(results) == 1:
        print(f"{'contender':16}{'rows':>12}{'seconds':>10}{'rows/s':>14}{'peak MB':>10}{'ratio':>8}", flush=True)
    ratio = row["seconds"] / first["seconds"]
    line = (
        f"{row['contender']:16}{row['rows']:>12,}{row['seconds']:>10.2f}{row['rows_per_s']:>14,}{row['peak_mb']:>10,}"
    )
    print(f"{line}{ratio:>8.2f}", flush=True)


def stopwatch() -> Callable[[], float]:
    """Return a function that tells the seconds since now."""
    began = time.perf_counter()
    return lambda: time.perf_counter() - began
