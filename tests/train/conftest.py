"""What tests of the stage `train` share."""

from pathlib import Path

import pytest

from fitting import write_dataset


@pytest.fixture(scope="module")
def dataset(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small dataset, as `prepare` would leave it."""
    return write_dataset(tmp_path_factory.mktemp("dataset"))
