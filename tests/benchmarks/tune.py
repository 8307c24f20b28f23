"""How long it takes to find values for the demo's network: seconds to a validation AUC of TARGET on flights.

`lakefit`: `lakefit tune conf/flights.yaml` (TPE, median pruner) over SEARCH, which is wider than the file's own, as of
someone who knows little yet. `random`: the same without pruning, at random. `keras-tuner`: its Hyperband over the same
search, on the same rows in memory, one trial at a time with all cores, which is how it runs. Seconds are counted from
the command's start, over one prepared dataset; each has LIMIT=600 of them and the seeds SEEDS=1,2,3.
"""

import contextlib
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT

TARGET = float(os.environ.get("TARGET", "0.731"))
LIMIT = float(os.environ.get("LIMIT", "600"))
SEEDS = [int(seed) for seed in os.environ.get("SEEDS", "1,2,3").split(",")]
CONF = str(ROOT / "conf/flights.yaml")
COMMON = ("--set", "score=null")
RATE, FIRST, SECOND, BATCH = (1e-5, 1e-1), [32, 64, 128, 256, 512], [8, 16, 32, 64, 128], [256, 512, 1024, 2048, 4096]
SEARCH = {
    "train.compile.optimizer.Adam.learning_rate": f"log{RATE}",
    "train.model.sequential.0.Dense.units": FIRST,
    "train.model.sequential.1.Dropout.rate": "uniform(0, 0.8)",
    "train.model.sequential.2.Dense.units": SECOND,
    "train.fit.batch_size": BATCH,
}


def ours(folder: Path, seed: int, *changes: str) -> list[tuple[float, float]]:
    """Run a study until its time is over; return when it reached which best value."""
    given = [
        word
        for change in (f"tune.seed={seed}", "tune.trials=1000", f"tune.search={json.dumps(SEARCH)}", *changes)
        for word in ("--set", change)
    ]
    command = [sys.executable, "-m", "lakefit", "tune", CONF, "--json", *COMMON, *given]
    began, found = time.monotonic(), [(0.0, 0.0)]
    process = subprocess.Popen(
        command, cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True, start_new_session=True
    )
    assert process.stdout is not None
    for line in process.stdout:
        said: dict[str, Any] = json.loads(line) if line.startswith("{") else {}
        took = time.monotonic() - began
        if said.get("event") == "trial" and said["state"] == "complete" and said["value"] > found[-1][1]:
            found.append((took, said["value"]))
        if took > LIMIT or found[-1][1] >= TARGET:
            break
    with contextlib.suppress(ProcessLookupError):
        os.killpg(process.pid, 9)
    process.wait()
    return found


def theirs(folder: Path, seed: int) -> list[tuple[float, float]]:
    """Run keras-tuner's Hyperband in a process of its own; return the same."""
    command = [sys.executable, __file__, "keras-tuner", str(folder), str(seed)]
    done = subprocess.run(command, cwd=folder, stdout=subprocess.PIPE, text=True, check=True)
    return [(took, value) for took, value in json.loads(done.stdout.splitlines()[-1])]


def hyperband(folder: Path, seed: int) -> None:
    began = time.monotonic()
    import keras
    import keras_tuner
    import tensorflow as tf

    from lakefit.config import load_pipeline
    from lakefit.dataset.layout import Layout
    from lakefit.dataset.manifest import read_manifest
    from lakefit.feed.split import SplitFeed
    from lakefit.train.inputs import describe
    from lakefit.train.model import build_model

    pipeline, source = load_pipeline(CONF, ("score=null",))
    (dataset,) = (Path(str(Layout.of(pipeline).root)) / "datasets").iterdir()
    manifest = read_manifest(dataset)
    described = describe(pipeline, manifest)
    found = [(0.0, 0.0)]

    def arrays(split: str) -> Any:
        feed = SplitFeed(dataset, manifest, split, batch_size=manifest.splits[split].rows, shuffle=False)
        return next(iter(feed.to_tf(epochs=1)))

    class Enough(BaseException):
        pass

    class Model(keras_tuner.HyperModel):
        def build(self, hp: Any) -> keras.Model:
            values = {
                "compile.optimizer.Adam.learning_rate": hp.Float("rate", *RATE, sampling="log"),
                "model.sequential.0.Dense.units": hp.Choice("first", FIRST),
                "model.sequential.1.Dropout.rate": hp.Float("dropout", 0, 0.8),
                "model.sequential.2.Dense.units": hp.Choice("second", SECOND),
            }
            overrides = tuple(f"train.{key}={json.dumps(value)}" for key, value in values.items())
            section = load_pipeline(CONF, ("score=null", *overrides))[0].train
            return build_model(described, section, source).model

        def fit(self, hp: Any, model: keras.Model, *given: Any, **more: Any) -> Any:
            return model.fit(*given, batch_size=hp.Choice("batch", BATCH), **more)

    class Watch(keras.callbacks.Callback):
        def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
            took = time.monotonic() - began
            if logs["val_auc"] > found[-1][1]:
                found.append((took, float(logs["val_auc"])))
            if took > LIMIT or found[-1][1] >= TARGET:
                raise Enough

    tuner = keras_tuner.Hyperband(
        Model(), keras_tuner.Objective("val_auc", "max"), max_epochs=20, factor=3, seed=seed,
        directory=str(folder / f"keras-tuner-{seed}"), overwrite=True,
    )  # fmt: skip
    (x, y), (vx, vy) = arrays("train"), arrays("validation")
    tf.get_logger().setLevel("ERROR")
    average = keras.callbacks.SwapEMAWeights(swap_on_epoch=True)
    stop = keras.callbacks.EarlyStopping("val_loss", patience=3, restore_best_weights=True)
    with contextlib.suppress(Enough), contextlib.redirect_stdout(sys.stderr):
        tuner.search(x, y, validation_data=(vx, vy), callbacks=[average, stop, Watch()], verbose=0)
    print(json.dumps(found))


def main() -> None:
    if len(sys.argv) == 4:
        hyperband(Path(sys.argv[2]), int(sys.argv[3]))
        return
    folder = ROOT / "build/bench/tune"
    folder.mkdir(parents=True, exist_ok=True)
    lakefit = [sys.executable, "-m", "lakefit"]
    subprocess.run([*lakefit, "example", "flights", "data/flights"], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    subprocess.run([*lakefit, "prepare", CONF, *COMMON], cwd=folder, check=True, stdout=subprocess.DEVNULL)
    contenders = {
        "lakefit": lambda seed: ours(folder, seed),
        "random": lambda seed: ours(folder, seed, "tune.sampler=random", "tune.pruner=none"),
        "keras-tuner": lambda seed: theirs(folder, seed),
    }
    rows = []
    print(f"{'contender':<13}{'seed':>5}{'best':>9}{'s to ' + str(TARGET):>12}", flush=True)
    for seed in SEEDS:
        for name, contender in contenders.items():
            found = contender(seed)
            took, best = found[-1]
            rows.append({"contender": name, "seed": seed, "best": best, "reached_s": took if best >= TARGET else None})
            reached = f"{took:,.0f}" if best >= TARGET else f"not in {LIMIT:,.0f}"
            print(f"{name:<13}{seed:>5}{best:>9.4f}{reached:>12}", flush=True)
    means = {
        name: sum(row["reached_s"] or LIMIT for row in rows if row["contender"] == name) / len(SEEDS)
        for name in contenders
    }
    for name, mean in means.items():
        print(f"{name:<13}{mean:>8,.0f} s on the mean, {mean / means['lakefit']:.2f} of lakefit's")
    (ROOT / "build/bench/tune.json").write_text(json.dumps(rows, indent=2) + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
