"""How far the demo's network is from gradient boosting: AUC on the test split of flights, over 5 split seeds.

Runs `conf/flights.yaml` as it stands for each seed of the split (SEEDS=1,2,3,4,5), in build/bench/gap, without scoring,
and prints both AUCs, the gap, and the mean gap, which must be at most 0.02.
"""

import contextlib
import json
import os
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT

SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1,2,3,4,5").split(",")]
MOST = 0.02


def main() -> None:
    from lakefit.cli import main as lakefit
    from lakefit.example.flights import write

    folder = ROOT / "build/bench/gap"
    folder.mkdir(parents=True, exist_ok=True)
    found = []
    print(f"{'seed':>4}{'model':>9}{'boosting':>10}{'gap':>9}", flush=True)
    with contextlib.chdir(folder):
        write("data/flights")
        for seed in SEEDS:
            output = folder / f"run-{seed}.log"
            with output.open("w") as log, contextlib.redirect_stdout(log):
                changes = [f"split.seed={seed}", "score=null", f"output.path=lake-{seed}"]
                given = [part for change in changes for part in ("--set", change)]
                code = lakefit(["run", str(ROOT / "conf/flights.yaml"), *given])
            if code:
                raise SystemExit(f"seed {seed} ended with exit code {code}: {output}")
            current = json.loads(Path(f"lake-{seed}/flights/current.json").read_text())
            report = json.loads(Path(f"lake-{seed}/flights/runs/{current['run']}/metrics.json").read_text())
            model, boosting = (
                of["test"]["auc"] for of in (report["metrics"], report["baselines"]["gradient_boosting"])
            )
            found.append({"seed": seed, "model": model, "boosting": boosting, "gap": boosting - model})
            print(f"{seed:>4}{model:>9.4f}{boosting:>10.4f}{boosting - model:>9.4f}", flush=True)
    mean = statistics.mean(row["gap"] for row in found)
    print(f"mean gap {mean:.4f}, at most {MOST}: {'met' if mean <= MOST else 'NOT MET'}")
    (ROOT / "build/bench/gap.json").write_text(json.dumps(found, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
