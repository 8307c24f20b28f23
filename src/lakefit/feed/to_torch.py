"""A split's batches as PyTorch tensors."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import IterableDataset, get_worker_info

from lakefit.errors import InputError
from lakefit.feed.split import SplitFeed

Tensors = dict[str, torch.Tensor]
"""The arrays of a batch, as SplitFeed has them, on its memory; lists of any length as nested tensors (jagged)."""


class TorchBatches(IterableDataset[Tensors]):
    """Whole batches: to be given to a DataLoader with `batch_size=None`, or iterated over."""

    def __init__(self, feed: SplitFeed) -> None:
        super().__init__()
        text = [field.name for field in feed.fields if field.dtype in ("str", "bytes")]
        if text:
            raise InputError(f"PyTorch has no tensors of text or bytes: name other columns than {', '.join(text)}.")
        self._feed = feed
        self._lists = [field.name for field in feed.fields if field.variable is not None]
        self._next_epoch = feed.epoch

    def __len__(self) -> int:
        """The number of batches of an epoch."""
        return self._feed.batches

    def __iter__(self) -> Iterator[Tensors]:
        """Read the next epoch. Raises RuntimeError in a worker process of a DataLoader, FeedError as the feed does."""
        if get_worker_info() is not None:
            raise RuntimeError(
                "The feed reads with threads of its own, and each worker process of a DataLoader would read every row: "
                "use DataLoader(..., num_workers=0)."
            )
        self._feed.epoch = self._next_epoch
        self._next_epoch += 1
        for batch in self._feed.rows_by_batch():
            yield {
                name: _nested(values) if name in self._lists else torch.from_numpy(values)
                for name, values in batch.items()
            }


def _nested(lists: Any) -> torch.Tensor:
    from lakefit.feed.variable import parts

    values, offsets = (torch.from_numpy(array.copy()) for array in parts(lists))
    return torch.nested.nested_tensor_from_jagged(values, offsets)
