"""A folder of an object store for libraries that write into folders of this machine alone, such as TensorBoard's."""

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from lakefit.dataset.object_path import AnyPath, ObjectPath
from lakefit.dataset.publish import download, scratch


class Mirror:
    """local: the folder on this machine; of one that is here, that one itself."""

    def __init__(self, local: Path, remote: ObjectPath | None, only: str = "") -> None:
        self.local = local
        self._remote = remote
        self._only = only
        self._sizes: dict[str, int] = {}

    def pull(self) -> None:
        """Fetch the files that have another size there than when they were last looked at."""
        if self._remote is None:
            return
        folders = list(self._remote.glob(self._only)) if self._only else [self._remote]
        files = [found for folder in folders for found in folder.files()]
        for path, status in files:
            name = path.relative_to(self._remote)
            if self._sizes.get(name) != status.st_size:
                download(path, self.local / name)
                self._sizes[name] = status.st_size

    def push(self) -> None:
        """Write the files there whose size has changed since they were last written, and remove those that are gone.

        Raises OSError.
        """
        if self._remote is None:
            return
        files = {str(path.relative_to(self.local)): path for path in self.local.rglob("*") if path.is_file()}
        for name, path in files.items():
            size = path.stat().st_size
            if self._sizes.get(name) != size:
                (self._remote / name).upload(path)
                self._sizes[name] = size
        for name in self._sizes.keys() - files.keys():
            (self._remote / name).unlink(missing_ok=True)
            del self._sizes[name]


@contextmanager
def mirrored(folder: AnyPath, only: str = "") -> Iterator[Mirror]:
    """Yield a folder's mirror, with what is in it now; what is written there is not seen before `push`.

    only: a pattern of the folders below it that are wanted.
    """
    if not isinstance(folder, ObjectPath):
        yield Mirror(folder, None)
        return
    with tempfile.TemporaryDirectory(prefix="lakefit-", dir=scratch()) as local:
        mirror = Mirror(Path(local), folder, only)
        mirror.pull()
        yield mirror
