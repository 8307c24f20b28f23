"""What tests of the feed share: the manifest of a training split that a test has written, copies of blocks."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from numpy.typing import NDArray

from lakefit.dataset.features import Features, LabelFeature
from lakefit.dataset.ledger import Ledger
from lakefit.dataset.manifest import FORMAT_VERSION, DataFile, Manifest, SplitFiles
from lakefit.feed.reader import Block, RowGroup


def manifest_of(files: Sequence[DataFile], features: Features, layout: Literal["wide", "packed"] = "wide") -> Manifest:
    """Return a manifest of these files as the split `train`, with a binary label and nothing else."""
    rows = sum(file.rows for file in files)
    return Manifest(
        format_version=FORMAT_VERSION, fingerprint="0", name="n", created="", versions={}, inputs=(), excluded=(),
        reader="Arrow", pipeline={}, layout=layout, features=features, labels=(LabelFeature(),), statistics={},
        splits={"train": SplitFiles(rows=rows, classes={"label": {"1": rows // 2}}, files=tuple(files))},
        duplicates=(), rejects=(), corrections=(), strata=(), expectations=(),
        ledger=Ledger(rows_in=rows, kept={"train": rows}, rejected={}, duplicates=0, not_finite=0, unparsable={},
                      files={}),
    )  # fmt: skip


@dataclass(frozen=True)
class CopiedBlock:
    """A block whose place in the arena was given back."""

    group: RowGroup
    rows: dict[str, NDArray[Any]]


def copied(blocks: Iterator[Block]) -> Iterator[CopiedBlock]:
    """Yield copies of blocks, and release them."""
    for block in blocks:
        copy = CopiedBlock(block.group, {name: values.copy() for name, values in block.rows.items()})
        block.release()
        yield copy
