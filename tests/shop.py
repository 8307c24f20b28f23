"""A small shop: raw data, its pipeline file, and what tests read of results."""

import json
import textwrap
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lakefit.run.stages import Run
    from lakefit.run.validate import Validated

ROOT = Path(__file__).resolve().parents[1]


def events(output: str) -> list[dict[str, Any]]:
    """Return the JSON lines of `--json`; every line must be one."""
    return [json.loads(line) for line in output.splitlines()]


PIPELINE = """
name: shop
source:
  tables:
    orders:
      path: orders-*.csv
      format: csv
      options: {header: true, nullValue: NA}
      schema: "id INT, day INT, city STRING, amount DOUBLE, weight DOUBLE, stamp INT, late INT"
    cities: {path: cities.csv, format: csv, options: {header: true}, schema: "city STRING, size DOUBLE"}
  rows: orders
  query: |
    SELECT o.*, c.size
    FROM orders o LEFT JOIN cities c ON c.city = o.city
clean:
  - {column: city, text: [trim]}
deduplicate: {key: [id], keep: last by stamp}
reject:
  - {when: "amount < 0", because: refunded}
split: {by: [day], train: 0.6, validation: 0.2, test: 0.2, seed: 3}
features:
  numeric: {columns: [amount, weight, size], indicator: true}
  categorical: {columns: [city], min_count: 2}
label: {expression: late > 0}
output: {path: lake}
train:
  model:
    sequential: [{Dense: {units: 8, activation: relu}}, {Dropout: {rate: 0.2}},
                 {Dense: {units: 1, activation: sigmoid}}]
  compile: {metrics: [AUC]}
  fit: {epochs: 3, batch_size: 64}
"""
CITIES = ("Oslo", "Rome", "Bonn", "Łódź", "Nice")


def order_line(i: int) -> str:
    """Return one order as a CSV line: a fixed function of its number, so that any cut of files holds the same rows."""
    mixed = (i * 2654435761) % 1_000_003
    city = CITIES[mixed % len(CITIES)] if mixed % 17 else "NA"
    amount = f"{mixed % 997 / 7:.3f}" if mixed % 23 else "NA"
    return f"{i},{mixed % 40},{city},{amount},{mixed % 31 + 0.5},1,{int(mixed % 997 / 7 > 100)}"


def write_shop(folder: Path, rows: int = 2000, files: int = 2, order: Callable[[int], int] = lambda i: i) -> Path:
    """Write the shop's raw files, cut into `files`, rows sorted by `order`; return the pipeline file."""
    header = "id,day,city,amount,weight,stamp,late"
    # 50 older copies of orders, some of which a rule would reject; 20 others as old as the order; 10 refunds; 2 broken
    # lines.
    lines = [order_line(i) for i in range(rows)]
    lines += [f"{i},0,Oslo,-5,1.5,0,0" for i in range(50)]
    lines += [f"{100 + i},{i},Rome,7.5,1.5,1,0" for i in range(20)]
    lines += [f"{rows + i},{i},Rome,-1.0,2.5,1,0" for i in range(10)]
    lines += ["1,2,three", "\0\0\0\0"]
    lines = [line for _, line in sorted(enumerate(lines), key=lambda pair: order(pair[0]))]
    for number in range(files):
        part = lines[number * len(lines) // files : (number + 1) * len(lines) // files]
        (folder / f"orders-{number}.csv").write_text("\n".join([header, *part]) + "\n", encoding="utf-8")
    sizes = "\n".join(f"{city},{place}" for place, city in enumerate(CITIES[:-1]))
    (folder / "cities.csv").write_text(f"city,size\n{sizes}\n", encoding="utf-8")
    path = folder / "shop.yaml"
    path.write_text(textwrap.dedent(PIPELINE), encoding="utf-8")
    return path


def parquet_bytes(dataset: Path, *folders: str) -> dict[str, bytes]:
    """Return the content of a dataset's Parquet files by relative name."""
    wanted = folders or ("train", "validation", "test", "duplicates")
    return {str(p.relative_to(dataset)): p.read_bytes() for name in wanted for p in sorted((dataset / name).glob("*"))}


def run_prepare(valid: "Validated") -> "Run":
    """Prepare a validated pipeline in this process; return what was run."""
    from lakefit.console import Console
    from lakefit.run.stages import Run, run_stages

    run = Run(valid, Console("json"))
    run_stages(run, "prepare")
    return run
