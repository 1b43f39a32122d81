"""Strategies from outside mixbench, held to the rules while they run: the others go on."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from mixbench import rules, settings
from mixbench.mix import MixContext, MixedBatch, MixStrategy, ModelOutput, Needs
from mixbench.registry import is_builtin
from mixbench.rules import BrokenRule
from mixbench.runtime import Failed, explain, silent_line
from mixbench.spec import strategy_spec
from mixbench.values import error_text

LOOKS = 3  # mixed batches whose numbers are looked at where that makes a device wait

_warned: set[tuple[str, str]] = set()  # spec and method: a line each, not one for every seed


class _Memo(NamedTuple):
    """The strategy's own memo, and which images are sound; None where the numbers were seen."""

    inner: Any
    sound: Tensor | None  # (B,) bool


def outsiders(strategy: MixStrategy) -> list[MixStrategy]:
    """Of a strategy and those in its fields, the ones that are not mixbench's own."""
    return [part for part in rules.parts_of(strategy) if not is_builtin(type(part))]


def guarded(strategy: MixStrategy, say: Callable[[str], None] = silent_line) -> MixStrategy:
    """The strategy itself where it is mixbench's own, else one that is held to the rules.

    The kit holds mixbench's own to them, so that at run time they cost nothing.
    """
    return Guarded(strategy, say) if outsiders(strategy) else strategy


def needs_of(strategy: MixStrategy) -> tuple[Needs, Failed | None]:
    """What a strategy needs, and why that cannot be read: then it is to fail alone."""
    try:
        with held("needs"):
            return rules.declared_needs(strategy), None
    except Exception as error:  # a plug-in may raise anything
        return Needs(), explain(error)


class Guarded(MixStrategy):
    """A strategy that may do anything: what it breaks is a BrokenRule, and harms nobody else.

    It works on copies of images, labels and itself. What it changes of the process is put back.
    Shapes are looked at in every step; numbers too on a CPU, on another device in the first steps.
    Later ones are checked there without a wait: an image with a share outside [0, 1] or a wrong
    partner gets a loss that is not finite, which the step's row tells.
    """

    def __init__(self, strategy: MixStrategy, say: Callable[[str], None]):
        with held("needs"):
            self._needs = rules.declared_needs(strategy)
        with held("clean_weight"):
            self._clean_weight = rules.declared_clean_weight(strategy)
        with held("moves_pixels"):
            self._moves_pixels = rules.declared_moves_pixels(strategy)
        self._name = " and ".join(map(strategy_spec, outsiders(strategy)))
        with held("a copy"):
            self._strategy = copy.deepcopy(strategy)
        self._fields = rules.field_values(self._strategy)
        self._say = say
        self._looks = LOOKS

    @property
    def needs(self) -> Needs:
        return self._needs

    @property
    def clean_weight(self) -> float:
        return self._clean_weight

    @property
    def moves_pixels(self) -> bool:
        return self._moves_pixels

    def check_images(self, height: int, width: int, grid: tuple[int, int] | None) -> None:
        with held("check_images"):
            self._strategy.check_images(height, width, grid)

    def build(self, model: nn.Module, num_classes: int, image_size: int) -> nn.Module | None:
        with held("build"):
            return self._strategy.build(model, num_classes, image_size)

    def mix(self, images: Tensor, labels: Tensor, ctx: MixContext) -> MixedBatch:
        copies = images.clone(), labels.clone()
        ctx = replace(ctx, mean=ctx.mean.clone(), std=ctx.std.clone())
        if ctx.objects is not None:
            ctx = replace(ctx, objects=ctx.objects.clone())
        lent = rules.lent_to_mix(*copies, ctx)
        with self._at_work("mix", images.device):
            mixed = self._strategy.mix(*copies, ctx)
        lent.stays("mix")
        rules.shapes_of_mixed(mixed, images, labels, ctx.part is not None)
        if mixed.move is not None:
            mixed = replace(mixed, move=partial(_moved, mixed.move))
        if images.device.type == "cpu" or self._looks:
            self._looks = max(self._looks - 1, 0)
            rules.values_of_mixed(mixed, images, labels)
            return replace(mixed, memo=_Memo(mixed.memo, None))
        return _without_a_look(mixed, labels)

    def relabel(self, mixed: MixedBatch, output: ModelOutput) -> Tensor:
        memo: _Memo = mixed.memo
        mixed = replace(mixed, memo=memo.inner)
        lent = rules.lent_after_forward(mixed, output)
        with self._at_work("relabel", output.logits.device):
            lam = self._strategy.relabel(mixed, output)
        lent.stays("relabel")
        rules.shapes_of_lam(lam, mixed)
        if memo.sound is None:
            if output.logits.isfinite().all():  # else the network diverged, not the strategy
                rules.lam_in_unit_interval(lam)
            return lam
        return lam.where(memo.sound & rules.share_is_sound(lam), torch.nan)

    def extra_loss(self, mixed: MixedBatch, output: ModelOutput) -> Tensor | None:
        memo: _Memo = mixed.memo
        mixed = replace(mixed, memo=memo.inner)
        lent = rules.lent_after_forward(mixed, output)
        with self._at_work("extra_loss", output.logits.device):
            loss = self._strategy.extra_loss(mixed, output)
        lent.stays("extra_loss")
        rules.shape_of_extra_loss(loss, mixed)
        return loss

    @contextmanager
    def _at_work(self, method: str, device: torch.device) -> Iterator[None]:
        """Run the strategy: settings, generators and its own fields stay as they are."""
        with unchanged(method, device) as drawn:
            yield
        if drawn and (self._name, method) not in _warned:
            _warned.add((self._name, method))
            self._say(
                f"{self._name}: {method} draws from {' and '.join(drawn)} global generator, which "
                "depends on who else takes part and on --resume: draw from ctx.rng"
            )
        rules.fields_stay(self._strategy, self._fields, method)


def _moved(move: Callable[[Tensor], tuple[Tensor, Tensor]], maps: Tensor) -> tuple[Tensor, Tensor]:
    """A's and B's parts of a copy of maps by a strategy's `move`; BrokenRule for anything else."""
    with held("move"):
        parts = move(maps.clone())
    shapes = [getattr(part, "shape", None) for part in (() if parts is None else parts)]
    rules.require(shapes == [maps.shape] * 2, f"move must give two maps {tuple(maps.shape)}")
    return parts


def _without_a_look(mixed: MixedBatch, labels: Tensor) -> MixedBatch:
    """The batch with a partner and labels that harm nothing; its memo says which rows are sound."""
    inside = (mixed.partner >= 0) & (mixed.partner < len(labels))
    mask = mixed.mask
    # NaN in the mask is the share by area; a row of it may be all images'
    sound_mask = mask.where((mask >= 0) & (mask <= 1), torch.nan)
    sound = inside & (mixed.labels == labels) & ~sound_mask.mean((1, 2, 3)).isnan()
    return replace(
        mixed,
        labels=labels,
        partner=mixed.partner.where(inside, 0),
        mask=sound_mask,
        memo=_Memo(mixed.memo, sound),
    )


@contextmanager
def unchanged(method: str, device: torch.device) -> Iterator[list[str]]:
    """Whatever a method of a strategy does, settings and the global generators are as before.

    The list names, afterwards, the generators that were drawn from.
    """
    before, drawn = settings.generators(device), list[str]()
    try:
        with settings.settings_stay(method), held(method):
            yield drawn
    finally:
        drawn += settings.put_generators_back(before, device)


@contextmanager
def held(method: str) -> Iterator[None]:
    """Whatever would end more than the strategy is a BrokenRule; Ctrl-C still interrupts."""
    try:
        yield
    except StopIteration as error:  # it could end a loop of ours, silently
        raise BrokenRule(f"{method} must not raise StopIteration") from error
    except (Exception, KeyboardInterrupt):
        raise
    except BaseException as error:
        raise BrokenRule(f"{method} must not end the program: {error_text(error)}") from error
