"""Pictures of photographs beside their true and predicted classes, or objects."""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from functools import cache
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from mixbench.data.label_maps import IGNORED
from mixbench.report.fonts import families
from mixbench.transfer.tasks import GAP

DRAWN = 4  # validation images of a picture
HEIGHT = 160  # pixels of a row
SHARE = 0.6  # of a class's colour over the photograph
OBJECTS_HEIGHT = 240  # pixels, of a picture with names on it
OBJECT_SHARE = 0.45  # of a class's colour over an object
SHOWN = 0.5  # the score from which a predicted object is drawn
LETTERS, EDGE, LINE = 13, 3, 2  # pixels: of a name its height and margin, and a box's line
WEIGHTS = (0.299, 0.587, 0.114)  # of red, green and blue in brightness, ITU-R BT.601


def palette(num_classes: int) -> np.ndarray:
    """A colour for each class, (256 or more, 3) uint8, hues as far apart as they can be.

    IGNORED is black where it is no class. Neighbouring numbers have distant hues, and every third
    is lighter or darker.
    """
    hues = (np.arange(num_classes) * 0.618034) % 1
    values = np.array([255, 190, 130])[np.arange(num_classes) % 3]
    hsv = np.stack([hues * 255, np.full(num_classes, 190), values], -1).astype(np.uint8)
    colours = np.zeros((max(num_classes, IGNORED + 1), 3), np.uint8)
    colours[:num_classes] = np.asarray(Image.fromarray(hsv[None], "HSV").convert("RGB"))[0]
    return colours


def painted(image: Image.Image, labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A photograph under the colours of its classes (H, W); where none is given it stays."""
    pixels = np.asarray(image, np.float32)
    mixed = (1 - SHARE) * pixels + SHARE * colours[labels]
    shown = np.where((labels == IGNORED)[..., None], pixels, mixed)
    return Image.fromarray(shown.round().astype(np.uint8))


class Place(NamedTuple):
    """Where a name stands, in pixels; right and bottom are outside."""

    left: int
    top: int
    right: int
    bottom: int

    def meets(self, other: Place) -> bool:
        """Whether the two have a pixel in common."""
        return max(self.left, other.left) < min(self.right, other.right) and max(
            self.top, other.top
        ) < min(self.bottom, other.bottom)


def outlined(
    image: Image.Image,
    boxes: np.ndarray,
    labels: np.ndarray,
    masks: np.ndarray,
    classes: Sequence[str],
    scores: np.ndarray | None = None,
) -> Image.Image:
    """A photograph, OBJECTS_HEIGHT high, with its n objects under the colours of their classes.

    boxes: (n, 4) of left, top, right and bottom in the photograph's pixels; labels: (n,) in 1..K;
    masks: (n, H, W) bool; scores: (n,), of which those from SHOWN on are drawn. A small object is
    drawn over a large one; the name of a class that would cover another is left out.
    """
    picture = _at_height(image, OBJECTS_HEIGHT)
    ratio = np.array([picture.width / image.width, picture.height / image.height] * 2)
    drawn = np.arange(len(boxes)) if scores is None else np.flatnonzero(scores >= SHOWN)
    sides = boxes[:, 2:] - boxes[:, :2]
    drawn = drawn[np.argsort(-sides[drawn].prod(1), kind="stable")]  # the largest first
    colours = palette(len(classes))[labels - 1]  # (n, 3)
    for number in drawn:
        veil = Image.fromarray(np.where(masks[number], 255, 0).astype(np.uint8))
        veil = veil.resize(picture.size).point([round(OBJECT_SHARE * each) for each in range(256)])
        picture.paste(tuple(colours[number].tolist()), mask=veil)
    pen, taken = ImageDraw.Draw(picture), list[Place]()
    places = {
        number: Place(*(boxes[number] * ratio).round().astype(int).tolist()) for number in drawn
    }
    for number, (left, top, right, bottom) in places.items():
        colour = tuple(colours[number].tolist())
        pen.rectangle((left, top, max(right - 1, left), max(bottom - 1, top)), None, colour, LINE)
    for number in drawn if scores is None else sorted(drawn, key=lambda each: -scores[each]):
        name = classes[labels[number] - 1]
        text = name if scores is None else f"{name} {scores[number]:.2f}"
        for place in _places(places[number], text, picture.size):
            if not any(place.meets(other) for other in taken):
                taken.append(place)
                _write(pen, place, text, colours[number])
                break
    return picture


def _places(box: Place, text: str, size: tuple[int, int]) -> Iterator[Place]:
    """Where the name of a box may stand, within the picture: over it, in it, under it."""
    width = min(round(_font(text).getlength(text)) + 2 * EDGE, size[0])
    height = LETTERS + 2 * EDGE
    left = max(min(box.left, size[0] - width), 0)
    for top in (box.top - height, box.top, box.bottom - height, box.bottom):
        if 0 <= top <= size[1] - height:
            yield Place(left, top, left + width, top + height)


def _write(pen: ImageDraw.ImageDraw, place: Place, text: str, colour: np.ndarray) -> None:
    """A name on its class's colour, black on what is light and white on what is dark."""
    letters = "black" if float(colour @ WEIGHTS) > 127 else "white"
    pen.rectangle(
        (place.left, place.top, place.right - 1, place.bottom - 1), tuple(colour.tolist())
    )
    middle = (place.top + place.bottom) / 2
    pen.text((place.left + EDGE, middle), text, letters, _font(text), anchor="lm")


@cache
def _font(text: str) -> ImageFont.FreeTypeFont:
    """A font that has the letters of a text."""
    from matplotlib.font_manager import findfont

    return ImageFont.truetype(findfont(families(text)[-1]), LETTERS)


def side_by_side(rows: Sequence[Sequence[Image.Image]], height: int = HEIGHT) -> bytes:
    """Pictures in rows of this height and columns of equal width, GAP apart, as a PNG file."""
    rows = [[_at_height(each, height) for each in row] for row in rows]
    width = max(each.width for row in rows for each in row) + GAP
    size = len(rows[0]) * width - GAP, len(rows) * (height + GAP) - GAP
    sheet = Image.new("RGB", size, "white")
    for number, row in enumerate(rows):
        for column, each in enumerate(row):
            sheet.paste(each, (column * width, number * (height + GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _at_height(image: Image.Image, height: int) -> Image.Image:
    """A copy of an image that is so high; one of that height keeps its pixels."""
    return image.resize((max(round(image.width * height / image.height), 1), height))
