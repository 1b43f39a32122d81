"""The kit that every built-in strategy and every plug-in passes: a check for each rule.

@parametrize_with_checks([create_strategy("cutmix")])
def test_rules(check):
    check()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixbench.mix import MixedBatch, MixStrategy, ModelOutput, soft_targets
from mixbench.services.context import make_context
from mixbench.spec import read_strategy, strategy_spec

if TYPE_CHECKING:
    import pytest

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_CLASSES = 7
SHAPES = {
    "even_batch": (4, 3, 32, 32),
    "odd_batch": (5, 3, 32, 32),
    "single_image": (1, 3, 32, 32),
    "oblong_images": (2, 3, 32, 48),
}


@dataclass(frozen=True, eq=False)
class Check:
    """One rule of the interface for one strategy: a call raises AssertionError if it is broken."""

    name: str
    run: Callable[[], None] = field(repr=False)

    def __call__(self) -> None:
        """Hold the strategy to the rule, None; AssertionError where it is broken."""
        self.run()


def checks(strategy: MixStrategy, *, moves_pixels: bool = False) -> Iterator[Check]:
    """The checks of a strategy, one for each rule; nothing is mixed before the first is called.

    `moves_pixels` is for strategies that shift pixels before they mix: it leaves out the checks
    that compare images pixel by pixel.
    """
    for of_strategy in (_spec_text_comes_back, _equal_strategies_hash_alike):
        yield Check(_title(of_strategy), partial(of_strategy, strategy))
    shapes = list(enumerate(SHAPES.values()))
    plain = [_Trial(strategy, seed, shape, torch.float32) for seed, shape in shapes]
    half = [_Trial(strategy, seed, shape, torch.bfloat16) for seed, shape in shapes]
    for name, trial in zip(SHAPES, plain, strict=True):
        yield Check(name, partial(_run, trial))
    yield Check("bfloat16", partial(_run_where_float32_does, half, plain))
    rules = list(_RULES)
    if _attends(strategy):
        rules.append(_attention_raises_lam)
    if not moves_pixels:
        rules += [_pixels_follow_mask, _pixels_are_copied]
    for rule in rules:
        yield Check(_title(rule), partial(_hold, rule, [*plain, *half]))


def parametrize_with_checks(
    strategies: Iterable[MixStrategy], *, moves_pixels: bool = False
) -> pytest.MarkDecorator:
    """A decorator that makes a case of every check of every strategy, the argument `check`.

    A case is named `STRATEGY-CHECK`, such as `cutmix-labels_sum_to_one`. It needs pytest.
    """
    import pytest

    cases = [
        pytest.param(check, id=f"{_name(strategy)}-{check.name}")
        for strategy in strategies
        for check in checks(strategy, moves_pixels=moves_pixels)
    ]
    return pytest.mark.parametrize("check", cases)


def check_strategy(strategy: MixStrategy, *, moves_pixels: bool = False) -> None:
    """Hold a strategy to all `checks`, None; AssertionError names every rule that it breaks."""
    count = 0
    failures: dict[str, list[str]] = {}  # message -> the checks that failed with it
    for check in checks(strategy, moves_pixels=moves_pixels):
        count += 1
        try:
            check()
        except Exception as error:
            kind = "" if isinstance(error, AssertionError) else f"{type(error).__name__}: "
            failures.setdefault(f"{kind}{error}", []).append(check.name)
    if failures:
        broken = sum(len(names) for names in failures.values())
        lines = [f"{', '.join(names)}: {message}" for message, names in failures.items()]
        header = f"{_name(strategy)} fails {broken} of {count} checks:"
        raise AssertionError("\n  ".join([header, *lines]))


def _name(strategy: MixStrategy) -> str:
    try:
        return strategy_spec(strategy)
    except Exception:  # the check of the spec text says why
        return type(strategy).__name__


def _title(rule: Callable[..., None]) -> str:
    return rule.__name__.removeprefix("_")


def _attends(strategy: MixStrategy) -> bool:
    try:
        return bool(strategy.needs.attention)
    except Exception:  # the checks that mix say why
        return False


# What a check looks at.


class _Raised(AssertionError):
    """The strategy raised: nothing is there for a rule to look at."""


class _TinyModel(torch.nn.Module):
    """A linear classifier, so that services which ask for a model have one."""

    def __init__(self, classes: int) -> None:
        super().__init__()
        self.head = torch.nn.Linear(3, classes)
        for parameter in self.parameters():
            torch.nn.init.constant_(parameter, 0.5)

    def forward(self, images: Tensor) -> Tensor:
        return self.head(images.float().mean((2, 3)))


@dataclass(eq=False)
class _Trial:
    """A strategy and a batch; the batch is mixed and relabelled when a rule first asks for it."""

    strategy: MixStrategy
    seed: int
    shape: tuple[int, ...]
    dtype: torch.dtype

    def __post_init__(self) -> None:
        generator = torch.Generator().manual_seed(self.seed)
        self.images = torch.randn(self.shape, generator=generator).to(self.dtype)
        self.labels = torch.randint(NUM_CLASSES, self.shape[:1], generator=generator)
        self.attn = torch.rand((self.shape[0], 4, 4), generator=generator)
        self.lent_images, self.lent_labels = self.images.clone(), self.labels.clone()

    def __str__(self) -> str:
        batch, _, height, width = self.shape
        dtype = str(self.dtype).removeprefix("torch.")
        return f"{batch} {'image' if batch == 1 else 'images'} of {height} x {width}, {dtype}"

    @cached_property
    def mixed(self) -> MixedBatch:
        return self.mix(self.lent_images, self.lent_labels, self.seed)

    @cached_property
    def lam(self) -> Tensor:
        return self.relabel(self.copy(), self.attn)

    def mix(self, images: Tensor, labels: Tensor, global_seed: int) -> MixedBatch:
        """The mixed batch, drawn as in `mixed`; torch's own generator is seeded by global_seed."""
        with torch.random.fork_rng(devices=[]):
            model = _TinyModel(NUM_CLASSES)
            torch.manual_seed(global_seed)
            try:
                ctx = make_context(
                    self.strategy, model, images, seed=self.seed, step=3, mean=MEAN, std=STD
                )
                return self.strategy.mix(images, labels, ctx)
            except Exception as error:
                raise _Raised(f"mix raised {type(error).__name__}: {error}") from error

    def copy(self) -> MixedBatch:
        """The mixed batch for a relabel that might change it."""
        mixed = self.mixed
        return replace(mixed, images=mixed.images.clone(), labels=mixed.labels.clone())

    def relabel(self, mixed: MixedBatch, attn: Tensor) -> Tensor:
        """A's share of the labels; the strategy sees `attn` (B, h, w) where it needs attention."""
        logits = torch.zeros(self.shape[0], NUM_CLASSES)
        output = ModelOutput(logits, attn if self.strategy.needs.attention else None)
        try:
            return self.strategy.relabel(mixed, output)
        except Exception as error:
            raise _Raised(f"relabel raised {type(error).__name__}: {error}") from error


def _run(trial: _Trial) -> None:
    _ = trial.lam


def _run_where_float32_does(half: list[_Trial], plain: list[_Trial]) -> None:
    for trial, twin in zip(half, plain, strict=True):
        try:
            _run(twin)
        except _Raised:  # the check of this shape says so
            continue
        _run(trial)


def _hold(rule: Callable[[_Trial], None], trials: list[_Trial]) -> None:
    """Hold every trial to a rule; those where the strategy raises fail checks of their own."""
    raised: list[_Raised] = []
    for trial in trials:
        try:
            rule(trial)
        except _Raised as error:
            raised.append(error)
        except AssertionError as error:
            raise AssertionError(f"{error} ({trial})") from None
    if len(raised) == len(trials):
        raise raised[0]


def _require(ok: bool | Tensor, rule: str) -> None:
    if not bool(ok):
        raise AssertionError(rule)


# The rules of a strategy.


def _spec_text_comes_back(strategy: MixStrategy) -> None:
    again = read_strategy(strategy_spec(strategy))
    _require(again == strategy, "create_strategy(strategy_spec(s)) must equal s")


def _equal_strategies_hash_alike(strategy: MixStrategy) -> None:
    again = read_strategy(strategy_spec(strategy))
    _require(hash(strategy) == hash(again), "equal strategies must have equal hashes")


# The rules of a mixed batch.


def _callers_batch_unchanged(trial: _Trial) -> None:
    _ = trial.mixed
    same = trial.lent_images.equal(trial.images) and trial.lent_labels.equal(trial.labels)
    _require(same, "the caller's batch must not change")


def _images_keep_shape(trial: _Trial) -> None:
    shape = tuple(trial.mixed.images.shape)
    _require(shape == trial.shape, f"images must stay {trial.shape}, not {shape}")


def _images_keep_dtype(trial: _Trial) -> None:
    dtype = trial.mixed.images.dtype
    _require(dtype == trial.dtype, f"images must stay {trial.dtype}, not {dtype}")


def _images_are_finite(trial: _Trial) -> None:
    _require(trial.mixed.images.isfinite().all(), "images must be finite")


def _labels_are_those_of_a(trial: _Trial) -> None:
    _require(trial.mixed.labels.equal(trial.labels), "labels must stay those of A")


def _partner_names_rows(trial: _Trial) -> None:
    partner = trial.mixed.partner
    _require(
        partner.shape == trial.labels.shape, f"partner must be (B,), not {tuple(partner.shape)}"
    )
    inside = (partner >= 0).all() & (partner < trial.shape[0]).all()
    _require(inside, "partner must name rows of the batch")


def _mask_fits_images(trial: _Trial) -> None:
    batch, _, height, width = trial.shape
    shape = tuple(trial.mixed.mask.shape)
    fits = len(shape) == 4 and all(
        side in (1, full) for side, full in zip(shape, (batch, 1, height, width), strict=True)
    )
    _require(fits, f"mask must be (B or 1, 1, H or 1, W or 1), not {shape}")


def _mask_is_float32(trial: _Trial) -> None:
    dtype = trial.mixed.mask.dtype
    _require(dtype == torch.float32, f"mask must be float32, not {dtype}")


def _mask_in_unit_interval(trial: _Trial) -> None:
    mask = trial.mixed.mask
    _require((mask >= 0).all() & (mask <= 1).all(), "mask must lie in [0, 1]")


def _same_draws(trial: _Trial) -> None:
    """What a strategy draws from torch's own generator differs in the second mix."""
    again = trial.mix(trial.images.clone(), trial.labels.clone(), trial.seed + 1)
    same = trial.mixed.images.equal(again.images) and trial.mixed.mask.equal(again.mask)
    _require(same, "same generator, same draws")


def _pixels_follow_mask(trial: _Trial) -> None:
    """So that `lam`, the mean of the mask, equals A's share of the pixels."""
    mixed, images = trial.mixed, trial.images.float()
    mask = mixed.mask.float()
    expected = mask * images + (1 - mask) * images[mixed.partner]
    tolerance = 1e-6 if trial.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        mixed.images.float(),
        expected,
        rtol=tolerance,
        atol=tolerance,
        msg="images must be mask * A + (1 - mask) * B",
    )


def _pixels_are_copied(trial: _Trial) -> None:
    """An inf in one image must not reach its partner, as 0 * inf would."""
    spoiled = trial.images.clone()
    spoiled[0, :, ::2, ::2] = math.inf
    mixed = trial.mix(spoiled.clone(), trial.labels.clone(), trial.seed)
    for value, source in ((1, spoiled), (0, spoiled[mixed.partner])):
        copied = (mixed.images == source) | (mixed.mask != value)
        _require(
            copied.all(), f"where the mask is {value} the pixel must be copied, also beside an inf"
        )


# The rules of a relabel.


def _lam_fits_labels(trial: _Trial) -> None:
    shape = tuple(trial.lam.shape)
    _require(shape == trial.shape[:1], f"relabel must give (B,), not {shape}")


def _lam_in_unit_interval(trial: _Trial) -> None:
    _require((trial.lam >= 0).all() & (trial.lam <= 1).all(), "lam must lie in [0, 1]")


def _lam_has_no_gradient(trial: _Trial) -> None:
    _require(not trial.lam.requires_grad, "lam must carry no gradient")


def _labels_sum_to_one(trial: _Trial) -> None:
    sums = soft_targets(trial.mixed, trial.lam, NUM_CLASSES, smoothing=0.1).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), msg="label rows must sum to 1")


def _relabel_repeats(trial: _Trial) -> None:
    again = trial.relabel(trial.copy(), trial.attn)
    _require(trial.lam.equal(again), "relabel must give the same lam again")


def _relabel_changes_nothing(trial: _Trial) -> None:
    mixed = trial.copy()
    trial.relabel(mixed, trial.attn)
    _require(mixed.labels.equal(trial.mixed.labels), "relabel must not change the labels")
    _require(mixed.images.equal(trial.mixed.images), "relabel must not change the images")


def _attention_raises_lam(trial: _Trial) -> None:
    """Attention on A alone gives A no smaller share than attention on B alone."""
    mask = trial.mixed.mask.expand(trial.shape[0], 1, *trial.shape[-2:])
    on_a = torch.nn.functional.interpolate(mask, trial.attn.shape[-2:])[:, 0]
    high = trial.relabel(trial.copy(), on_a + 1e-6)
    low = trial.relabel(trial.copy(), 1 - on_a + 1e-6)
    _require(
        (high >= low - 1e-5).all(), "more attention on A must not lower lam, A's share of the label"
    )


_RULES = (
    _callers_batch_unchanged,
    _images_keep_shape,
    _images_keep_dtype,
    _images_are_finite,
    _labels_are_those_of_a,
    _partner_names_rows,
    _mask_fits_images,
    _mask_is_float32,
    _mask_in_unit_interval,
    _same_draws,
    _lam_fits_labels,
    _lam_in_unit_interval,
    _lam_has_no_gradient,
    _labels_sum_to_one,
    _relabel_repeats,
    _relabel_changes_nothing,
)
