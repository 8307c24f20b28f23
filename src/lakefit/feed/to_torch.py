"""A split's batches as PyTorch tensors."""

from collections.abc import Iterator

import torch
from torch.utils.data import IterableDataset, get_worker_info

from lakefit.feed.split import SplitFeed

Tensors = dict[str, torch.Tensor]
"""The arrays of a batch, as SplitFeed has them, on its memory."""


class TorchBatches(IterableDataset[Tensors]):
    """Whole batches: to be given to a DataLoader with `batch_size=None`, or iterated over."""

    def __init__(self, feed: SplitFeed) -> None:
        super().__init__()
        self._feed = feed
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
        for batch in self._feed:
            yield {name: torch.from_numpy(values) for name, values in batch.items()}
