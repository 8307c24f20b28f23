"""Small tables that scikit-learn ships, as CSV files: no network, nothing added and nothing left out."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lakefit.dataset.publish import write_atomically


@dataclass(frozen=True, slots=True)
class Table:
    """loader: in sklearn.datasets. file: the CSV file. label: its last column; classes by name, or numbers."""

    loader: str
    file: str
    label: str
    options: Mapping[str, Any]


TABLES = {
    "classification": Table("load_breast_cancer", "breast_cancer.csv", "diagnosis", {}),
    "multiclass": Table("load_wine", "wine.csv", "cultivar", {}),
    "regression": Table("load_diabetes", "diabetes.csv", "progression", {"scaled": False}),
}


def write(name: str, directory: str | Path) -> tuple[Path, int]:
    """Write a table into `directory`/raw; return the file and its rows. A file that is right already is not touched."""
    import sklearn.datasets

    table = TABLES[name]
    load: Callable[..., Any] = getattr(sklearn.datasets, table.loader)
    data = load(**table.options)
    columns = [column.replace(" ", "_").replace("/", "_") for column in data.feature_names]
    names = getattr(data, "target_names", None)
    labels = data.target.tolist() if names is None else [str(names[place]) for place in data.target]
    rows = [",".join([*map(repr, row), str(label)]) for row, label in zip(data.data.tolist(), labels, strict=True)]
    path = Path(directory) / "raw" / table.file
    text = "\n".join([",".join([*columns, table.label]), *rows, ""])
    if not path.is_file() or path.read_text(encoding="utf-8") != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, text)
    return path, len(rows)
