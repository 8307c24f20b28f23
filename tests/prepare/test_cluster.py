"""What is to be known of the cluster behind a session."""

from collections.abc import Callable
from typing import Any

import pytest
from pyspark.errors import AnalysisException

from lakefit.errors import InputError
from lakefit.prepare.cluster import memory_problem
from lakefit.prepare.rows import SETTINGS, own_session


def settings(**given: str) -> Callable[[str], str | None]:
    return {f"spark.{name.replace('_', '.')}": value for name, value in given.items()}.get


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"master": "yarn"}, "is 0.4 GiB by default, and an executor runs 1 Python"),
        ({"master": "yarn", "executor_memory": "16g", "executor_cores": "4"}, "memoryOverhead=4g"),
        ({"master": "k8s://https://host:443", "executor_memory": "2g"}, "k8s may end it"),
        ({"master": "yarn", "executor_memoryOverhead": "1023"}, "is 1.0 GiB, and"),
        ({"master": "yarn", "executor_memoryOverhead": "1024"}, None),
        ({"master": "yarn", "executor_memoryOverhead": "4g", "executor_cores": "4"}, None),
        ({"master": "k8s://https://host:443", "executor_memory": "4g"}, None),
        ({"master": "yarn", "executor_pyspark_memory": "1g"}, None),
        ({"master": "spark://host:7077"}, None),
    ],
)
def test_too_little_memory_for_python_is_named_where_somebody_counts_it(
    given: dict[str, str], said: str | None
) -> None:
    found = memory_problem(settings(**given))
    assert (found is None) if said is None else (found is not None and said in found)


class Stubborn:
    """Of somebody else's server: a session that keeps a setting."""

    def __init__(self, session: Any, kept: str) -> None:
        self._session, self._kept, self.conf = session, kept, self

    def newSession(self) -> "Stubborn":  # noqa: N802
        return self

    def set(self, name: str, value: str) -> None:
        if name == self._kept:
            raise AnalysisException("[CANNOT_MODIFY_CONFIG] it is the administrator's")
        self._session.conf.set(name, value)

    def get(self, name: str, default: str | None) -> str | None:
        return "other" if name == self._kept else self._session.conf.get(name, default)


@pytest.mark.parametrize("name", SETTINGS)
def test_a_session_that_keeps_another_setting_is_refused_by_its_name(spark: Any, name: str) -> None:
    with pytest.raises(InputError, match=rf"{name} = other.*does not let a session have {SETTINGS[name]}.*CANNOT_MOD"):
        own_session(Stubborn(spark.newSession(), name))  # type: ignore[arg-type]  # stands for a session


def test_a_session_has_what_the_result_depends_on(spark: Any) -> None:
    other = spark.newSession()
    other.conf.set("spark.sql.session.timeZone", "Asia/Tokyo")
    session = own_session(other)
    assert {name: session.conf.get(name) for name in SETTINGS} == SETTINGS
