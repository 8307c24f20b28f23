"""Row groups hold so many rows, or so many bytes of images, wherever the pieces that come in are cut."""

import tempfile
from collections.abc import Sequence

import pyarrow as pa
from hypothesis import given, settings
from hypothesis import strategies as st

from lakefit.dataset.features import Features
from lakefit.prepare import write

ROWS, BYTES = 7, 100


def written(sizes: Sequence[int], cuts: Sequence[int]) -> tuple[list[int], str]:
    """Write rows of so many bytes each, that come in pieces; return the rows of each group, and the file's checksum."""
    rows = pa.table({"_key_hi": pa.array(range(len(sizes))), "image": pa.array([bytes(size) for size in sizes])})
    with tempfile.TemporaryDirectory() as folder:
        plan = write.WritePlan(folder, {}, 2, 0, ROWS, False, Features(), (), ())
        output = write._Output(plan, "rejects", 0)
        before, write.GROUP_BYTES = write.GROUP_BYTES, BYTES
        try:
            for start, stop in zip((0, *cuts), (*cuts, len(sizes)), strict=True):
                output.add(rows.slice(start, stop - start))
            entry = output.close()
        finally:
            write.GROUP_BYTES = before
    assert entry is not None
    return entry["row_groups"], entry["sha256"]


@settings(deadline=None)
@given(st.lists(st.integers(0, 150), min_size=1, max_size=60), st.data())
def test_the_cuts_depend_on_the_rows_alone(sizes: list[int], data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(sizes)), max_size=6)))
    groups, checksum = written(sizes, ())
    assert written(sizes, cuts) == (groups, checksum)
    assert sum(groups) == len(sizes)
    start = 0
    for place, rows in enumerate(groups):
        of_group = sizes[start : start + rows]
        # The row that comes to so many bytes is the last one of its group.
        assert rows <= ROWS
        assert sum(of_group[:-1]) < BYTES
        if place < len(groups) - 1:
            assert rows == ROWS or sum(of_group) >= BYTES
        start += rows
