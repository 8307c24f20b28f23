"""The files of conf/schedule/ are what their schedulers take, and run what they say."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from ruamel.yaml import YAML

from faulty import PLAIN
from lakefit.cli import _parser
from lakefit.errors import ContractError, GateError, InputError
from shop import ROOT, write_shop

SCHEDULE = ROOT / "conf/schedule"
DEPLOY = ROOT / "build/deploy/bin"
LAKEFIT = str(Path(sys.executable).with_name("lakefit"))
needs_deploy = pytest.mark.skipif(not DEPLOY.is_dir(), reason="build/deploy is made by `make test-all`")


def written(name: str, folder: Path, as_name: str, **other: str) -> Path:
    """Write a file of conf/schedule/ into a folder, with words of it replaced."""
    text = (SCHEDULE / name).read_text(encoding="utf-8")
    for old, new in other.items():
        assert old in text
        text = text.replace(old, new)
    path = folder / as_name
    path.write_text(text, encoding="utf-8")
    return path


def shop(folder: Path) -> Path:
    write_shop(folder, 500)
    (folder / "shop.yaml").write_text(PLAIN, encoding="utf-8")
    return folder / "shop.yaml"


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not installed")
def test_systemd_finds_nothing_wrong_with_the_units(tmp_path: Path) -> None:
    units = [
        written("lakefit@.service", tmp_path, "lakefit@flights.service", **{"/opt/lakefit/bin/lakefit": LAKEFIT}),
        written("lakefit@.timer", tmp_path, "lakefit@flights.timer"),
    ]
    done = subprocess.run(["systemd-analyze", "verify", *map(str, units)], capture_output=True, text=True)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")


@pytest.mark.skipif(shutil.which("logrotate") is None, reason="logrotate is not installed")
def test_logrotate_takes_its_file(tmp_path: Path) -> None:
    config = written("lakefit.logrotate", tmp_path, "lakefit", **{"su lakefit lakefit": "su root root"})
    config.chmod(0o644)
    done = subprocess.run(["/usr/sbin/logrotate", "--debug", str(config)], capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    assert "error" not in done.stderr


def test_crons_line_runs_the_pipeline_and_speaks_up_where_it_ends_badly(tmp_path: Path) -> None:
    shop(tmp_path)
    log = tmp_path / "shop.jsonl"
    text = written(
        "lakefit.cron", tmp_path, "cron",
        **{"/srv/flights/flights.yaml": "shop.yaml", "flights.yaml": "shop.yaml", "/srv/flights": str(tmp_path),
           "/var/log/lakefit/flights.jsonl": str(log), "/var/log/lakefit/flights.err": str(tmp_path / "errors")},
    ).read_text()  # fmt: skip
    (line,) = [line for line in text.splitlines() if re.match(r"\S+ \S+ \S+ \S+ \S+ \S+ ", line) and line[0] != "#"]
    *fields, user, command = line.split(None, 6)
    assert fields == ["30", "2", "*", "*", "*"]
    assert user == "lakefit"
    assert "%" not in command, "cron makes a line end of it"
    (tmp_path / "orders-0.csv").unlink()
    (tmp_path / "orders-1.csv").unlink()
    environment = {**os.environ, "PATH": f"{Path(LAKEFIT).parent}:/usr/bin:/bin"}
    done = subprocess.run(["/bin/sh", "-c", command], env=environment, capture_output=True, text=True)
    assert done.stdout == "lakefit ended with exit code 2: lakefit history shop.yaml\n"
    assert done.stderr == ""
    assert '"exit_code": 2' in log.read_text()


def of_service(key: str) -> str:
    """Return the one value that the service of systemd gives a key."""
    (value,) = re.findall(rf"^{key}=(.*)$", (SCHEDULE / "lakefit@.service").read_text(encoding="utf-8"), re.MULTILINE)
    return str(value)


def cron_job() -> Any:
    return YAML(typ="safe").load(SCHEDULE / "cronjob.yaml")["spec"]["jobTemplate"]["spec"]


def test_what_systemd_and_kubernetes_start_is_a_command_of_lakefits() -> None:
    (container,) = cron_job()["template"]["spec"]["containers"]
    program, *words = of_service("ExecStart").replace("%i", "flights").split()
    assert Path(program).name == "lakefit"
    for arguments in (words, container["args"]):
        options = _parser().parse_args(arguments)
        assert (options.stage, options.pipeline, options.json) == (None, "flights.yaml", True)


def test_the_exit_codes_that_need_a_person_are_the_same_for_every_scheduler() -> None:
    assert [error.exit_code for error in (InputError, ContractError, GateError)] == [2, 5, 6]
    assert of_service("RestartPreventExitStatus").split() == ["2", "5", "6"]
    (fail, moved) = cron_job()["podFailurePolicy"]["rules"]
    assert fail["action"] == "FailJob"
    assert fail["onExitCodes"]["operator"] == "In"
    assert fail["onExitCodes"]["values"] == [2, 5, 6]
    assert moved["action"] == "Ignore"
    dag = (SCHEDULE / "airflow_dag.py").read_text(encoding="utf-8")
    assert re.search(r"NEEDS_A_PERSON = \{2: .*, 5: .*, 6: .*\}", dag)


def test_the_parts_of_the_cronjob_fit_together() -> None:
    whole: Any = YAML(typ="safe").load((SCHEDULE / "cronjob.yaml").read_text(encoding="utf-8"))["spec"]
    pod = cron_job()["template"]["spec"]
    (container,) = pod["containers"]
    # A policy for exit codes needs pods that are never started again in their place.
    assert pod["restartPolicy"] == "Never"
    assert whole["concurrencyPolicy"] == "Forbid"
    assert cron_job()["podFailurePolicy"]["rules"][0]["onExitCodes"]["containerName"] == container["name"]
    assert {mount["name"] for mount in container["volumeMounts"]} == {volume["name"] for volume in pod["volumes"]}
    assert pod["terminationGracePeriodSeconds"] == 300
    assert f"\n{whole['schedule']} " in (SCHEDULE / "lakefit.cron").read_text(encoding="utf-8")
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert container["securityContext"]["readOnlyRootFilesystem"] is True


def test_what_needs_nobody_is_tried_three_times_more() -> None:
    assert of_service("Restart") == "on-failure"
    assert of_service("StartLimitBurst") == "4"
    assert cron_job()["backoffLimit"] == 3
    assert '"retries": 3' in (SCHEDULE / "airflow_dag.py").read_text(encoding="utf-8")


def test_a_run_goes_on_writing_to_its_log_while_it_is_rotated() -> None:
    directives = (SCHEDULE / "lakefit.logrotate").read_text(encoding="utf-8").split("\n")
    assert "copytruncate" in map(str.strip, directives)


@pytest.mark.slow
@needs_deploy
def test_kubernetes_takes_the_cronjob() -> None:
    done = subprocess.run(
        [DEPLOY / "kubernetes-validate", "--strict", SCHEDULE / "cronjob.yaml"], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout + done.stderr


CODES = """
import sys
sys.path.insert(0, sys.argv[1])
import airflow_dag
try:
    airflow_dag.lakefit_flights().get_task("run").python_callable()
    print("done")
except Exception as error:
    print(type(error).__name__, error)
"""


@pytest.mark.slow
@needs_deploy
@pytest.mark.parametrize(
    ("script", "ends"),
    [
        ("exit 0", "done"),
        ("exit 10", "AirflowSkipException all was current"),
        ("exit 2", "AirflowFailException exit code 2"),
        ("exit 5", "AirflowFailException exit code 5"),
        ("exit 6", "AirflowFailException exit code 6"),
        ("exit 3", "AirflowException exit code 3; tried again"),
        ("kill -9 $$", "AirflowException exit code -9; tried again"),
        # Airflow's own SIGTERM is handed on, and the run stops well.
        (
            "trap 'exit 4' TERM; kill -TERM $PPID; while :; do sleep 0.1; done",
            "AirflowException exit code 4; tried again",
        ),
    ],
)
def test_airflow_makes_of_each_exit_code_what_it_means(tmp_path: Path, script: str, ends: str) -> None:
    command = tmp_path / "lakefit"
    command.write_text(f"#!/bin/sh\n{script}\n")
    command.chmod(0o755)
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AIRFLOW"))}
    environment |= {
        "AIRFLOW_HOME": str(tmp_path),
        "LAKEFIT": str(command),
        "LAKEFIT_PIPELINE": str(tmp_path / "p.yaml"),
    }
    done = subprocess.run(
        [DEPLOY / "python", "-B", "-c", CODES, SCHEDULE], env=environment, capture_output=True, text=True, timeout=200
    )
    assert done.stdout.splitlines()[-1].startswith(ends), done.stdout + done.stderr


@pytest.mark.slow
@needs_deploy
def test_airflow_runs_the_dag_skips_what_is_current_and_fails_at_once_what_needs_a_person(tmp_path: Path) -> None:
    pipeline = shop(tmp_path)
    (tmp_path / "airflow/dags").mkdir(parents=True)
    shutil.copy(SCHEDULE / "airflow_dag.py", tmp_path / "airflow/dags")
    environment = {
        **{name: value for name, value in os.environ.items() if not name.startswith(("PYTHON", "AIRFLOW", "VIRTUAL"))},
        "AIRFLOW_HOME": str(tmp_path / "airflow"),
        "AIRFLOW__CORE__LOAD_EXAMPLES": "False",
        "LAKEFIT": LAKEFIT,
        "LAKEFIT_PIPELINE": str(pipeline),
    }

    def airflow(*arguments: str) -> str:
        done = subprocess.run(
            [DEPLOY / "airflow", *arguments], env=environment, capture_output=True, text=True, cwd=tmp_path, timeout=600
        )
        assert done.returncode == 0 or "test" in arguments, done.stdout + done.stderr
        return done.stdout + done.stderr

    airflow("db", "migrate")
    assert "lakefit_flights" in airflow("dags", "list", "--local", "--output", "json")
    assert "no data found" in airflow("dags", "list-import-errors", "--local", "--output", "plain").lower()
    first = airflow("dags", "test", "lakefit_flights")
    assert '"message": "export is done in' in first
    assert "state=success" in first or "successful" in first
    second = airflow("dags", "test", "lakefit_flights")
    assert "all was current" in second
    assert "export is done" not in second
    for file in tmp_path.glob("orders-*.csv"):
        file.unlink()
    third = airflow("dags", "test", "lakefit_flights")
    assert "exit code 2: the input is wrong" in third
    assert "UP_FOR_RETRY" not in third.upper()
