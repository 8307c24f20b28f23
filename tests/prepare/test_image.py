"""What `clean: image` makes of one image."""

import io
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image as Pillow

from lakefit.config.images import DAMAGED, EMPTY, MOST_PIXELS, TOO_LARGE, UNREADABLE, WRONG_MODE, Image
from lakefit.prepare.images import FaultError, prepared

NOISE = np.random.default_rng(0)


def encoded(values: Any, format_name: str = "PNG", **options: Any) -> bytes:
    file = io.BytesIO()
    image = values if isinstance(values, Pillow.Image) else Pillow.fromarray(np.asarray(values))
    image.save(file, format_name, **options)
    return file.getvalue()


def pixels(content: bytes) -> np.ndarray:
    return np.asarray(Pillow.open(io.BytesIO(content)))


def rgb(height: int = 6, width: int = 9) -> np.ndarray:
    return NOISE.integers(0, 256, (height, width, 3), np.uint8)


def test_bytes_that_need_no_change_are_kept() -> None:
    for content in (encoded(rgb()), encoded(rgb(), "JPEG"), encoded(rgb()[..., 0])):
        assert prepared(content, Image()).content == content


@pytest.mark.parametrize("format_name", ["GIF", "BMP", "TIFF", "WEBP"])
def test_other_formats_become_png_of_the_same_pixels(format_name: str) -> None:
    options = {"lossless": True} if format_name == "WEBP" else {}
    grey = np.repeat(rgb()[..., :1], 3, axis=2) if format_name == "GIF" else rgb()
    made = prepared(encoded(grey, format_name, **options), Image(channels=3))
    assert made.content.startswith(b"\x89PNG")
    assert (pixels(made.content) == grey).all()


def test_of_a_gif_the_first_frame_is_taken() -> None:
    frames = [Pillow.new("L", (4, 4), value) for value in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:])
    assert (pixels(prepared(content, Image(channels=1)).content) == 10).all()


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("format_name", ["PNG", "WEBP"])
def test_the_orientation_is_applied(orientation: int, format_name: str) -> None:
    """As EXIF 2.3 defines it: where the stored rows and columns begin."""
    upright = rgb()
    turned: dict[int, Callable[[np.ndarray], np.ndarray]] = {
        1: lambda a: a, 2: lambda a: a[:, ::-1], 3: lambda a: a[::-1, ::-1], 4: lambda a: a[::-1],
        5: lambda a: a.swapaxes(0, 1), 6: lambda a: a[:, ::-1].swapaxes(0, 1)[:, ::1],
        7: lambda a: a[::-1, ::-1].swapaxes(0, 1), 8: lambda a: a[::-1].swapaxes(0, 1),
    }  # fmt: skip
    # What a camera stores that is held so: the inverse of what puts it upright.
    stored = {5: turned[5], 6: lambda a: np.rot90(a, 1), 7: turned[7], 8: lambda a: np.rot90(a, -1)}
    exif = Pillow.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if format_name == "WEBP" else {}
    content = encoded(
        np.ascontiguousarray(stored.get(orientation, turned[orientation])(upright)), format_name, exif=exif, **options
    )
    made = prepared(content, Image())
    assert (made.height, made.width) == (6, 9)
    assert (pixels(made.content) == upright).all()
    assert made.pixels == prepared(encoded(upright), Image()).pixels


def test_sixteen_bits_become_eight() -> None:
    values = NOISE.integers(0, 65_536, (5, 7)).astype(np.uint16)
    made = prepared(encoded(values), Image())
    assert made.channels == 1
    assert (pixels(made.content) == np.round(values / 257)).all()
    row = (0, 65_535, 300, 1, 2, 3)
    packed = zlib.compress(b"".join(b"\0" + struct.pack(">6H", *row) for _ in range(2)))
    colours = prepared(png(2, 2, 16, 2, packed), Image())
    assert colours.channels == 3
    assert np.abs(pixels(colours.content).astype(int) - np.reshape(np.array([row, row]) // 256, (2, 2, 3))).max() <= 1


def png(width: int, height: int, bits: int, colour: int, packed: bytes) -> bytes:
    """A PNG as its specification has it, of any header."""

    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, bits, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", packed) + chunk(b"IEND", b"")


@pytest.mark.parametrize("mode", ["1", "L", "LA", "P", "RGB", "RGBA", "CMYK"])
@pytest.mark.parametrize("channels", [1, 3, 4])
def test_every_mode_becomes_the_one_that_is_asked_for(mode: str, channels: int) -> None:
    image = Pillow.fromarray(rgb()).convert(mode)
    made = prepared(encoded(image, "TIFF" if mode == "CMYK" else "PNG"), Image(channels=channels))
    shape = pixels(made.content).shape
    assert shape == ((6, 9) if channels == 1 else (6, 9, channels))


@pytest.mark.parametrize(
    ("content", "fault"),
    [
        (b"", EMPTY),
        (b"\x89PNG but not further", UNREADABLE),
        (b"GIF89a", UNREADABLE),
        (b"hello" * 100, UNREADABLE),
        (encoded(rgb(40, 40))[:-500], DAMAGED),
        (encoded(rgb(40, 40), "JPEG")[:-400], DAMAGED),
        (encoded(rgb(40, 41)), TOO_LARGE),
        (encoded(Pillow.fromarray(np.ones((4, 4), np.float32)), "TIFF"), WRONG_MODE),
    ],
)
def test_what_is_no_image_is_rejected(content: bytes, fault: int) -> None:
    with pytest.raises(FaultError) as caught:
        prepared(content, Image(max_pixels=40 * 40))
    assert caught.value.fault == fault
    assert str(caught.value)


def test_a_bomb_is_not_decoded() -> None:
    """100,000 x 100,000 grey pixels would take 10 GB."""
    with pytest.raises(FaultError) as caught:
        prepared(png(100_000, 100_000, 8, 0, zlib.compress(bytes(10**6))), Image(max_pixels=MOST_PIXELS))
    assert caught.value.fault == TOO_LARGE


@settings(deadline=None)
@given(st.binary(max_size=200), st.integers(0, 400), st.integers(0, 255))
def test_no_bytes_are_more_than_rejected(random: bytes, place: int, value: int) -> None:
    for content in (random, *(bytes([*c[:place], value, *c[place + 1 :]]) for c in (PNG, JPEG) if place < len(c))):
        try:
            made = prepared(content, Image(resize=(4, 4), channels=3))
        except FaultError:
            continue
        assert pixels(made.content).shape == (4, 4, 3)


PNG, JPEG = encoded(rgb()), encoded(rgb(), "JPEG")


def test_resizing_stretches_crops_or_pads() -> None:
    left_half = np.zeros((10, 20, 3), np.uint8)
    left_half[:, :10] = 255
    content = encoded(left_half)
    stretched = pixels(prepared(content, Image(resize=(10, 10), interpolation="nearest")).content)
    assert (stretched[:, :5] == 255).all()
    assert (stretched[:, 5:] == 0).all()
    cropped = pixels(prepared(content, Image(resize=(10, 10), fit="crop", interpolation="nearest")).content)
    assert (cropped == stretched).all()
    white = encoded(np.full((10, 20, 3), 255, np.uint8))
    padded = pixels(prepared(white, Image(resize=(20, 20), fit="pad")).content)
    assert (padded[5:15] == 255).all()
    assert (padded[:5] == 0).all()


def test_copies_have_one_hash_whatever_their_format() -> None:
    values = rgb(32, 32)
    png, bmp, again = (prepared(encoded(values, f), Image()) for f in ("PNG", "BMP", "TIFF"))
    assert png.pixels == bmp.pixels == again.pixels
    other = values.copy()
    other[3, 4, 1] ^= 1
    assert prepared(encoded(other), Image()).pixels != png.pixels
    assert prepared(encoded(values.reshape(16, 64, 3)), Image()).pixels != png.pixels


def test_images_that_look_alike_have_hashes_of_few_other_bits() -> None:
    smooth = np.asarray(Pillow.fromarray(rgb(6, 6)).resize((128, 128), Pillow.Resampling.BICUBIC))
    look = prepared(encoded(smooth), Image()).look
    for changed in (encoded(smooth, "JPEG", quality=50), encoded(Pillow.fromarray(smooth).resize((90, 90)))):
        assert (look ^ prepared(changed, Image()).look).bit_count() <= 6
    others = (np.asarray(Pillow.fromarray(rgb(6, 6)).resize((128, 128))) for _ in range(20))
    assert min((look ^ prepared(encoded(other), Image()).look).bit_count() for other in others) > 6


def test_the_same_image_gives_the_same_bytes() -> None:
    content = encoded(rgb(50, 60), "JPEG")
    step = Image(resize=(20, 20), store="png")
    assert prepared(content, step) == prepared(content, step)
