"""Airflow 3: a pipeline every night. Copy to the folder of DAGs, and set the Variables or change the defaults below.

The worker needs `lakefit` (LAKEFIT, a path) and the pipeline file (LAKEFIT_PIPELINE); it need not be Airflow's own
environment. For a container or a cluster, put `docker run …` or `spark-submit … jobs/run.py` in place of the command.
"""

import os
import signal
import subprocess
from datetime import datetime, timedelta
from pathlib import Path

# All of Airflow 3 has them here; later releases say that they prefer airflow.sdk.exceptions, which 3.1 lacks.
from airflow.exceptions import AirflowException, AirflowFailException, AirflowSkipException
from airflow.sdk import dag, task

LAKEFIT = os.environ.get("LAKEFIT", "/opt/lakefit/bin/lakefit")
PIPELINE = Path(os.environ.get("LAKEFIT_PIPELINE", "/srv/flights/flights.yaml"))
# docs/exit-codes.md: running again changes nothing of these.
NEEDS_A_PERSON = {2: "the input is wrong", 5: "a data contract broke", 6: "the quality gate was not passed"}


@dag(
    dag_id="lakefit_flights",
    schedule="30 2 * * *",
    start_date=datetime(2026, 1, 1),
    # A run takes in all that has come, so a missed night needs no run of its own, and two at once would be refused.
    catchup=False,
    max_active_runs=1,
    default_args={"retries": 3, "retry_delay": timedelta(minutes=10)},
    doc_md=__doc__,
)
def lakefit_flights() -> None:
    @task
    def run() -> None:
        """Run what is not current. Skipped where all was; 3, 4 and a kill are tried again, and it goes on."""
        command = [LAKEFIT, "run", PIPELINE.name, "--json", "--exit-code"]
        with subprocess.Popen(command, cwd=PIPELINE.parent, stdout=subprocess.PIPE, text=True) as process:
            # Airflow ends a task by SIGTERM: handed on, a training leaves a checkpoint. Give it time for that:
            # [core] killed_task_cleanup_time.
            before = signal.signal(signal.SIGTERM, lambda *_: process.terminate())
            try:
                assert process.stdout is not None
                for line in process.stdout:
                    print(line, end="")
            finally:
                signal.signal(signal.SIGTERM, before)
        code = process.returncode
        if code == 10:
            raise AirflowSkipException("all was current")
        if code in NEEDS_A_PERSON:
            raise AirflowFailException(f"exit code {code}: {NEEDS_A_PERSON[code]}; see `lakefit history {PIPELINE}`")
        if code:
            raise AirflowException(f"exit code {code}; tried again, it goes on where it was")

    run()


lakefit_flights()
