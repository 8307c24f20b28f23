"""Encoded images, one by one: looked at, turned upright, resized, converted and encoded again."""

import hashlib
import io
import struct
import warnings
from dataclasses import dataclass
from functools import cache
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray
from PIL import Image as Pillow
from PIL import ImageFile, ImageOps, UnidentifiedImageError

from lakefit.config.images import DAMAGED, EMPTY, TOO_LARGE, UNREADABLE, WRONG_MODE, Image
from lakefit.prepare.near import Groups

SCHEMA = pa.struct(
    [
        ("content", pa.binary()),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("channels", pa.int32()),
        ("pixels", pa.string()),
        ("look", pa.int64()),
        ("near", pa.int64()),
        ("fault", pa.int32()),
        ("said", pa.string()),
    ]
)
"""What becomes of an image. `fault` is a place in `config.images.FAULTS`, `said` what the decoder says of it."""

_FORMATS = ("JPEG", "PNG", "GIF", "WEBP", "BMP", "TIFF")
# What TensorFlow decodes.
_READ = ("JPEG", "PNG", "GIF", "BMP")
_NPY = np.lib.format.MAGIC_PREFIX
_MODES = {1: "L", 3: "RGB", 4: "RGBA"}
_CHANNELS = {mode: channels for channels, mode in _MODES.items()}
# What other modes mean; those that are not here hold no brightness of 8 or 16 bits, or nobody knows which.
_MEANT = {"1": "L", "P": "RGB", "CMYK": "RGB", "YCbCr": "RGB", "LA": "RGBA", "PA": "RGBA", "La": "RGBA", "RGBa": "RGBA",
          "RGBX": "RGB"}  # fmt: skip
_RESAMPLING = {
    "nearest": Pillow.Resampling.NEAREST,
    "bilinear": Pillow.Resampling.BILINEAR,
    "bicubic": Pillow.Resampling.BICUBIC,
    "lanczos": Pillow.Resampling.LANCZOS,
}
_UPRIGHT = (None, 1)
_ORIENTATION = 0x0112
# A perceptual hash is of the lowest 8 x 8 frequencies of an image of 32 x 32.
_SEEN, _LOW = 32, 8


class FaultError(Exception):
    """An image that is rejected: why, as a place in `config.images.FAULTS`, and what is said of it."""

    def __init__(self, fault: int, said: str) -> None:
        super().__init__(said)
        self.fault = fault


@dataclass(frozen=True, slots=True)
class Prepared:
    """An image as it is stored, and what is known of it as it came: upright, before it was resized."""

    content: bytes
    width: int
    height: int
    channels: int
    pixels: str
    look: int


def prepare_images(images: pa.Array, step: Image, groups: Groups | None = None) -> pa.Array:
    """Return `SCHEMA` of encoded images; what is rejected keeps its bytes, for people to look at.

    groups: of what looks alike; without them each image is a group.
    """
    found: list[dict[str, Any]] = []
    for image in images:
        content = image.as_buffer() if image.is_valid else None
        try:
            if content is None:
                raise FaultError(EMPTY, "NULL")
            made = prepared(content.to_pybytes(), step)
        except FaultError as error:
            found.append({"content": image.as_py(), "fault": error.fault, "said": str(error)})
        else:
            found.append({name: getattr(made, name) for name in Prepared.__slots__})
    made = pa.array(found, SCHEMA)
    columns = dict(zip(SCHEMA.names, made.flatten(), strict=True))
    columns["near"] = columns["look"] if groups is None else groups.of(columns["look"])
    return pa.StructArray.from_arrays(list(columns.values()), fields=list(SCHEMA))


def prepared(content: bytes, step: Image) -> Prepared:
    """Return an image as the model is to see it. Raises FaultError where it is rejected."""
    if not content:
        raise FaultError(EMPTY, "0 bytes")
    image, unchanged = _decoded(content, step.max_pixels)
    width, height = image.size
    channels = _CHANNELS[image.mode]
    pixels = pixel_hash(image)
    look = perceptual_hash(image)
    mode = _MODES[step.channels or channels]
    if image.mode != mode:
        image, unchanged = image.convert(mode), False
    if step.resize is not None and (height, width) != step.resize:
        image, unchanged = _resized(image, step), False
    if not unchanged or step.store not in ("as_is", image.format and image.format.lower()):
        content = _encoded(image, step)
    return Prepared(content, width, height, channels, pixels, look)


def _decoded(content: bytes, max_pixels: int) -> tuple[Pillow.Image, bool]:
    """Return the first frame, upright, as L, RGB or RGBA of 8 bits, and whether the bytes hold just that."""
    with warnings.catch_warnings():
        # Of bombs, by a bound of Pillow's own, and of damaged metadata that nobody needs.
        warnings.simplefilter("ignore")
        try:
            image: Pillow.Image = Pillow.open(io.BytesIO(content), formats=_FORMATS)
        except Pillow.DecompressionBombError as error:
            raise FaultError(TOO_LARGE, str(error)) from None
        except Exception as error:
            # Whatever a decoder trips over: it is of the image.
            known = f"; {', '.join(_FORMATS)} are read" if isinstance(error, UnidentifiedImageError) else f": {error}"
            raise FaultError(UNREADABLE, f"{len(content):,} bytes{known}") from None
        width, height = image.size
        if width * height > max_pixels:
            raise FaultError(TOO_LARGE, f"{width} x {height}")
        try:
            orientation = image.getexif().get(_ORIENTATION)
            image.load()
        except Exception as error:
            raise FaultError(DAMAGED, str(error) or type(error).__name__) from None
    unchanged = image.format in ("JPEG", "PNG") and getattr(image, "n_frames", 1) == 1
    if orientation not in _UPRIGHT:
        image, unchanged = ImageOps.exif_transpose(image), False
    if image.mode not in _CHANNELS or "transparency" in image.info:
        image, unchanged = _of_known_mode(image), False
    elif image.format == "PNG" and _bits(content) != 8:
        unchanged = False
    return image, unchanged


def _bits(png: bytes) -> int:
    """Return how many bits a channel of a PNG has: the ninth byte of its header."""
    return png[24]


def _of_known_mode(image: Pillow.Image) -> Pillow.Image:
    if image.mode.startswith("I;16") or (image.mode == "I" and image.format == "PNG"):
        values = np.asarray(image).astype(np.uint32)
        return Pillow.fromarray(((values * 255 + 32_767) // 65_535).astype(np.uint8))
    if "transparency" in image.info:
        return image.convert("RGBA")
    if image.mode not in _MEANT:
        raise FaultError(WRONG_MODE, image.mode)
    return image.convert(_MEANT[image.mode])


def _resized(image: Pillow.Image, step: Image) -> Pillow.Image:
    assert step.resize is not None
    height, width = step.resize
    resampling = _RESAMPLING[step.interpolation]
    if step.fit == "crop":
        return ImageOps.fit(image, (width, height), resampling)
    if step.fit == "pad":
        return ImageOps.pad(image, (width, height), resampling)
    return image.resize((width, height), resampling)


def _encoded(image: Pillow.Image, step: Image) -> bytes:
    file = io.BytesIO()
    if step.store == "array":
        np.lib.format.write_array(file, np.asarray(image).reshape(image.height, image.width, -1), version=(1, 0))
    elif step.store == "jpeg":
        image = image.convert("RGB") if image.mode == "RGBA" else image
        image.save(file, "JPEG", quality=step.quality)
    else:
        image.save(file, "PNG", compress_level=1)
    return file.getvalue()


def is_array(content: pa.Buffer) -> bool:
    """Say whether an image is stored as pixels."""
    return bytes(content[: len(_NPY)]) == _NPY


def shape_of(content: pa.Buffer) -> tuple[int, int, int] | None:
    """Return height, width and channels of an image of 8 bits that stands as it is seen, by its header alone; None of
    what is no such image."""
    try:
        if is_array(content):
            return _shape_of_array(content)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = Pillow.open(pa.BufferReader(content), formats=_READ)
    except Exception:
        # Whatever a decoder trips over: it is of the image.
        return None
    channels = _CHANNELS.get(image.mode)
    return None if channels is None else (image.height, image.width, channels)


def _shape_of_array(content: pa.Buffer) -> tuple[int, int, int] | None:
    file = pa.BufferReader(content)
    np.lib.format.read_magic(file)
    shape, fortran, dtype = np.lib.format.read_array_header_1_0(file)
    whole = file.tell() + np.prod(shape) == content.size
    return shape if len(shape) == 3 and not fortran and dtype == np.uint8 and whole else None


def pixel_hash(image: Pillow.Image) -> str:
    """Return 32 hexadecimal digits of size, mode and pixels: BLAKE2b."""
    size = struct.pack("<II", *image.size)
    return hashlib.blake2b(size + image.mode.encode() + image.tobytes(), digest_size=16).hexdigest()


def perceptual_hash(image: Pillow.Image) -> int:
    """Return 64 bits as a signed integer: which of the lowest 8 x 8 frequencies of the image are above their median.

    The DCT of an image of 32 x 32 in grey (C. Zauner, Implementation and Benchmarking of Perceptual Image Hash
    Functions, 2010).
    """
    grey = image.convert("RGB").convert("L") if image.mode == "RGBA" else image.convert("L")
    seen = np.asarray(grey.resize((_SEEN, _SEEN), Pillow.Resampling.BOX), np.float64)
    transform = _dct()
    low = (transform @ seen @ transform.T)[:_LOW, :_LOW]
    # Rounded: what depends on the order of a sum is no part of a hash.
    low = np.round(low, 3)
    bits = (low > np.median(low)).ravel()
    return int(np.packbits(bits).view(">i8")[0])


@cache
def _dct() -> NDArray[np.float64]:
    """Return the matrix of the discrete cosine transform (type II), (8, 32)."""
    place, frequency = np.arange(_SEEN), np.arange(_LOW)
    return np.cos(np.pi * (2 * place[None, :] + 1) * frequency[:, None] / (2 * _SEEN))


# Half an image is none.
ImageFile.LOAD_TRUNCATED_IMAGES = False
