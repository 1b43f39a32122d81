"""The kit that every built-in strategy and every plug-in passes."""

from __future__ import annotations

import math

import torch

from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, soft_targets
from mixbench.services.context import make_context
from mixbench.spec import create_strategy, strategy_spec

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
SHAPES = (
    (4, 3, 32, 32),
    (5, 3, 32, 32),
    (1, 3, 32, 32),
    (2, 3, 32, 48),
)  # even, odd, single, non-square


class _TinyModel(torch.nn.Module):
    """A linear classifier, so that services which ask for a model have one."""

    def __init__(self, classes: int):
        super().__init__()
        self.head = torch.nn.Linear(3, classes)

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.head(images.float().mean((2, 3)))


def _context(strategy: MixStrategy, images: torch.Tensor, seed: int) -> MixContext:
    model = _TinyModel(7)
    for parameter in model.parameters():
        torch.nn.init.constant_(parameter, 0.5)
    return make_context(strategy, model, images, seed=seed, step=3, mean=MEAN, std=STD)


def _check(ok: bool | torch.Tensor, spec: str, rule: str) -> None:
    if not bool(ok):
        raise AssertionError(f"{spec}: {rule}")


def _check_fields(mixed: MixedBatch, images: torch.Tensor, labels: torch.Tensor, spec: str) -> None:
    batch, _, height, width = images.shape
    _check(
        mixed.images.shape == images.shape,
        spec,
        f"images must stay {tuple(images.shape)}, not {tuple(mixed.images.shape)}",
    )
    _check(
        mixed.images.dtype == images.dtype,
        spec,
        f"images must stay {images.dtype}, not {mixed.images.dtype}",
    )
    _check(mixed.labels.equal(labels), spec, "labels must stay those of A")
    _check(
        mixed.partner.shape == labels.shape,
        spec,
        f"partner must be (B,), not {tuple(mixed.partner.shape)}",
    )
    _check(
        (mixed.partner >= 0).all() & (mixed.partner < batch).all(),
        spec,
        "partner must name rows of the batch",
    )
    fits = mixed.mask.ndim == 4 and all(
        side in (1, full)
        for side, full in zip(mixed.mask.shape, (batch, 1, height, width), strict=True)
    )
    _check(fits, spec, f"mask must be (B or 1, 1, H or 1, W or 1), not {tuple(mixed.mask.shape)}")
    _check(mixed.mask.dtype == torch.float32, spec, f"mask must be float32, not {mixed.mask.dtype}")
    _check((mixed.mask >= 0).all() & (mixed.mask <= 1).all(), spec, "mask must lie in [0, 1]")
    _check(mixed.images.isfinite().all(), spec, "images must be finite")


def check_strategy(strategy: MixStrategy, *, moves_pixels: bool = False) -> None:
    """Hold a strategy to the interface's rules; AssertionError names the rule it breaks.

    `moves_pixels` is for strategies that shift pixels before they mix: the pixel-by-pixel check is then left out.
    """
    spec = strategy_spec(strategy)
    _check(
        create_strategy(spec) == strategy, spec, "create_strategy(strategy_spec(s)) must equal s"
    )
    _check(
        hash(strategy) == hash(create_strategy(spec)),
        spec,
        "equal strategies must have equal hashes",
    )
    for number, shape in enumerate(SHAPES):
        for dtype in (torch.float32, torch.bfloat16):
            generator = torch.Generator().manual_seed(number)
            images = torch.randn(shape, generator=generator).to(dtype)
            labels = torch.randint(7, shape[:1], generator=generator)
            before = images.clone(), labels.clone()
            global_state = torch.random.get_rng_state()
            mixed = strategy.mix(images, labels, _context(strategy, images, seed=number))
            _check(
                images.equal(before[0]) & labels.equal(before[1]),
                spec,
                "the caller's batch must not change",
            )
            # the context itself draws nothing from torch's generator, the model of the kit does
            _check_fields(mixed, images, labels, spec)
            attn = torch.rand((shape[0], 4, 4), generator=generator)
            output = ModelOutput(
                torch.zeros(shape[0], 7), attn if strategy.needs.attention else None
            )
            lam = strategy.relabel(mixed, output)
            _check(
                lam.shape == labels.shape, spec, f"relabel must give (B,), not {tuple(lam.shape)}"
            )
            _check((lam >= 0).all() & (lam <= 1).all(), spec, "lam must lie in [0, 1]")
            _check(not lam.requires_grad, spec, "lam must carry no gradient")
            targets = soft_targets(mixed, lam, 7, smoothing=0.1)
            torch.testing.assert_close(
                targets.sum(1), torch.ones(shape[0]), msg=f"{spec}: label rows must sum to 1"
            )
            _check(
                lam.equal(strategy.relabel(mixed, output)),
                spec,
                "relabel must give the same lam again",
            )
            _check(labels.equal(before[1]), spec, "relabel must not change the labels")
            if strategy.needs.attention:
                _check_attention(strategy, mixed, spec)
            torch.manual_seed(
                number + 1
            )  # what a strategy draws from torch's own generator differs now
            again = strategy.mix(images, labels, _context(strategy, images, seed=number))
            torch.random.set_rng_state(global_state)
            _check(
                mixed.images.equal(again.images) & mixed.mask.equal(again.mask),
                spec,
                "same generator, same draws",
            )
            if not moves_pixels:
                _check_pixels(mixed, images, spec)
                _check_selection(strategy, images, labels, number, spec)


def _check_attention(strategy: MixStrategy, mixed: MixedBatch, spec: str) -> None:
    """Attention that lies on A alone gives A no smaller share than attention that lies on B alone."""
    mask = mixed.mask.expand(len(mixed.labels), 1, *mixed.images.shape[-2:])
    on_a = torch.nn.functional.interpolate(mask, (4, 4))[:, 0]
    shares = [
        strategy.relabel(mixed, ModelOutput(torch.zeros(len(mask), 7), attn + 1e-6))
        for attn in (on_a, 1 - on_a)
    ]
    _check(
        (shares[0] >= shares[1] - 1e-5).all(),
        spec,
        "more attention on A must not lower lam, A's share of the label",
    )


def _check_selection(
    strategy: MixStrategy, images: torch.Tensor, labels: torch.Tensor, number: int, spec: str
) -> None:
    """Where the mask is 0 or 1 a pixel is copied, not multiplied: an inf in one image does not reach its partner."""
    spoiled = images.clone()
    spoiled[0, :, ::2, ::2] = math.inf
    mixed = strategy.mix(spoiled, labels, _context(strategy, spoiled, seed=number))
    mask = mixed.mask.expand(len(images), 1, *images.shape[-2:])
    for value, source in ((1, spoiled), (0, spoiled[mixed.partner])):
        copied = (mixed.images == source) | (mask != value)
        _check(
            copied.all(),
            spec,
            f"where the mask is {value} the pixel must be copied, also beside an inf",
        )


def _check_pixels(mixed: MixedBatch, images: torch.Tensor, spec: str) -> None:
    """Every pixel is mask * A + (1 - mask) * B, so that `lam` is A's share of what is seen."""
    expected = mixed.mask * images.float() + (1 - mixed.mask) * images[mixed.partner].float()
    tolerance = 1e-6 if images.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        mixed.images.float(),
        expected,
        rtol=tolerance,
        atol=tolerance,
        msg=f"{spec}: images must be mask * A + (1 - mask) * B",
    )
