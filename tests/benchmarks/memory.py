"""Peak memory of preparation's processes where executors have 1 GB: of the largest Python worker and executor JVM.

Two executors of one core each, beside their driver, on the data of `prepare.py` as CSV. Pages of files that are mapped
into memory are counted apart: the system takes them back when it needs them. ROWS=1000000,10000000 sets sizes.
"""

import json
import os
import subprocess
import sys
from functools import partial
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT, processes_of, watching

from prepare import lakefit, write_data

KINDS = {"python_daemon": "Python worker", "CoarseGrainedExecutorBackend": "executor JVM"}


def prepare_on_executors(folder: Path, sql: bool) -> None:
    """Prepare on a cluster of processes; print the peaks of each kind, in MB, as JSON."""
    from pyspark.sql import SparkSession

    from lakefit.launch.session import spark_defaults

    os.environ["PYSPARK_PYTHON"] = sys.executable
    builder = SparkSession.builder
    cluster = {"spark.master": "local-cluster[2,1,1024]", "spark.executor.memory": "1g"}
    for key, value in {**spark_defaults(), **cluster}.items():
        builder = builder.config(key, value)
    peaks: dict[str, tuple[int, int]] = {}
    with builder.getOrCreate(), watching(partial(look, peaks)):
        lakefit(folder, "csv", sql)
    print(json.dumps(peaks))


def look(peaks: dict[str, tuple[int, int]]) -> None:
    """Note the memory of this session's processes: of each kind the largest, its own and that of files, in MB."""
    for entry in processes_of(os.getsid(0)):
        try:
            command = (entry / "cmdline").read_text()
            lines = (entry / "status").read_text().splitlines()
        except OSError:
            continue
        kind = next((name for part, name in KINDS.items() if part in command), None)
        size = {line.split(":")[0]: int(line.split()[1]) // 1000 for line in lines if line.startswith("Rss")}
        if kind is not None and size:
            own, files = peaks.get(kind, (0, 0))
            peaks[kind] = (max(own, size["RssAnon"]), max(files, size["RssFile"]))


if __name__ == "__main__":
    if len(sys.argv) == 3:
        prepare_on_executors(Path(sys.argv[1]), sys.argv[2] == "sql")
        sys.exit()
    print(f"{'reader':8}{'rows':>12}{'process':>16}{'own MB':>10}{'of files MB':>14}")
    for rows in [int(rows) for rows in os.environ.get("ROWS", "1000000,10000000").split(",")]:
        folder = ROOT / "build" / "bench" / "prepare" / str(rows)
        folder.mkdir(parents=True, exist_ok=True)
        write_data(folder, rows)
        for reader in ("arrow", "sql"):
            output = subprocess.run(
                [sys.executable, __file__, str(folder), reader],
                check=True,
                stdout=subprocess.PIPE,
                stderr=subprocess.DEVNULL,
                start_new_session=True,
            ).stdout
            for kind, (own, files) in sorted(json.loads(output.splitlines()[-1]).items()):
                print(f"{reader:8}{rows:>12,}{kind:>16}{own:>10,}{files:>14,}", flush=True)
