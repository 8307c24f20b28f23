"""What feeding a split will take: steps, remainder, memory, row groups, bytes, and what is amiss; no file is read."""

from dataclasses import dataclass
from typing import Literal

import numpy as np

from lakefit.feed.dataset import Dataset
from lakefit.feed.gather import batches_at_once, most_held
from lakefit.feed.reader import BLOCKS_AHEAD, DECODERS

# Gatherings on their way through TensorFlow.
_GATHERED = 5


@dataclass(frozen=True, slots=True)
class FeedPlan:
    """One epoch of a split.

    steps: batches. remainder: rows of the last one, or of none where they are dropped; 0 where all are full. share:
    rows of a batch for each worker. row_groups: of the split. read: row groups that each worker reads. memory: bytes of
    one worker for rows. row_bytes: of a row in memory. file_bytes: that each worker reads. warnings: what will work and
    is probably not meant.
    """

    rows: int
    steps: int
    remainder: int
    share: tuple[int, ...]
    row_groups: int
    read: tuple[int, ...]
    memory: int
    row_bytes: int
    file_bytes: tuple[int, ...]
    warnings: tuple[str, ...]


def feed_plan(
    dataset: Dataset, split: str, *, batch_size: int, lanes: int, remainder: Literal["keep", "drop"], workers: int
) -> FeedPlan:
    """Return the plan of one epoch, the same for all. Raises ValueError if the batch can't be shared."""
    feeds = [
        dataset.to_numpy(split, batch_size=batch_size, lanes=lanes, remainder=remainder, worker=worker, workers=workers)
        for worker in range(max(workers, 1))
    ]
    feed = feeds[0]
    bytes_a_row = {file.path: file.bytes / max(file.rows, 1) for file in dataset.manifest.splits[split].files}
    rows, row_bytes = feed.rows, sum(field.row_bytes for field in feed.fields)
    largest = max(group.rows for group in feed.groups)
    shares = tuple(feed.rows_of_a_batch for feed in feeds)
    read, file_bytes, memory = [], [], 0
    for order in (feed.order(0) for feed in feeds):
        at_once = batches_at_once(order, feed.fields)
        visits = order.visit_table(near=at_once)
        read.append(len(visits))
        of_groups = (bytes_a_row[group.file] * group.rows for group in order.groups)
        group_bytes = np.fromiter(of_groups, float, len(order.groups))
        file_bytes.append(round(float(group_bytes[visits[:, 0]].sum())))
        places = most_held(visits, at_once) + DECODERS + BLOCKS_AHEAD
        gathered = min(at_once * max(shares), rows)
        # A row's place in the order takes 8 bytes more, once for its order and once while it is sorted.
        memory = max(memory, places * largest * (row_bytes + 16) + _GATHERED * gathered * row_bytes)
    return FeedPlan(
        rows=rows,
        steps=feed.batches,
        remainder=rows % batch_size,
        share=shares,
        row_groups=len(feed.groups),
        read=tuple(read),
        memory=memory,
        row_bytes=row_bytes,
        file_bytes=tuple(file_bytes),
        warnings=tuple(_warnings(rows, len(feed.groups), batch_size, lanes, remainder, workers)),
    )


def _warnings(rows: int, groups: int, batch_size: int, lanes: int, remainder: str, workers: int) -> list[str]:
    found = []
    if remainder == "drop" and rows < batch_size:
        found.append(f"No batch is left: the split has {rows:,} rows, and a batch {batch_size:,}; keep the remainder.")
    if remainder == "keep" and 0 < rows % batch_size < workers:
        found.append(f"The last batch has {rows % batch_size} rows for {workers} workers: some get none of it.")
    if workers > 1 and (lanes % workers or batch_size % lanes):
        found.append(
            f"Every worker reads more row groups than its own: {workers} workers would have to divide {lanes} lanes, "
            f"and these the batch size of {batch_size:,}."
        )
    if groups < lanes:
        found.append(
            f"Row groups of the split: {groups}, for {lanes} lanes: a batch mixes no more of them. Lower "
            "output.rows_per_group for more."
        )
    elif workers > 1 and groups < 2 * workers * (lanes // workers or 1):
        found.append(f"{groups} row groups are few for {workers} workers: each reads parts of those of others.")
    return found
