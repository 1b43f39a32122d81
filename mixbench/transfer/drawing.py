"""Pictures of photographs beside their true and predicted classes."""

from __future__ import annotations

import io
from collections.abc import Sequence

import numpy as np
from PIL import Image

from mixbench.data.label_maps import IGNORED
from mixbench.transfer.tasks import GAP

HEIGHT = 160  # pixels of a row
SHARE = 0.6  # of a class's colour over the photograph


def palette(num_classes: int) -> np.ndarray:
    """A colour for each class, (256, 3) uint8, hues as far apart as they can be; IGNORED is black.

    Neighbouring numbers have distant hues, and every third is lighter or darker.
    """
    hues = (np.arange(num_classes) * 0.618034) % 1
    values = np.array([255, 190, 130])[np.arange(num_classes) % 3]
    hsv = np.stack([hues * 255, np.full(num_classes, 190), values], -1).astype(np.uint8)
    colours = np.zeros((256, 3), np.uint8)
    colours[:num_classes] = np.asarray(Image.fromarray(hsv[None], "HSV").convert("RGB"))[0]
    return colours


def painted(image: Image.Image, labels: np.ndarray, colours: np.ndarray) -> Image.Image:
    """A photograph under the colours of its classes (H, W); where none is given it stays."""
    pixels = np.asarray(image, np.float32)
    mixed = (1 - SHARE) * pixels + SHARE * colours[labels]
    shown = np.where((labels == IGNORED)[..., None], pixels, mixed)
    return Image.fromarray(shown.round().astype(np.uint8))


def side_by_side(rows: Sequence[Sequence[Image.Image]]) -> bytes:
    """Pictures in rows of equal height and columns of equal width, GAP apart, as a PNG file."""
    rows = [[_at_height(each) for each in row] for row in rows]
    width = max(each.width for row in rows for each in row) + GAP
    size = len(rows[0]) * width - GAP, len(rows) * (HEIGHT + GAP) - GAP
    sheet = Image.new("RGB", size, "white")
    for number, row in enumerate(rows):
        for column, each in enumerate(row):
            sheet.paste(each, (column * width, number * (HEIGHT + GAP)))
    buffer = io.BytesIO()
    sheet.save(buffer, "PNG")
    return buffer.getvalue()


def _at_height(image: Image.Image) -> Image.Image:
    return image.resize((max(round(image.width * HEIGHT / image.height), 1), HEIGHT))
