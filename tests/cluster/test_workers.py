"""`train.workers` on a Spark cluster: each task with its own GPUs, one run of them all, and the same weights after any
fault as the same processes give under a plain TF_CONFIG."""

import json
import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from faulty import PLAIN
from fitting import places, result_of
from lakefit.launch.barrier import reserved_port
from lakefit.launch.place import TF_CONFIG
from shop import ROOT, events, write_shop
from standalone import Cluster, children, standalone

TRAIN = (
    "{workers: 2, step_timeout: 60s, checkpoint: {every: 5 steps}, callbacks: ['seen:Seen'], "
    "model: {sequential: [{Dense: {units: 1, activation: sigmoid}}]}, fit: {epochs: 12, batch_size: 32}}"
)
SEEN = """
import json, os
from pathlib import Path
import keras

class Seen(keras.callbacks.Callback):
    def on_train_begin(self, logs=None):
        index = json.loads(os.environ["TF_CONFIG"])["task"]["index"]
        Path(f"gpus-{index}").write_text(os.environ["CUDA_VISIBLE_DEVICES"])

    def get_state(self):
        return {}

    def set_state(self, state):
        pass
"""
# A machine has two GPUs, of which an executor is given one; they are called after the worker's folder.
GPUS = """#!/bin/sh
place=${SPARK_LOCAL_DIRS##*-}
echo "{\\"name\\": \\"gpu\\", \\"addresses\\": [\\"$place-a\\", \\"$place-b\\"]}"
"""


@pytest.fixture(scope="module")
def cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Cluster]:
    folder = tmp_path_factory.mktemp("cluster")
    script = folder / "gpus.sh"
    script.write_text(GPUS)
    script.chmod(0o755)
    options = f"-Dspark.worker.resource.gpu.amount=2 -Dspark.worker.resource.gpu.discoveryScript={script}"
    with standalone(folder, 2, {"SPARK_WORKER_OPTS": options}) as running:
        yield running


@pytest.fixture(scope="module")
def prepared(tmp_path_factory: pytest.TempPathFactory, lakefit: Callable[..., Any]) -> Path:
    """A folder with a prepared dataset, to be copied."""
    folder = tmp_path_factory.mktemp("prepared")
    write_shop(folder, 1500)
    head, _, _ = PLAIN.partition("train: {")
    (folder / "shop.yaml").write_text(f"{head}train: {TRAIN}\n", encoding="utf-8")
    (folder / "seen.py").write_text(SEEN, encoding="utf-8")
    done = lakefit("prepare", "shop.yaml", cwd=folder)
    assert done.returncode == 0, done.stderr
    return folder


@pytest.fixture(scope="module")
def expected(prepared: Path, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """What two processes make that somebody else has started, with TF_CONFIG alone."""
    folder = tmp_path_factory.mktemp("expected") / "shop"
    shutil.copytree(prepared, folder)
    for exit_code in (0, 10):
        # The second time, both of them find that it is done.
        running = [_command("train", "--exit-code", cwd=folder, CUDA_VISIBLE_DEVICES="", **at) for at in places(2)]
        ended = [process.communicate(timeout=300) for process in running]
        assert [process.returncode for process in running] == [exit_code] * 2, ended
    assert json.loads((_run_of(folder) / "run.json").read_text())["exit_code"] == 0
    return result_of(_run_of(folder))


def _command(stage: str, *arguments: str, cwd: Path, **environment: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(
        [sys.executable, "-m", "lakefit", stage, "shop.yaml", *arguments], cwd=cwd, text=True,
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, env={**os.environ, **environment},
    )  # fmt: skip


def _run_of(folder: Path) -> Path:
    (run,) = (folder / "lake/shop/runs").iterdir()
    return run


def _submitted(cluster: Cluster, folder: Path) -> "subprocess.Popen[str]":
    return cluster.submit(
        "train", "shop.yaml", "--json", cwd=folder,
        spark_executor_resource_gpu_amount="1", spark_task_resource_gpu_amount="1",
    )  # fmt: skip


def _once_it_trains(cluster: Cluster, folder: Path, process: "subprocess.Popen[str]") -> list[int]:
    """Return the processes that train, in the order of their places, once there are checkpoints."""
    while process.poll() is None and len(list(folder.glob("lake/shop/runs/*/checkpoints/*.npz"))) < 2:
        time.sleep(0.02)
    found: dict[int, int] = {}
    for pid in (pid for worker in cluster.workers for pid in children(worker.pid)):
        environment = dict(line.partition("=")[::2] for line in _read(pid, "environ").split("\0"))
        if "lakefit.train.worker" in _read(pid, "cmdline") and TF_CONFIG in environment:
            found[json.loads(environment[TF_CONFIG])["task"]["index"]] = pid
    return [found[index] for index in sorted(found)]


def _read(pid: int, what: str) -> str:
    try:
        return Path(f"/proc/{pid}/{what}").read_text(errors="replace")
    except OSError:
        return ""


@pytest.mark.parametrize(
    ("number", "worker"),
    [
        (signal.SIGKILL, 1),
        pytest.param(signal.SIGKILL, 0, marks=pytest.mark.slow),
        pytest.param(signal.SIGSTOP, 1, marks=pytest.mark.slow),
    ],
)
def test_a_worker_that_is_killed_or_hangs_is_started_again_with_all_and_the_weights_are_the_same(
    cluster: Cluster, prepared: Path, expected: dict[str, Any], tmp_path: Path, number: int, worker: int
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(prepared, folder)
    process = _submitted(cluster, folder)
    os.kill(_once_it_trains(cluster, folder, process)[worker], number)
    output, _ = process.communicate(timeout=500)
    said = events("\n".join(line for line in output.splitlines() if line.startswith("{")))
    assert process.returncode == 0, said[-1]
    assert "is started again" in str(said) or "all workers are started again" in str(said)
    assert [event for event in said if event["event"] == "resume"]
    assert result_of(_run_of(folder)) == expected
    # Spark gave each task one GPU of its machine, and that is all that TensorFlow there could have seen.
    given = {event["worker"]: event["gpus"] for event in said if event["event"] == "worker"}
    seen = {index: (folder / f"gpus-{index}").read_text() for index in (0, 1)}
    assert {index: [gpu] for index, gpu in seen.items()} == given
    assert sorted(gpu.partition("-")[0] for gpu in seen.values()) == ["0", "1"]


@pytest.mark.slow
@pytest.mark.parametrize("worker", [1, None])
def test_sigterm_for_a_worker_or_the_driver_stops_all_with_a_checkpoint(
    cluster: Cluster, prepared: Path, expected: dict[str, Any], tmp_path: Path, worker: int | None
) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(prepared, folder)
    (tmp_path / "conf").mkdir()
    (tmp_path / "conf/spark-defaults.conf").write_text(f"spark.master {cluster.url}\nspark.driver.host 127.0.0.1\n")
    settings = {**cluster.environment, "SPARK_CONF_DIR": str(tmp_path / "conf")}
    process = _command("train", "--json", cwd=folder, **settings)
    trains = _once_it_trains(cluster, folder, process)
    os.kill(process.pid if worker is None else trains[worker], signal.SIGTERM)
    output, _ = process.communicate(timeout=300)
    last = json.loads(output.splitlines()[-1])
    assert (process.returncode, last["exit_code"]) == (4, 4), output
    assert "as asked; a checkpoint holds all of it" in last["message"]
    # The driver killed, now: nothing of it goes on, and the next one does.
    process = _command("train", "--json", cwd=folder, **settings)
    trains = _once_it_trains(cluster, folder, process)
    process.kill()
    process.communicate()
    for _ in range(600):
        if not any(_read(pid, "cmdline") for pid in trains):
            break
        time.sleep(0.1)
    assert not any(_read(pid, "cmdline") for pid in trains)
    process = _command("train", "--json", cwd=folder, **settings)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 0, output
    assert '"event": "resume"' in output
    assert result_of(_run_of(folder)) == expected


def test_what_can_not_be_started_is_said_at_once(prepared: Path, lakefit: Callable[..., Any]) -> None:
    few = lakefit("train", "shop.yaml", "--set", "train.workers=30", cwd=prepared)
    assert few.returncode == 2, few.stderr
    said = r"--set train.workers=30: train.workers: 30 workers need as many slots at once, and the Spark session at "
    assert re.search(said + r"local\[\*\] has \d+: ", few.stderr), few.stderr
    no_gpus = lakefit("train", "shop.yaml", "--set", "train.devices=gpu", cwd=prepared)
    assert (no_gpus.returncode, "Spark gives its tasks no GPUs" in no_gpus.stderr) == (2, True), no_gpus.stderr
    chief, other = places(2)
    for arguments, at, said in (
        (("train", "shop.yaml", "--set", "train.workers=3"), chief, "3, and TF_CONFIG names 2: 127.0.0.1:"),
        (("run", "shop.yaml"), other, "this process is not the chief of its workers"),
    ):
        ended = lakefit(*arguments, cwd=prepared, env=at)
        assert (ended.returncode, said in ended.stderr) == (2, True), ended.stderr


def test_workers_of_different_pipelines_do_not_train_together(prepared: Path, tmp_path: Path) -> None:
    folder = tmp_path / "shop"
    shutil.copytree(prepared, folder)
    chief, other = places(2)
    running = [
        _command("train", cwd=folder, **chief),
        _command("train", "--set", "train.seed=1", cwd=folder, **other),
    ]
    for process, (_, said) in [(process, process.communicate(timeout=200)) for process in running]:
        assert process.returncode == 2, said
        assert "worker 1 has another run than the chief: " in said
    assert not list(folder.glob("lake/shop/runs/*/checkpoints/*"))


def test_a_port_that_is_taken_is_not_given_and_nobody_else_gets_the_one_that_is(tmp_path: Path) -> None:
    import socket

    with socket.create_server(("", 0)) as taken:
        number = taken.getsockname()[1]
        with reserved_port((number, 0)) as port:
            assert port != number
            with pytest.raises(OSError, match="in use"):
                socket.create_server(("", port))


def test_the_discovery_script_tells_the_gpus_that_nvidia_smi_lists(tmp_path: Path) -> None:
    tool = tmp_path / "nvidia-smi"
    tool.write_text("#!/bin/sh\nprintf '0\\n1\\n7\\n'\n")
    tool.chmod(0o755)
    script = ROOT / "conf/spark/gpus.sh"
    for path, addresses in ((f"{tmp_path}:{os.environ['PATH']}", ["0", "1", "7"]), (os.environ["PATH"], [])):
        told = subprocess.run([script], env={"PATH": path}, capture_output=True, text=True, check=True)
        assert json.loads(told.stdout) == {"name": "gpu", "addresses": addresses}
