"""Image files as rows, a row a file."""

from collections.abc import Iterable, Iterator, Sequence

import pyarrow as pa

from lakefit.dataset.inputs import file_uri, open_raw

IMAGES_SCHEMA = "path STRING, class STRING, image BINARY, _lakefit_file STRING"
_BATCH_BYTES = 16 << 20


def read_images(batches: Iterable[pa.RecordBatch], files: Sequence[tuple[str, str]]) -> Iterator[pa.RecordBatch]:
    """Read the files whose numbers are in `id`; yield `IMAGES_SCHEMA`, a bounded number of bytes at a time.

    files: the name below the table's path, and the path or address, of each.
    """
    held: list[tuple[str, str | None, bytes, str]] = []
    size = 0
    for batch in batches:
        for number in batch["id"].to_pylist():
            name, path = files[number]
            folder = name.rpartition("/")[0].rpartition("/")[2] or None
            with open_raw(path) as file:
                content = file.read()
            held.append((name, folder, content, file_uri(path)))
            size += len(content)
            if size >= _BATCH_BYTES:
                yield _batch(held)
                held, size = [], 0
    if held:
        yield _batch(held)


def _batch(rows: list[tuple[str, str | None, bytes, str]]) -> pa.RecordBatch:
    names, folders, contents, uris = zip(*rows, strict=True)
    return pa.RecordBatch.from_pydict(
        {
            "path": pa.array(names, pa.string()),
            "class": pa.array(folders, pa.string()),
            "image": pa.array(contents, pa.binary()),
            "_lakefit_file": pa.array(uris, pa.string()),
        }
    )
