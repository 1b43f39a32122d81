"""Images and their label maps, resized, cropped and mirrored together by torchvision's v2."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from functools import partial
from typing import Any, TypeVar

import torch
from PIL import Image
from torch import Tensor
from torch.utils.data import DataLoader, Dataset
from torchvision import tv_tensors
from torchvision.transforms.v2 import functional

from mixbench.data.label_maps import IGNORED, LabelMaps
from mixbench.data.loaders import EpochSampler, Key, MicroBatches
from mixbench.distributed import World
from mixbench.mix import hashed_seed, uniform

T = TypeVar("T")
LONGEST = 8  # times the short side, that the long one may have (Segmenter's 8 * 520)
TRIES = 10  # for a crop that is not nearly all of one class


@dataclass(frozen=True, kw_only=True)
class JointAugmentation:
    """What a training image and its labels go through, in this order.

    A resize by a factor, a crop, a flip, a change of colours, normalisation; what a crop lacks is
    0, and IGNORED in the labels. Source: mmsegmentation's pipeline, as Segmenter uses it. Differs:
    images are resized with antialiasing, and saturation changes as torchvision does it.
    """

    short_side: int
    crop_size: int
    scale: tuple[float, float]
    cat_max_ratio: float
    hflip: float
    photometric: bool
    mean: tuple[float, float, float]
    std: tuple[float, float, float]

    def __call__(
        self, image: Image.Image, labels: Image.Image, rng: torch.Generator
    ) -> tuple[Tensor, Tensor]:
        """A crop (3, S, S) float32, normalised, and its labels (S, S) int64; draws are of `rng`."""
        low, high = self.scale
        pixels, classes = tensors(image, labels)
        size = resized(
            image.height, image.width, self.short_side, low + uniform(rng) * (high - low)
        )
        pixels, classes = (functional.resize(each, size) for each in (pixels, classes))
        box = self._crop(classes, rng)
        pixels, classes = (functional.crop(each, *box) for each in (pixels, classes))
        if uniform(rng) < self.hflip:
            pixels, classes = (functional.horizontal_flip(each) for each in (pixels, classes))
        if self.photometric:
            pixels = distorted(pixels, rng)
        pixels = normalised(pixels, self.mean, self.std)
        lacking = [0, 0, self.crop_size - box[3], self.crop_size - box[2]]
        pixels = functional.pad(pixels, lacking, fill=0)
        classes = functional.pad(classes, lacking, fill=IGNORED)
        return pixels.as_subclass(Tensor), classes.as_subclass(Tensor)[0].long()

    def _crop(self, classes: Tensor, rng: torch.Generator) -> tuple[int, int, int, int]:
        """Top, left, height and width of a crop of labels (1, H, W), the last of TRIES at most."""
        height, width = classes.shape[-2:]
        down, across = min(height, self.crop_size), min(width, self.crop_size)
        box = 0, 0, down, across
        for _ in range(TRIES):
            top = int(uniform(rng) * (height - down + 1))
            left = int(uniform(rng) * (width - across + 1))
            box = top, left, down, across
            if not one_sided(functional.crop(classes, *box), self.cat_max_ratio):
                break
        return box


def tensors(image: Image.Image, labels: Image.Image) -> tuple[Any, Any]:
    """An image (3, H, W) uint8 and its labels (1, H, W) uint8, as torchvision tells them apart."""
    return tv_tensors.Image(functional.pil_to_tensor(image)), tv_tensors.Mask(
        functional.pil_to_tensor(labels)
    )


def resized(
    height: int,
    width: int,
    short_side: int,
    factor: float = 1.0,
    long_side: int | None = None,
) -> list[int]:
    """Height and width of an image whose short side becomes factor * short_side.

    The proportions stay, and the long side is at most factor * long_side; LONGEST short ones
    without a number.
    """
    short, long = sorted((height, width))
    most = LONGEST * short_side if long_side is None else long_side
    ratio = factor * min(short_side / short, most / long)
    return [max(round(height * ratio), 1), max(round(width * ratio), 1)]


def one_sided(labels: Tensor, most: float) -> bool:
    """Whether one class has a share of `most` or more of the labelled pixels, or none is labelled.

    A single class has all of them.
    """
    counts = torch.bincount(labels.flatten(), minlength=IGNORED + 1)[:IGNORED]
    return bool(counts.max() >= most * counts.sum())


def distorted(image: Any, rng: torch.Generator) -> Any:
    """An image (3, H, W) uint8 in other colours, float32 in 0..1.

    Brightness moves by up to 32 levels; contrast, before or after the others, and saturation change
    by a factor of 0.5 to 1.5, the hue by up to a tenth of the circle; each in half of the cases.
    """

    def between(low: float, high: float) -> float | None:
        value, drawn = low + uniform(rng) * (high - low), uniform(rng) < 0.5
        return value if drawn else None

    image = functional.to_dtype(image, torch.float32, scale=True)
    brightness, contrast = between(-32 / 255, 32 / 255), between(0.5, 1.5)
    saturation, hue, first = between(0.5, 1.5), between(-0.1, 0.1), uniform(rng) < 0.5
    if brightness is not None:
        image = tv_tensors.Image((image + brightness).clamp(0, 1))
    if contrast is not None and first:
        image = functional.adjust_brightness(image, contrast)  # mmseg's contrast is a factor
    if saturation is not None:
        image = functional.adjust_saturation(image, saturation)
    if hue is not None:
        image = functional.adjust_hue(image, hue)
    if contrast is not None and not first:
        image = functional.adjust_brightness(image, contrast)
    return image


def normalised(image: Any, mean: Iterable[float], std: Iterable[float]) -> Any:
    """An image (3, H, W) uint8, or float32 in 0..1, less the mean and by the deviation."""
    image = functional.to_dtype(image, torch.float32, scale=True)
    return functional.normalize(image, list(mean), list(std))


class DrawnSamples(Dataset[T]):
    """Training samples by key, each of an image's number and a generator.

    The generator is seeded from (stream, seed, epoch, image), whichever process draws.
    """

    def __init__(self, sample: Callable[[int, torch.Generator], T], stream: str, seed: int):
        self.sample, self.stream, self.seed = sample, stream, seed

    def __getitem__(self, key: Key) -> T:
        epoch, index, _ = key
        rng = torch.Generator().manual_seed(hashed_seed(self.stream, self.seed, epoch, index))
        return self.sample(index, rng)


def sample_loader(
    samples: DrawnSamples[T],
    count: int,
    batch_size: int,
    workers: int,
    device: torch.device,
    collate: Callable[[list[T]], Any] | None = None,
) -> DataLoader[Any]:
    """Batches of the samples of `count` images, of the epoch that `set_epoch` says.

    What does not fill a batch is left out. ValueError where the images do not fill one.
    """
    if batch_size > count:
        raise ValueError(
            f"batch_size {batch_size} is larger than the {count} training images: "
            "lower --batch-size"
        )
    return DataLoader(
        samples,
        batch_sampler=MicroBatches(EpochSampler(count, samples.seed), batch_size, World()),
        num_workers=workers,
        persistent_workers=workers > 0,
        pin_memory=device.type == "cuda",
        collate_fn=collate,
    )


def crop_loader(
    maps: LabelMaps,
    augmentation: JointAugmentation,
    batch_size: int,
    seed: int,
    workers: int,
    device: torch.device,
) -> DataLoader[tuple[Any, ...]]:
    """Batches of crops (B, 3, S, S) and labels (B, S, S), as `sample_loader` gives them."""
    crops = DrawnSamples(partial(_crop_of, maps, augmentation), "crop", seed)
    return sample_loader(crops, len(maps.labels), batch_size, workers, device)


def _crop_of(
    maps: LabelMaps, augmentation: JointAugmentation, index: int, rng: torch.Generator
) -> tuple[Tensor, Tensor]:
    return augmentation(maps.load(index), maps.mask(index), rng)
