"""`clean: image`: encoded images are looked at, turned upright, and brought to one size, mode and format."""

from typing import Annotated, Literal

from pydantic import Field, model_validator

from lakefit.config.sections import Section
from lakefit.config.sql import Kind

Side = Annotated[int, Field(ge=1, le=16_384)]
Channels = Literal[1, 3, 4]
COLUMNS = {"path": "STRING", "class": "STRING", "image": "BINARY"}
"""Of a table of `format: images`: the file's path below the table's, the name of the folder it lies in (NULL without
one), and its bytes."""
Interpolation = Literal["nearest", "bilinear", "bicubic", "lanczos"]

MOST_PIXELS = 178_956_970
"""Pillow opens no larger ones."""

FAULTS = (
    "there is no image",
    "it is no image in a known format",
    "it is truncated or damaged",
    "it has more pixels than max_pixels",
    "its mode is not known",
)
"""Why an image is rejected, in the order in which it is asked."""
EMPTY, UNREADABLE, DAMAGED, TOO_LARGE, WRONG_MODE = range(len(FAULTS))


class Image(Section):
    """Bytes of JPEG, PNG, GIF (its first frame), WebP, BMP or TIFF, as the model is to see them.

    The orientation that a camera has noted (EXIF) is applied. 16 bits a channel become 8. What can't be read is
    rejected after deduplication, with the reason. New columns beside the image's own: `<column>_width` and
    `<column>_height` (in pixels, upright, before `resize`), `<column>_channels`, `<column>_pixels` (text: a hash of
    size, mode and pixels, so that `deduplicate` finds copies in other files and formats) and `<column>_look` (integer:
    a perceptual hash of 64 bits, of which few differ where images look alike).

    near: images whose perceptual hashes differ in at most so many bits of 64 are near each other, and a group is what
    is near through others as well. One more column, `<column>_near`, is the least hash of the group: `split: {by:
    [image_near]}` keeps a group in one split, `deduplicate: {key: [image_near]}` leaves one image of it. How far copies
    are apart depends on the pictures: of photographs 3 finds most that were resized or saved anew, of noise fewer; the
    more bits, the more different ones meet. All images are read once more before.

    resize: [height, width]; without it images keep their size. fit: `stretch` to it, `crop` what is over at both ends
    of the longer side, or `pad` the shorter one with black. interpolation: of resizing. channels: 1 (grey), 3 (RGB) or
    4 (RGBA), to which images are converted; without it they stay what they are. store: `as_is` keeps the bytes of what
    need not be changed and is JPEG or PNG, and writes PNG of the rest; `png`, `jpeg`: all of them; `array`: pixels as
    NumPy's `.npy`, which take ten times the space and more (Petastorm's NdarrayCodec). quality: of jpeg.
    max_pixels: a larger image is not decoded: some are made to fill the memory.
    """

    resize: tuple[Side, Side] | None = None
    fit: Literal["stretch", "crop", "pad"] = "stretch"
    interpolation: Interpolation = "bilinear"
    channels: Channels | None = None
    store: Literal["as_is", "png", "jpeg", "array"] = "as_is"
    quality: Annotated[int, Field(ge=1, le=100)] = 95
    max_pixels: Annotated[int, Field(ge=1, le=MOST_PIXELS)] = 100_000_000
    near: Annotated[int, Field(ge=1, le=12)] | None = None

    @model_validator(mode="after")
    def _has_what_it_needs(self) -> "Image":
        if self.fit != "stretch" and self.resize is None:
            raise ValueError(f"fit: {self.fit} says how images are resized; give resize: [height, width]")
        if self.store == "jpeg" and self.channels == 4:
            raise ValueError("store: jpeg has no fourth channel: png, or channels: 3")
        return self


def made_columns(name: str, image: Image) -> dict[str, Kind]:
    """Return the columns that the step makes beside an image's own, and what they hold."""
    made: dict[str, Kind] = {
        "width": "number", "height": "number", "channels": "number", "pixels": "text", "look": "number"
    }  # fmt: skip
    if image.near is not None:
        made["near"] = "number"
    return {f"{name}_{what}": kind for what, kind in made.items()}
