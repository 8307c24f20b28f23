"""The command itself: quick to answer, and of few words about what it imports."""

import subprocess
import sys


def test_help_imports_neither_pydantic_nor_spark_nor_tensorflow() -> None:
    script = """
import sys
from lakefit.cli import main
try:
    main(["--help"])
except SystemExit as end:
    assert end.code == 0
heavy = {"pydantic", "pyspark", "tensorflow", "keras", "numpy", "pandas", "pyarrow", "sqlglot", "ruamel", "rich"}
heavy.add("sklearn")
print("imported:", sorted(heavy & set(sys.modules)))
"""
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert "lakefit" in done.stdout
    assert done.stdout.splitlines()[-1] == "imported: []"


def test_validate_starts_neither_spark_nor_tensorflow(tmp_path: object) -> None:
    from shop import write_shop

    script = """
import sys
from lakefit.cli import main
code = main(["validate", "shop.yaml"])
print(code, sorted({"pyspark", "tensorflow", "keras"} & set(sys.modules)))
"""
    folder = tmp_path
    write_shop(folder, rows=100)  # type: ignore[arg-type]
    done = subprocess.run([sys.executable, "-c", script], cwd=str(folder), capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "0 []"
