"""A session's temporary files: gone with it, or with the next one where its process was killed."""

import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from lakefit.launch.session import _scratch_folder, spark_defaults

HOLDER = """
import time
from pathlib import Path
from lakefit.launch.session import _scratch_folder
with _scratch_folder() as folder:
    (Path(folder) / "shuffle").write_bytes(b"much")
    print(folder, flush=True)
    time.sleep(600)
"""


def test_what_a_killed_session_left_is_removed_by_the_next_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    others = tmp_path / "lakefit-spark-of-an-older-version"
    others.mkdir()
    with subprocess.Popen([sys.executable, "-c", HOLDER], stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            left = Path(process.stdout.readline().strip())
            with _scratch_folder() as mine:
                assert (left / "shuffle").is_file()
                assert Path(mine).parent == tmp_path
            assert not Path(mine).exists()
        finally:
            process.kill()
    assert (left / "shuffle").is_file()
    with _scratch_folder() as mine:
        assert not left.exists()
        assert Path(mine).is_dir()
    assert list(tmp_path.iterdir()) == [others]


OF_THE_JVM = """
from lakefit.errors import text_of
from lakefit.launch.session import spark_session
for fail in (lambda jvm: jvm.java.io.FileReader("/no/such"), lambda jvm: jvm.java.lang.Integer.parseInt("seven")):
    try:
        with spark_session() as spark:
            try:
                fail(spark._jvm)
            except Exception as error:
                raise ValueError("of that") from error
    except ValueError as error:
        print(text_of(error.__cause__))
"""


def test_what_the_jvm_said_is_known_when_it_has_ended() -> None:
    done = subprocess.run([sys.executable, "-c", OF_THE_JVM], capture_output=True, text=True)
    assert "java.io.FileNotFoundException: /no/such (No such file or directory)" in done.stdout, done.stderr
    assert 'For input string: "seven"' in done.stdout


def test_settings_of_spark_conf_dir_go_before_ours_and_a_cluster_has_none_of_one_machine(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delenv("SPARK_CONF_DIR", raising=False)
    ours = spark_defaults()
    of_one_machine = {"spark.driver.host", "spark.driver.bindAddress", "spark.ui.enabled", "spark.shuffle.compress"}
    assert of_one_machine <= ours.keys()
    assert (ours["spark.master"], ours["spark.driver.host"]) == ("local[*]", "127.0.0.1")
    monkeypatch.setenv("SPARK_CONF_DIR", str(tmp_path))
    assert spark_defaults() == ours
    (tmp_path / "spark-defaults.conf").write_text("# mine\nspark.driver.memory  9g\n")
    assert spark_defaults() == {**ours, "spark.driver.memory": "9g"}
    (tmp_path / "spark-defaults.conf").write_text("spark.master\tspark://master:7077\nspark.executor.memory 1g\n")
    found = spark_defaults()
    assert (found["spark.master"], found["spark.executor.memory"]) == ("spark://master:7077", "1g")
    assert found["spark.sql.ansi.enabled"] == "true"
    assert not of_one_machine & found.keys()
    assert not of_one_machine & spark_defaults("spark://elsewhere:7077").keys()
