"""Saliency by the spectral residual (Hou and Zhang, 2007), on any device."""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn.functional import avg_pool2d, interpolate, pad

BLUR = 7  # pixels


def grey(pixels: Tensor) -> Tensor:
    """The brightness of RGB pixels of 0 to 255 (B, 3, H, W), (B, H, W) float32 in [0, 1]."""
    red, green, blue = (pixels.float() / 255).unbind(1)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def spectral_residual(images: Tensor, *, epsilon: float, border: str) -> Tensor:
    """How little each pixel of images (B, H, W) follows their mean spectrum, (B, H, W) >= 0.

    epsilon is added to the squared amplitudes, whose logarithm is compared with its mean of 3 x 3;
    border is how that one goes on beyond its edge, 'replicate' or 'reflect'.
    """
    spectrum = torch.fft.fft2(images)
    amplitude = (spectrum.real**2 + spectrum.imag**2 + epsilon).sqrt()
    logarithm = amplitude.log()
    mean = avg_pool2d(pad(logarithm[:, None], (1, 1, 1, 1), mode=border), 3, stride=1)[:, 0]
    return torch.fft.ifft2(spectrum / amplitude * (logarithm - mean).exp()).abs()


def gaussian_blur(maps: Tensor, blur: int, sigma: float) -> Tensor:
    """maps (B, H, W) under a Gaussian of blur x blur pixels, mirrored at the edge, (B, H, W)."""
    reach = blur // 2
    weights = [math.exp(-(at**2) / (2 * sigma**2)) for at in range(-reach, reach + 1)]
    weights = [weight / sum(weights) for weight in weights]
    blurred = pad(maps[:, None], (reach,) * 4, mode="reflect")[:, 0]
    for dim in (1, 2):
        # sums of slices, not a convolution, which a GPU may take in TensorFloat-32
        padded, side = blurred, maps.shape[dim]
        blurred = padded.narrow(dim, 0, side) * weights[0]
        for at in range(1, blur):
            blurred = blurred.add(padded.narrow(dim, at, side), alpha=weights[at])
    return blurred


def resized(maps: Tensor, height: int, width: int) -> Tensor:
    """maps (B, H, W) in another size, bilinear with antialias, (B, height, width)."""
    if maps.shape[-2:] == (height, width):
        return maps
    size = (height, width)
    return interpolate(maps[:, None], size, mode="bilinear", antialias=True)[:, 0]


def check_size(height: int, width: int, blur: int = BLUR) -> None:
    """ValueError for images whose sides, in pixels, are not longer than half the blur."""
    least = blur // 2 + 1
    if min(height, width) < least:
        raise ValueError(
            f"spectral saliency needs images of at least {least} x {least} px, "
            f"not {height} x {width}"
        )


def spectral_saliency(
    pixels: Tensor, *, size: int = 128, blur: int = BLUR, sigma: float = 3.0
) -> Tensor:
    """Each pixel's share of its image's saliency, (B, H, W) float32 that sums to 1 over an image.

    pixels (B, 3, H, W) are of 0 to 255; sides above `size` are made as small for the spectrum. An
    image without any saliency has the same share everywhere. ValueError for images smaller than
    half the blur. Source: GuidedMixup's description.
    """
    height, width = pixels.shape[-2:]
    check_size(height, width, blur)
    small = resized(grey(pixels), min(height, size), min(width, size))
    saliency = spectral_residual(small, epsilon=1e-10, border="replicate")
    saliency = resized(gaussian_blur(saliency, blur, sigma), height, width)
    saliency = gaussian_blur(saliency, blur, sigma)
    total = saliency.sum((1, 2), keepdim=True)
    return torch.where(total > 0, saliency / total, 1 / (height * width))
