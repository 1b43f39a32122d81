"""The kit that every built-in strategy and every plug-in passes: a check for each rule.

@parametrize_with_checks([create_strategy("cutmix")])
def test_rules(check):
    check()
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field, replace
from functools import cached_property, partial
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from mixbench import rules, settings
from mixbench.mix import MixedBatch, MixStrategy, ModelOutput, soft_targets
from mixbench.services.context import make_context
from mixbench.spec import read_strategy, strategy_spec
from mixbench.values import error_text

if TYPE_CHECKING:
    import pytest

CPU = torch.device("cpu")
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
NUM_CLASSES = 7
OBJECT = (slice(8, 24), slice(4, 20))  # rows and columns of the kit's objects
WIDTH, PATCH = 16, 8  # of the kit's ViT
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

    A strategy whose `moves_pixels` is true is held to `MixedBatch.move` in place of its mask.
    `moves_pixels` here leaves out every check that compares images pixel by pixel, for strategies
    that change pixels as well.
    """
    for of_strategy in _OF_A_STRATEGY:
        yield Check(_title(of_strategy), partial(of_strategy, strategy))
    shapes = list(enumerate(SHAPES.values()))
    plain = [_Trial(strategy, seed, shape, torch.float32) for seed, shape in shapes]
    half = [_Trial(strategy, seed, shape, torch.bfloat16) for seed, shape in shapes]
    for name, trial in zip(SHAPES, plain, strict=True):
        yield Check(name, partial(_run, trial))
    yield Check("bfloat16", partial(_run_where_float32_does, half, plain))
    yield Check("part_learns", partial(_part_learns, plain))
    rules = list(_RULES)
    if _attends(strategy):
        rules.append(_attention_raises_lam)
    if not moves_pixels:
        rules.append(_compose_gives_the_images)
        if not _moves_pixels(strategy):
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


def _moves_pixels(strategy: MixStrategy) -> bool:
    try:
        return rules.declared_moves_pixels(strategy)
    except Exception:  # the check of what is declared says why
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


def _model_for(strategy: MixStrategy, height: int, width: int) -> torch.nn.Module:
    """A model that gives what a strategy asks for: a ViT of two blocks where it must be one."""
    if not (strategy.needs.look or strategy.needs.tokens):
        return _TinyModel(NUM_CLASSES)
    from timm.models.vision_transformer import VisionTransformer

    class AnyPrecision(VisionTransformer):
        def forward(self, images: Tensor) -> Tensor:  # type: ignore[override]
            return super().forward(images.float())

    torch.manual_seed(0)
    return AnyPrecision(
        img_size=(height, width),
        patch_size=PATCH,
        embed_dim=WIDTH,
        depth=2,
        num_heads=2,
        num_classes=NUM_CLASSES,
    )


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
        grid = (self.shape[2] // PATCH, self.shape[3] // PATCH)
        self.tokens = torch.randn((self.shape[0], *grid, WIDTH), generator=generator)
        self.logits = torch.randn((self.shape[0], NUM_CLASSES), generator=generator)
        self.objects = torch.zeros(self.shape[0], 1, *self.shape[2:])
        self.objects[1:, :, *OBJECT] = 1  # the first image's is not known
        self.lent_images, self.lent_labels = self.images.clone(), self.labels.clone()
        self.left: dict[str, str] = {}  # rule -> how a mix or a relabel broke it

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
        with torch.random.fork_rng(devices=[]), self._at_work("mix"):
            height, width = images.shape[-2:]
            model = _model_for(self.strategy, height, width)
            torch.manual_seed(0)
            with self._at_work("build"):
                self.part = self.strategy.build(model, NUM_CLASSES, height)
            torch.manual_seed(global_seed)
            ctx = make_context(
                self.strategy,
                model,
                images,
                seed=self.seed,
                step=3,
                mean=MEAN,
                std=STD,
                objects=self.objects.clone(),
                part=self.part,
            )
            lent = rules.lent_to_mix(images, labels, ctx)
            with self._watched("mix", lent):
                mixed = self.strategy.mix(images, labels, ctx)
            rules.mixed_is_a_batch(mixed)
            if self.part is None:
                return mixed
            # a strategy's own parameters learn through the images, which the rules compare
            self.learning = mixed.images
            return replace(mixed, images=mixed.images.detach())

    @contextmanager
    def _at_work(self, method: str) -> Iterator[None]:
        """What a strategy raises inside is a _Raised."""
        try:
            yield
        except _Raised:
            raise
        except Exception as error:
            raise _Raised(f"{method} raised {error_text(error)}") from error

    @contextmanager
    def _watched(self, method: str, lent: rules.Lent) -> Iterator[None]:
        """Note in `left` what the strategy leaves behind, and put back what is everyone's."""
        process, fields = settings.settings(), rules.field_values(self.strategy)
        generators = settings.generators(CPU)
        try:
            yield
        finally:
            for name in settings.put_generators_back(generators, CPU):
                self.left.setdefault(
                    "generators", f"{method} draws from {name} global generator: use ctx.rng"
                )
            for rule, holds in (
                ("settings", partial(settings.require_as_before, process, method)),
                ("fields", partial(rules.fields_stay, self.strategy, fields, method)),
                ("lent", partial(lent.stays, method)),
            ):
                try:
                    holds()
                except rules.BrokenRule as error:
                    self.left.setdefault(rule, str(error))

    def copy(self) -> MixedBatch:
        """The mixed batch for a relabel that might change it."""
        mixed = self.mixed
        return replace(mixed, images=mixed.images.clone(), labels=mixed.labels.clone())

    def relabel(self, mixed: MixedBatch, attn: Tensor) -> Tensor:
        """A's share of the labels; the strategy sees `attn` (B, h, w) where it needs attention."""
        logits = torch.zeros(self.shape[0], NUM_CLASSES)
        output = ModelOutput(logits, attn if self.strategy.needs.attention else None)
        with self._at_work("relabel"), self._watched("relabel", rules.Lent.of()):
            return self.strategy.relabel(mixed, output)

    def extra_loss(self) -> Tensor | None:
        """The loss that the strategy adds."""
        output = ModelOutput(
            self.logits.clone().requires_grad_(),
            self.attn if self.strategy.needs.attention else None,
            self.tokens.clone().requires_grad_() if self.strategy.needs.tokens else None,
        )
        lent = rules.lent_after_forward(self.mixed, output)
        with self._at_work("extra_loss"), self._watched("extra_loss", lent):
            return self.strategy.extra_loss(self.mixed, output)


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


# The rules of a strategy.


def _spec_text_comes_back(strategy: MixStrategy) -> None:
    again = read_strategy(strategy_spec(strategy))
    rules.require(again == strategy, "create_strategy(strategy_spec(s)) must equal s")


def _equal_strategies_hash_alike(strategy: MixStrategy) -> None:
    again = read_strategy(strategy_spec(strategy))
    rules.require(hash(strategy) == hash(again), "equal strategies must have equal hashes")


def _needs_are_declared(strategy: MixStrategy) -> None:
    rules.declared_needs(strategy)


def _clean_weight_is_declared(strategy: MixStrategy) -> None:
    rules.declared_clean_weight(strategy)


def _moves_pixels_is_declared(strategy: MixStrategy) -> None:
    rules.declared_moves_pixels(strategy)


# The rules of a mixed batch.


def _callers_batch_unchanged(trial: _Trial) -> None:
    _ = trial.mixed
    same = trial.lent_images.equal(trial.images) and trial.lent_labels.equal(trial.labels)
    rules.require(same, "the caller's batch must not change")
    _leaves_no("lent", trial)


def _settings_stay(trial: _Trial) -> None:
    """Gradient mode, default dtype and whatever else is everyone's."""
    _leaves_no("settings", trial)


def _global_generators_unused(trial: _Trial) -> None:
    """Not torch's, numpy's or Python's: a resumed run would differ from an uninterrupted one."""
    _leaves_no("generators", trial)


def _fields_stay(trial: _Trial) -> None:
    _leaves_no("fields", trial)


def _leaves_no(rule: str, trial: _Trial) -> None:
    """Mix, relabel and extra_loss left nothing behind that breaks a rule."""
    _ = trial.lam
    trial.extra_loss()
    rules.require(rule not in trial.left, trial.left.get(rule, ""))


def _mixed_is_a_batch(trial: _Trial) -> None:
    rules.mixed_is_a_batch(trial.mixed)


def _images_keep_shape(trial: _Trial) -> None:
    rules.images_keep_shape(trial.mixed, trial.images)


def _images_keep_dtype(trial: _Trial) -> None:
    rules.images_keep_dtype(trial.mixed, trial.images)


def _images_are_finite(trial: _Trial) -> None:
    rules.images_are_finite(trial.mixed, trial.images)


def _mixed_has_no_gradient(trial: _Trial) -> None:
    rules.mixed_has_no_gradient(trial.mixed)


def _extra_loss_is_a_number(trial: _Trial) -> None:
    """Finite, with a gradient, and the same again."""
    loss, again = trial.extra_loss(), trial.extra_loss()
    rules.shape_of_extra_loss(loss, trial.mixed)
    if loss is None:
        return
    rules.require(loss.isfinite(), f"extra_loss must be finite, not {loss.item():g}")
    rules.require(again is not None and loss.equal(again), "extra_loss must give the same again")
    rules.require(loss.requires_grad, "extra_loss must carry a gradient: of output, or of the part")


def _part_learns(trials: list[_Trial]) -> None:
    """Of what a strategy builds something learns, through the images or the extra loss."""
    for trial in trials:
        try:
            _ = trial.mixed
        except _Raised:
            continue
        learning = [] if trial.part is None else list(trial.part.parameters())
        learning = [parameter for parameter in learning if parameter.requires_grad]
        if not learning:
            return
        loss = trial.extra_loss()
        total = trial.learning.float().sum() + (0 if loss is None else loss)
        gradients: tuple[Tensor | None, ...] = (None,)
        if total.requires_grad:
            gradients = torch.autograd.grad(total, learning, allow_unused=True)
        if any(gradient is not None for gradient in gradients):
            return
    raise AssertionError(
        "nothing of what build gives learns: let its gradient come through the mixed images, or "
        "through extra_loss"
    )


def _labels_are_those_of_a(trial: _Trial) -> None:
    rules.labels_keep_shape(trial.mixed, trial.labels)
    rules.labels_are_those_of_a(trial.mixed, trial.labels)


def _partner_names_rows(trial: _Trial) -> None:
    rules.partner_is_of_whole_numbers(trial.mixed, trial.labels)
    rules.partner_names_rows(trial.mixed)


def _mask_fits_images(trial: _Trial) -> None:
    rules.mask_fits_images(trial.mixed, trial.images)


def _mask_is_float32(trial: _Trial) -> None:
    rules.mask_is_float32(trial.mixed)


def _mask_in_unit_interval(trial: _Trial) -> None:
    rules.mask_in_unit_interval(trial.mixed)


def _same_draws(trial: _Trial) -> None:
    """What a strategy draws from torch's own generator differs in the second mix."""
    again = trial.mix(trial.images.clone(), trial.labels.clone(), trial.seed + 1)
    same = trial.mixed.images.equal(again.images) and trial.mixed.mask.equal(again.mask)
    rules.require(same, "same generator, same draws")


def _parts_of_a_constant_add_up(trial: _Trial) -> None:
    """Every place of a mix is filled once, whatever moved: so an object is counted once."""
    if trial.mixed.move is None:  # mask and 1 - mask do
        return
    ones = torch.ones(trial.shape[0], 1, *trial.shape[-2:])
    torch.testing.assert_close(
        _composed(trial, ones, ones),
        ones,
        msg="the two parts that move gives of maps of ones must add up to 1 in every place",
    )


def _compose_gives_the_images(trial: _Trial) -> None:
    """So that object masks, composed alike, are where the objects are."""
    if trial.mixed.move is None and not _moves_pixels(trial.strategy):
        return  # pixels_follow_mask says the same
    images = trial.images.float()
    tolerance = 1e-5 if trial.dtype == torch.float32 else 2e-2
    torch.testing.assert_close(
        _composed(trial, images, images),
        trial.mixed.images.float(),
        rtol=tolerance,
        atol=tolerance,
        msg="compose(images, images) must be the mixed images: where pixels move, give "
        "MixedBatch.move",
    )


def _composed(trial: _Trial, a: Tensor, b: Tensor) -> Tensor:
    """What the mix makes of maps; a `move` that raises, or has no pair of maps, breaks a rule."""
    mixed, before = trial.mixed, (a.clone(), b.clone())
    try:
        composed = mixed.compose(a, b)
    except Exception as error:
        raise AssertionError(f"move raised {error_text(error)}") from error
    rules.require(a.equal(before[0]) and b.equal(before[1]), "move must not change its maps")
    shape = getattr(composed, "shape", None)
    rules.require(shape == a.shape, f"move must give two maps {tuple(a.shape)} of maps like them")
    return composed


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
        rules.require(
            copied.all(), f"where the mask is {value} the pixel must be copied, also beside an inf"
        )


# The rules of a relabel.


def _lam_fits_labels(trial: _Trial) -> None:
    rules.lam_fits_labels(trial.lam, trial.mixed)


def _lam_in_unit_interval(trial: _Trial) -> None:
    rules.lam_in_unit_interval(trial.lam)


def _lam_has_no_gradient(trial: _Trial) -> None:
    rules.lam_has_no_gradient(trial.lam)


def _labels_sum_to_one(trial: _Trial) -> None:
    sums = soft_targets(trial.mixed, trial.lam, NUM_CLASSES, smoothing=0.1).sum(1)
    torch.testing.assert_close(sums, torch.ones_like(sums), msg="label rows must sum to 1")


def _relabel_repeats(trial: _Trial) -> None:
    again = trial.relabel(trial.copy(), trial.attn)
    rules.require(trial.lam.equal(again), "relabel must give the same lam again")


def _relabel_changes_nothing(trial: _Trial) -> None:
    mixed = trial.copy()
    trial.relabel(mixed, trial.attn)
    rules.require(mixed.labels.equal(trial.mixed.labels), "relabel must not change the labels")
    rules.require(mixed.images.equal(trial.mixed.images), "relabel must not change the images")


def _attention_raises_lam(trial: _Trial) -> None:
    """Attention on A alone gives A no smaller share than attention on B alone."""
    mask = trial.mixed.mask.expand(trial.shape[0], 1, *trial.shape[-2:])
    on_a = torch.nn.functional.interpolate(mask, trial.attn.shape[-2:])[:, 0]
    high = trial.relabel(trial.copy(), on_a + 1e-6)
    low = trial.relabel(trial.copy(), 1 - on_a + 1e-6)
    rules.require(
        (high >= low - 1e-5).all(), "more attention on A must not lower lam, A's share of the label"
    )


_OF_A_STRATEGY = (
    _spec_text_comes_back,
    _equal_strategies_hash_alike,
    _needs_are_declared,
    _clean_weight_is_declared,
    _moves_pixels_is_declared,
)
_RULES = (
    _callers_batch_unchanged,
    _mixed_is_a_batch,
    _images_keep_shape,
    _images_keep_dtype,
    _images_are_finite,
    _labels_are_those_of_a,
    _partner_names_rows,
    _mask_fits_images,
    _mask_is_float32,
    _mask_in_unit_interval,
    _mixed_has_no_gradient,
    _extra_loss_is_a_number,
    _parts_of_a_constant_add_up,
    _settings_stay,
    _global_generators_unused,
    _fields_stay,
    _same_draws,
    _lam_fits_labels,
    _lam_in_unit_interval,
    _lam_has_no_gradient,
    _labels_sum_to_one,
    _relabel_repeats,
    _relabel_changes_nothing,
)
