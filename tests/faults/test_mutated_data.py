"""Raw files with anything done to their bytes: a ledger that adds up to an independent count, or a refusal by name."""

import gzip
import io
import json
import re
import zlib
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pyarrow as pa
import pyarrow.csv
import pyarrow.parquet as pq
import pytest

from faulty import KILLS, PLAIN, Shop, dice
from lakefit.dataset.manifest import Manifest, read_manifest

ROWS = 300
SCHEMA = '"id INT, day INT, city STRING, amount DOUBLE, weight DOUBLE, stamp INT, late INT"'
CSV = "path: orders-*.csv\n      format: csv\n      options: {header: true, nullValue: NA}"
QUERY = "  rows: orders\n  query: SELECT *, amount * 2 AS twice FROM orders\n"


def pipeline(table: str, schema: bool = True, query: bool = False) -> str:
    text = PLAIN.replace(CSV, table).replace("  rows: orders\n", QUERY if query else "  rows: orders\n")
    return text if schema else text.replace(f"      schema: {SCHEMA}\n", "")


PIPELINES = {
    "csv": pipeline(CSV),
    "sql": pipeline(CSV, query=True),
    "gz": pipeline(CSV.replace("*.csv", "*.csv.gz")),
    "multiline": pipeline(CSV.replace("NA}", "NA, multiLine: true}")),
    "json": pipeline("path: orders-*.json\n      format: json"),
    "parquet": pipeline("path: orders-*.parquet\n      format: parquet", schema=False),
    "parquet sql": pipeline("path: orders-*.parquet\n      format: parquet", schema=False, query=True),
}


def write(shop: Shop, kind: str) -> Path:
    """Write the shop's files in another format; return the second one, which is then mutated."""
    for path in sorted(shop.folder.glob("orders-*.csv")):
        text = "".join(line for line in path.read_text().splitlines(True) if "three" not in line and "\0" not in line)
        path.write_text(text)
        if kind == "gz":
            path.with_suffix(".csv.gz").write_bytes(gzip.compress(text.encode(), mtime=0))
        elif kind in ("json", "parquet", "parquet sql"):
            nulls = pyarrow.csv.ConvertOptions(null_values=["NA"], strings_can_be_null=True)
            table = pyarrow.csv.read_csv(io.BytesIO(text.encode()), convert_options=nulls)
            if kind == "json":
                lines = "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in table.to_pylist())
                path.with_suffix(".json").write_text(lines, encoding="utf-8")
            else:
                pq.write_table(table, path.with_suffix(".parquet"), row_group_size=64)
        if kind not in ("csv", "sql", "multiline"):
            path.unlink()
    return sorted(shop.folder.glob("orders-*"))[1]


def flip(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + bytes([data[at] ^ (1 << random.randrange(8))]) + data[at + 1 :]


def cut(data: bytes, random: Random) -> bytes:
    return data[: random.randrange(len(data))]


def cut_in_front(data: bytes, random: Random) -> bytes:
    return data[random.randrange(len(data)) :]


def put_in(data: bytes, random: Random) -> bytes:
    pieces = (b'"', b"'", b"\0", b"\xff\xfe", b"\xef\xbb\xbf", b"\r", b"\n", b"\r\n\r\n", b",", b"\\", b"{}", b"\xc3")
    at = random.randrange(len(data) + 1)
    return data[:at] + random.choice(pieces) * random.randrange(1, 4) + data[at:]


def append(data: bytes, random: Random) -> bytes:
    return data + random.choice((b"\0", b"garbage", data, data[:10], b"\n\n", b'"', b" "))


def lines_moved(data: bytes, random: Random) -> bytes:
    lines = data.splitlines(True)
    at, to = random.randrange(len(lines)), random.randrange(len(lines))
    lines[at], lines[to] = random.choice(((lines[to], lines[at]), (b"", lines[to]), (lines[to], lines[to])))
    return b"".join(lines)


def emptied(data: bytes, random: Random) -> bytes:
    return b""


def noise(data: bytes, random: Random) -> bytes:
    at = random.randrange(len(data))
    return data[:at] + random.randbytes(random.randrange(1, 64)) + data[at + 16 :]


def other_encoding(data: bytes, random: Random) -> bytes:
    return data.decode("latin-1").encode(random.choice(("utf-16", "utf-16-le", "utf-8-sig", "cp037")), "replace")


CHANGES: tuple[Callable[[bytes, Random], bytes], ...] = (
    flip, flip, cut, cut_in_front, put_in, put_in, append, lines_moved, lines_moved, emptied, noise, other_encoding
)  # fmt: skip


def rows_in(path: Path, kind: str) -> int | None:
    """Count the rows of a file by means that Lakefit does not use; None where it is no whole file of its kind."""
    data = path.read_bytes()
    if kind.startswith("parquet"):
        try:
            return int(pq.read_metadata(path).num_rows)
        except (pa.ArrowException, OSError):
            return None
    if kind == "gz":
        try:
            data = gzip.decompress(data)
        except (OSError, EOFError, zlib.error):
            return None
    lines = [line for line in re.split(rb"\r\n|\r|\n", data.removeprefix(b"\xef\xbb\xbf")) if line]
    return len(lines) - (kind != "json")


@pytest.mark.parametrize("files", [14, pytest.param(10 * KILLS, marks=pytest.mark.fault, id="many")])
def test_a_mutated_raw_file_is_accounted_for_row_by_row_or_refused_by_name(
    spark: Any, tmp_path: Path, files: int
) -> None:
    random = dice()
    kinds = list(PIPELINES)
    refused = 0
    for number in range(files):
        kind = kinds[number % len(kinds)]
        shop = Shop(tmp_path / f"{number}", ROWS, pipeline=PIPELINES[kind])
        file = write(shop, kind)
        whole = file.read_bytes()
        for change in (changes := random.choices(CHANGES, k=random.choice((1, 1, 2)))):
            file.write_bytes(change(file.read_bytes() or whole, random))
        code = shop.here()
        print(f"file {number + 1}: {kind}, {', '.join(change.__name__ for change in changes)}, exit code {code}")
        if code:
            refused += 1
            assert code == 2, shop.said
            # A field that has become NULL is no damage of the file; where the label hangs on it, the label is named.
            assert file.name in shop.said or "label.expression (late > 0) is NULL" in shop.said
            assert "Traceback" not in shop.said
            assert not shop.has("shop/datasets/*")
        else:
            assert_exact(shop, file, kind)


def assert_exact(shop: Shop, file: Path, kind: str) -> None:
    shop.dataset()
    (dataset,) = shop.folder.glob("lake/shop/datasets/*")
    manifest: Manifest = read_manifest(dataset)
    counted = {path.name: rows_in(path, kind) for path in shop.folder.glob("orders-*")}
    assert {name: ledger.rows_in for name, ledger in manifest.ledger.files.items()} == {
        name: count for name, count in counted.items() if count
    }
