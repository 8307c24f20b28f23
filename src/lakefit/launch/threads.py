"""How many threads TensorFlow and Arrow may have: as many as there are cores, told by whoever limits them."""

import os
from pathlib import Path

_CGROUP = Path("/sys/fs/cgroup")


def cores() -> int:
    """Return the cores that this process may use: of its affinity, and of the quota of its container.

    TensorFlow and Arrow know of the first alone; with a thread for each of a host's 64 cores, a container of two spends
    its time being stopped.
    """
    allowed = len(os.sched_getaffinity(0))
    quota = _quota()
    return allowed if quota is None else max(1, min(allowed, round(quota)))


def budget_threads(count: int | None = None) -> None:
    """Give TensorFlow and Arrow as many threads as there are cores, or `count`; to be called before TensorFlow's first
    operation.

    Where somebody has started TensorFlow already, its threads stay. The feed's two threads come on top: they wait most
    of the time. In Spark's Python workers there is one thread a task (score/predict.py; Spark says so to Arrow and to
    OpenMP by OMP_NUM_THREADS).
    """
    import pyarrow as pa
    import tensorflow as tf

    count = cores() if count is None else count
    pa.set_cpu_count(count)
    try:
        tf.config.threading.set_intra_op_parallelism_threads(count)
        tf.config.threading.set_inter_op_parallelism_threads(count)
    except RuntimeError:
        return


def _quota() -> float | None:
    """Return the cores of the container's quota (cgroup v2, or v1), None where there is none."""
    try:
        used, period = (_CGROUP / "cpu.max").read_text().split()
    except (OSError, ValueError):
        try:
            used = (_CGROUP / "cpu/cpu.cfs_quota_us").read_text().strip()
            period = (_CGROUP / "cpu/cpu.cfs_period_us").read_text().strip()
        except OSError:
            return None
    return None if used == "max" or int(used) <= 0 else int(used) / int(period)
