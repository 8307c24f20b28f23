"""Handwritten digits (scikit-learn's) as image files, a folder a class, with copies and damaged files among them."""

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from lakefit.dataset.publish import write_atomically

if TYPE_CHECKING:
    from PIL import Image

_COPIES, _TRUNCATED, _EMPTY, _OTHER = 50, 9, 3, 2


@dataclass(frozen=True, slots=True)
class Written:
    """images: that are whole, copies apart. copies: the same pixels in another format. damaged: truncated, empty, or no
    images at all."""

    images: int
    copies: int
    damaged: int

    @property
    def files(self) -> int:
        return self.images + self.copies + self.damaged


def write(directory: str | Path) -> Written:
    """Write the files into `directory`/raw/0 to 9; one that is right already is not touched."""
    from PIL import Image
    from sklearn.datasets import load_digits

    raw, data = Path(directory) / "raw", load_digits()
    images = [Image.fromarray((pixels * 255 // 16).astype("uint8")) for pixels in data.images]
    for place, (image, label) in enumerate(zip(images, data.target.tolist(), strict=True)):
        content = _encoded(image, "PNG")
        _write(raw / f"{label}/digit-{place:04d}.png", content)
        if place < _COPIES:
            _write(raw / f"{label}/copy-{place:04d}.bmp", _encoded(image, "BMP"))
        if place < _TRUNCATED:
            _write(raw / f"{label}/cut-{place:04d}.png", content[: len(content) // 2])
    for place in range(_EMPTY):
        _write(raw / f"{place}/empty.png", b"")
    for place in range(_OTHER):
        _write(raw / f"{place}/notes.txt", b"Digits by 43 people, 32 x 32 bits each, reduced to 8 x 8.\n")
    return Written(len(images), _COPIES, _TRUNCATED + _EMPTY + _OTHER)


def _encoded(image: "Image.Image", format_name: str) -> bytes:
    file = io.BytesIO()
    image.save(file, format_name)
    return file.getvalue()


def _write(path: Path, content: bytes) -> None:
    if not path.is_file() or path.read_bytes() != content:
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, content)
