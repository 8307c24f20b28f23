"""Feed of other shapes: `make bench BENCH=feed_shapes`.

Parquet files with an index (`lakefit index`): 2,000 columns, text, lists of any length, tensors of 1 MB; some 100 MB of
each, two cores, the page cache warm. For each, rows/s and MB/s of bare pyarrow on two threads, and of the feed as
numpy, Arrow and TensorFlow, which are read batch by batch in Python; and their ratio.
"""

import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).parent))
from harness import ROOT

THREADS = 2


def wide(rows: int, seed: int) -> Any:
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    return pa.table({f"c{number}": rng.random(rows, np.float32) for number in range(2_000)})


def text(rows: int, seed: int) -> Any:
    import numpy as np
    import pyarrow as pa

    numbers = np.random.default_rng(seed).integers(0, 1 << 40, rows)
    return pa.table({"name": [f"customer {number:013x}" for number in numbers], "x": numbers.astype(np.float32)})


def lists(rows: int, seed: int) -> Any:
    import numpy as np
    import pyarrow as pa

    rng = np.random.default_rng(seed)
    offsets = np.concatenate([[0], np.cumsum(rng.integers(0, 40, rows))]).astype(np.int32)
    values = pa.array(rng.integers(0, 100_000, offsets[-1], np.int32))
    return pa.table({"items": pa.ListArray.from_arrays(pa.array(offsets), values), "x": rng.random(rows, np.float32)})


def tensors(rows: int, seed: int) -> Any:
    import numpy as np
    import pyarrow as pa

    images = np.random.default_rng(seed).integers(0, 255, (rows, 512, 512, 4), np.uint8)
    return pa.table({"image": pa.FixedShapeTensorArray.from_numpy_ndarray(images), "x": np.arange(rows)})


def blobs(rows: int, seed: int) -> Any:
    import pyarrow as pa

    return pa.table({"blob": pa.array([os.urandom(1 << 20) for _ in range(rows)], pa.binary()), "x": range(rows)})


# Name: how to make some rows, rows of a row group, row groups of a file, files, batch, columns.
SIDE_BY_SIDE = {"x": [f"c{number}" for number in range(2_000)]}
SHAPES: dict[str, tuple[Callable[[int, int], Any], int, int, int, int, Any]] = {
    "2,000 columns, one matrix": (wide, 2_000, 4, 4, 256, SIDE_BY_SIDE),
    "2,000 columns, 2,000 inputs": (wide, 2_000, 4, 4, 256, None),
    "text": (text, 100_000, 10, 4, 1_024, None),
    "lists of 0 to 39": (lists, 50_000, 5, 8, 1_024, None),
    "tensors of 1 MB": (tensors, 16, 4, 8, 64, None),
    "bytes of 1 MB": (blobs, 16, 4, 8, 64, None),
}


def folder_of(shape: str) -> Path:
    return ROOT / "build" / "bench" / "feed_shapes" / SHAPES[shape][0].__name__


def write(shape: str) -> None:
    import pyarrow.parquet as pq

    from lakefit.dataset.index import index_folder

    make, rows, groups, files, _, _ = SHAPES[shape]
    folder = folder_of(shape)
    if (folder / "manifest.json").exists():
        return
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(files):
        pq.write_table(make(rows * groups, number), folder / f"{number}.parquet", row_group_size=rows)
    index_folder(folder)


def pyarrow_2(shape: str) -> Iterator[int]:
    import pyarrow.parquet as pq

    def read(group: tuple[Path, int]) -> Any:
        return pq.ParquetFile(group[0]).read_row_group(group[1], use_threads=False)

    groups = [
        (path, index)
        for path in sorted(folder_of(shape).glob("*.parquet"))
        for index in range(pq.read_metadata(path).num_row_groups)
    ]
    with ThreadPoolExecutor(THREADS) as threads:
        for table in threads.map(read, groups):
            yield len(table)


def options(shape: str) -> dict[str, Any]:
    return {"batch_size": SHAPES[shape][4], "seed": 1} | ({"columns": SHAPES[shape][5]} if SHAPES[shape][5] else {})


KEPT: dict[str, Any] = {}


def opened(shape: str) -> Any:
    import lakefit

    return lakefit.open_dataset(folder_of(shape))


def as_numpy(shape: str) -> Iterator[int]:
    feed = KEPT.setdefault("feed", opened(shape).to_numpy("all", **options(shape)))
    for batch in feed:
        yield len(batch["_position"])


def as_arrow(shape: str) -> Iterator[int]:
    for batch in opened(shape).to_arrow("all", **options(shape)):
        yield batch.num_rows


def as_tf(shape: str) -> Iterator[int]:
    data = KEPT.setdefault("data", opened(shape).to_tf("all", **options(shape)))
    for batch in data:
        yield int(next(iter(batch.values())).shape[0])


CONTENDERS = {"pyarrow-2": pyarrow_2, "numpy": as_numpy, "arrow": as_arrow, "tf": as_tf}


def measure(shape: str, contender: str) -> None:
    """Print rows and seconds of the best of three epochs, after one that warms up."""
    found = []
    for _ in range(4):
        began = time.perf_counter()
        rows = sum(CONTENDERS[contender](shape))
        found.append((rows, time.perf_counter() - began))
    print(json.dumps(min(found[1:], key=lambda run: run[1])))


def main() -> None:
    if len(sys.argv) == 3:
        measure(*sys.argv[1:])
        return
    print(f"{'shape':30}{'read as':>12}{'rows/s':>12}{'MB/s':>9}{'x pyarrow-2':>13}", flush=True)
    for shape in SHAPES:
        write(shape)
        from lakefit.dataset.index import read_index

        index = read_index(folder_of(shape))
        assert index is not None
        row_bytes = sum(column.row_bytes for column in index.columns)
        base = 0.0
        for contender in CONTENDERS:
            command = [sys.executable, __file__, shape, contender]
            run = subprocess.run(
                command, stdout=subprocess.PIPE, text=True, check=True, env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"}
            )
            rows, seconds = json.loads(run.stdout.splitlines()[-1])
            assert rows == index.splits["all"].rows
            base = base or rows / seconds
            speed = rows / seconds
            print(
                f"{shape:30}{contender:>12}{speed:>12,.0f}{speed * row_bytes / 1e6:>9,.0f}{speed / base:>13.2f}",
                flush=True,
            )


if __name__ == "__main__":
    main()
