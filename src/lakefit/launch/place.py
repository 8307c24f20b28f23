"""Which one of several processes this is, by TF_CONFIG: TensorFlow's own way to say so, whoever has started them."""

import json
import os
import re
from dataclasses import dataclass

from lakefit.errors import InputError

TF_CONFIG = "TF_CONFIG"
LOST = 75
"""The exit code of a worker whose others are gone."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of a process among those that train one model. The chief, number 0, writes what comes of it.

    worker: 0 to workers - 1. addresses: host:port of each, at which they talk to each other.
    """

    worker: int
    addresses: tuple[str, ...]

    @property
    def workers(self) -> int:
        return len(self.addresses)

    def tf_config(self) -> str:
        """Return what TF_CONFIG has to be in the process at this place."""
        task = {"type": "worker", "index": self.worker}
        return json.dumps({"cluster": {"worker": self.addresses}, "task": task})


def place() -> Place | None:
    """Return this process's place by TF_CONFIG, None where there is none, or it names no workers.

    Raises:
        InputError: it can't be understood.
    """
    text = os.environ.get(TF_CONFIG)
    if not text:
        return None
    try:
        config = json.loads(text)
        cluster, task = config.get("cluster", {}), config.get("task", {})
        chiefs, workers = tuple(cluster.get("chief", ())), tuple(cluster.get("worker", ()))
        if not chiefs and not workers:
            return None
        for address in chiefs + workers:
            if not re.fullmatch(r".+:\d+", str(address)):
                raise ValueError(f"{address!r} is no host:port")
        if task["type"] not in ("chief", "worker"):
            raise ValueError(f"a task of the type {task['type']!r} does not train")
        number = {"chief": 0, "worker": len(chiefs)}[task["type"]] + int(task["index"])
        found = Place(number, chiefs + workers)
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise InputError(
            f"TF_CONFIG: can't be understood ({type(error).__name__}: {error}); expected such as "
            '{"cluster": {"worker": ["host-0:2222", "host-1:2222"]}, "task": {"type": "worker", "index": 0}}.'
        ) from None
    if not 0 <= found.worker < found.workers:
        raise InputError(f"TF_CONFIG: task {number} is none of the {found.workers} of its cluster.")
    return found
