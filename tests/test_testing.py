"""The kit names each rule that a strategy breaks, and only those."""

import subprocess
import sys
import textwrap
from dataclasses import dataclass, replace
from pathlib import Path

import pytest
import torch

from mixbench import MixedBatch, Needs, create_strategy, register_strategy, registry
from mixbench.mix import mirrored
from mixbench.strategies.mixup import Mixup
from mixbench.strategies.none import NoMix
from mixbench.strategies.transmix import TransMix
from mixbench.testing import check_strategy, checks, parametrize_with_checks

MIXING = ["even_batch", "odd_batch", "single_image", "oblong_images"]


@pytest.fixture
def run_pytest(tmp_path):
    """Run pytest on a file with this text: what it prints."""

    def run(text: str) -> str:
        path = tmp_path / "test_rules.py"
        path.write_text(textwrap.dedent(text))
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", str(path)]
        root = str(Path(__file__).parents[1])
        return subprocess.run(
            [*command, "--rootdir", str(tmp_path)],
            capture_output=True,
            text=True,
            cwd=tmp_path,
            env={"PYTHONPATH": root, "PATH": ""},
        ).stdout

    return run


class Altered(Mixup):
    """Mixup whose result is altered; a rule is broken by overriding one method."""

    def alter(self, mixed, images, labels):
        return mixed

    def mix(self, images, labels, ctx):
        return self.alter(super().mix(images, labels, ctx), images, labels)


def registered(kind):
    """An instance of the class, registered as `broken` for the test."""
    return register_strategy("broken")(dataclass(frozen=True)(kind))()


def failing(strategy, **options):
    """The names of the checks that fail."""
    names = set()
    for check in checks(strategy, **options):
        try:
            check()
        except Exception:
            names.add(check.name)
    return names


def altering(moves=False, **fields):
    """A strategy class whose mixed batch has other fields, each made from (mixed, images)."""

    class Broken(Altered):
        moves_pixels = moves

        def alter(self, mixed, images, labels):
            return replace(mixed, **{k: make(mixed, images) for k, make in fields.items()})

    return Broken


def relabelling(function):
    """A strategy class with another relabel."""

    class Broken(Mixup):
        def relabel(self, mixed, output):
            return function(mixed)

    return Broken


def refusing(condition):
    """A strategy class that raises for the images where the condition holds."""

    class Broken(Mixup):
        def mix(self, images, labels, ctx):
            if condition(images):
                raise RuntimeError("no such batch")
            return super().mix(images, labels, ctx)

    return Broken


class EqualToNothing(Mixup):
    def __eq__(self, other):
        return False

    def __hash__(self):
        return 1


class HashOfItself(Mixup):
    def __eq__(self, other):
        return type(other) is type(self)

    def __hash__(self):
        return id(self)


class ZeroesTheCallers(Mixup):
    def mix(self, images, labels, ctx):
        mixed = super().mix(images.clone(), labels, ctx)
        images.zero_()
        return mixed


class ChangesLabelsAfterwards(Mixup):
    def relabel(self, mixed, output):
        lam = mixed.lam
        mixed.labels.add_(1)
        return lam


GENERATOR = torch.Generator()


class DrawsGlobally(Mixup):
    def mix(self, images, labels, ctx):
        torch.rand(1)
        return super().mix(images, labels, ctx)


class DrawsFromItsOwn(NoMix):
    def mix(self, images, labels, ctx):
        share = torch.rand(1, 1, 1, 1, generator=GENERATOR)
        mixed = (share * images + (1 - share) * images.flip(0)).to(images.dtype)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=share)


class ChangesSettings(Mixup):
    def mix(self, images, labels, ctx):
        torch.set_default_dtype(torch.float64)
        torch.set_grad_enabled(False)
        return Mixup.mix(self, images, labels, ctx)


class ChangesItself(Mixup):
    count: int = 0

    def relabel(self, mixed, output):
        object.__setattr__(self, "count", self.count + 1)
        return mixed.lam


class Multiplies(NoMix):
    def mix(self, images, labels, ctx):
        mask = ctx.mean.new_zeros(1, 1, 1, images.shape[3])
        mask[..., :3] = 1
        mixed = (mask * images + (1 - mask) * images.flip(0)).to(images.dtype)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)


class Rolled(NoMix):
    """A's rows one further down, which nobody is told."""

    moves_pixels = True

    def move(self, maps):
        return maps.roll(1, 2), maps * 0

    def mix(self, images, labels, ctx):
        return replace(super().mix(images, labels, ctx), images=self.move(images)[0])


class RolledAsSaid(Rolled):
    def mix(self, images, labels, ctx):
        return replace(super().mix(images, labels, ctx), move=self.move)


class WrongShare(NoMix):
    def mix(self, images, labels, ctx):
        mask = ctx.mean.new_full((1, 1, 1, 1), 0.5)
        mixed = (0.25 * images + 0.75 * images.flip(0)).to(images.dtype)
        return MixedBatch(images=mixed, labels=labels, partner=mirrored(images), mask=mask)


class Backwards(TransMix):
    def relabel(self, mixed, output):
        return 1 - super().relabel(mixed, output)


def adding(loss, kind=Mixup, built=None):
    """A strategy class with an extra loss, made from the output, and a part that it builds."""

    class Broken(kind):
        def build(self, model, num_classes, image_size):
            return built

        def extra_loss(self, mixed, output):
            return loss(output)

    return Broken


CASES = {
    "spec_text_comes_back": EqualToNothing,
    "equal_strategies_hash_alike": HashOfItself,
    "even_batch": refusing(lambda images: len(images) == 4 and images.dtype == torch.float32),
    "odd_batch": refusing(lambda images: len(images) == 5),
    "single_image": refusing(lambda images: len(images) == 1),
    "oblong_images": refusing(lambda images: images.shape[2] != images.shape[3]),
    "bfloat16": refusing(lambda images: images.dtype == torch.bfloat16),
    "callers_batch_unchanged": ZeroesTheCallers,
    "images_keep_dtype": altering(images=lambda mixed, images: mixed.images.double()),
    "labels_are_those_of_a": altering(labels=lambda mixed, images: (mixed.labels + 1) % 7),
    "partner_names_rows": altering(partner=lambda mixed, images: mixed.partner - len(images)),
    "mask_fits_images": altering(mask=lambda mixed, images: mixed.mask.expand(1, 3, 1, 1)),
    "mask_is_float32": altering(mask=lambda mixed, images: mixed.mask.double()),
    "same_draws": DrawsFromItsOwn,
    "global_generators_unused": DrawsGlobally,
    "settings_stay": ChangesSettings,
    "fields_stay": ChangesItself,
    "mixed_has_no_gradient": altering(memo=lambda mixed, _: [mixed.mask.clone().requires_grad_()]),
    "lam_has_no_gradient": relabelling(lambda mixed: mixed.lam.clone().requires_grad_()),
    "relabel_repeats": relabelling(
        lambda mixed: torch.rand(len(mixed.labels), generator=GENERATOR)
    ),
    "relabel_changes_nothing": ChangesLabelsAfterwards,
    "attention_raises_lam": Backwards,
    "parts_of_a_constant_add_up": altering(
        images=lambda mixed, images: (images + 0.5 * images.flip(0)).to(images.dtype),
        move=lambda mixed, _: lambda maps: (maps, 0.5 * maps.flip(0)),
        moves=True,
    ),
    "compose_gives_the_images": Rolled,
    "extra_loss_is_a_number": adding(lambda output: output.logits.detach().sum()),
    "part_learns": adding(lambda output: None, built=torch.nn.Linear(2, 3)),
    "pixels_follow_mask": WrongShare,
    "pixels_are_copied": Multiplies,
}


@pytest.mark.parametrize("name", CASES)
def test_a_broken_rule_is_named(name):
    assert failing(registered(CASES[name])) == {name}


def test_images_of_another_shape_or_not_finite():
    halved = registered(altering(images=lambda mixed, images: mixed.images[..., ::2]))
    assert failing(halved, moves_pixels=True) == {"images_keep_shape"}
    registry._registered.pop("broken")
    spoiled = registered(altering(images=lambda mixed, images: mixed.images / 0))
    assert failing(spoiled, moves_pixels=True) == {"images_are_finite"}


@pytest.mark.parametrize(
    ("relabel", "names"),
    [
        (lambda mixed: mixed.lam * 2 + 1, {"lam_in_unit_interval"}),
        (lambda mixed: mixed.lam[:, None], {"lam_fits_labels", "labels_sum_to_one"}),
        (
            lambda mixed: mixed.lam * torch.nan,
            {"lam_in_unit_interval", "labels_sum_to_one", "relabel_repeats"},
        ),
    ],
)
def test_a_wrong_lam_is_named(relabel, names):
    assert failing(registered(relabelling(relabel))) == names


@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda output: output.logits.sum(1), r"extra_loss must give one number, \(\), not \(4,\)"),
        (lambda output: 0.5, r"extra_loss must give a tensor \(\) or None, not float"),
        (lambda output: output.logits.sum() / 0, "extra_loss must be finite, not"),
        (lambda output: output.logits.sum() * torch.rand(()), "extra_loss draws from torch's"),
    ],
)
def test_a_wrong_extra_loss_is_named(loss, message):
    with pytest.raises(AssertionError, match=message):
        check_strategy(registered(adding(loss)))


def test_a_loss_and_a_part_that_keep_the_rules():
    head = torch.nn.Linear(7, 1)
    strategy = registered(adding(lambda output: head(output.logits).sum(), built=head))
    assert failing(strategy) == set()


@pytest.mark.parametrize(
    ("members", "name"),
    [
        ({"needs": Needs(attention=3)}, "needs_are_declared"),
        ({"needs": Needs(objects="yes")}, "needs_are_declared"),
        ({"clean_weight": -1.0}, "clean_weight_is_declared"),
        ({"moves_pixels": "yes"}, "moves_pixels_is_declared"),
    ],
)
def test_nonsense_that_a_strategy_says_of_itself_is_named(members, name):
    """Nor can it be read from its spec text then."""
    broken = registered(type("Broken", (Mixup,), members))
    assert name in failing(broken) <= {name, "spec_text_comes_back", "equal_strategies_hash_alike"}


def test_what_is_no_batch_is_named():
    class Broken(Mixup):
        def mix(self, images, labels, ctx):
            return images

        def relabel(self, mixed, output):
            return torch.ones(1)

    assert "mixed_is_a_batch" in failing(registered(Broken))
    with pytest.raises(AssertionError, match="mix must give a MixedBatch, not Tensor"):
        check_strategy(Broken())


def test_the_kit_puts_back_what_a_strategy_changes():
    class Broken(Mixup):
        mix = ChangesSettings.mix

    failing(registered(Broken))
    assert torch.get_default_dtype() == torch.float32 and torch.is_grad_enabled()


def test_a_change_in_place_that_is_taken_back_is_named():
    """On a GPU the next strategy may read the batch in between."""

    class Broken(Mixup):
        def mix(self, images, labels, ctx):
            images.add_(0)
            return super().mix(images, labels, ctx)

    assert failing(registered(Broken)) == {"callers_batch_unchanged"}


def test_a_mask_above_1_is_named():
    class Broken(NoMix):
        def mix(self, images, labels, ctx):
            mixed = super().mix(images, labels, ctx)
            others = images.flip(0)
            return replace(
                mixed, images=images * 2 - others, mask=ctx.mean.new_full((1, 1, 1, 1), 2.0)
            )

        def relabel(self, mixed, output):
            return mixed.lam.clamp(0, 1)

    assert failing(registered(Broken)) == {"mask_in_unit_interval"}


def test_every_check_has_a_strategy_that_fails_it():
    seen = {
        *CASES,
        "mixed_is_a_batch",
        "images_keep_shape",
        "images_are_finite",
        "mask_in_unit_interval",
    }
    seen |= {
        "needs_are_declared",
        "clean_weight_is_declared",
        "moves_pixels_is_declared",
        "lam_in_unit_interval",
        "lam_fits_labels",
        "labels_sum_to_one",
    }
    assert {check.name for check in checks(TransMix())} == seen


def test_all_broken_rules_are_reported_at_once():
    class Broken(ZeroesTheCallers):
        def relabel(self, mixed, output):
            return mixed.lam.clone().requires_grad_()

    with pytest.raises(AssertionError) as caught:
        check_strategy(registered(Broken))
    lines = str(caught.value).splitlines()
    assert lines[0] == "broken fails 2 of 37 checks:"
    assert lines[1] == (
        "  callers_batch_unchanged: the caller's batch must not change "
        "(4 images of 32 x 32, float32)"
    )
    assert lines[2].startswith("  lam_has_no_gradient: lam must carry no gradient")
    assert len(lines) == 3


def test_a_strategy_that_raises_fails_its_checks_and_the_others_go_on():
    class Broken(ZeroesTheCallers):
        def relabel(self, mixed, output):
            raise KeyError("memo")

    strategy = registered(Broken)
    names = failing(strategy)
    assert {*MIXING, "callers_batch_unchanged", "labels_sum_to_one"} <= names
    assert not {"spec_text_comes_back", "same_draws", "pixels_follow_mask"} & names
    with pytest.raises(AssertionError) as caught:
        check_strategy(strategy)
    raised = [line for line in str(caught.value).splitlines() if "raised" in line]
    assert len(raised) == 1 and raised[0].endswith("relabel raised KeyError: 'memo'")


def test_a_strategy_whose_needs_raise_is_reported():
    class Broken(Mixup):
        @property
        def needs(self):
            raise LookupError("no network")

    with pytest.raises(AssertionError, match="mix raised LookupError: no network"):
        check_strategy(registered(Broken))


def test_a_strategy_without_a_name_is_reported():
    unnamed = dataclass(frozen=True)(type("Unnamed", (Mixup,), {}))()
    with pytest.raises(AssertionError, match=r"(?s)Unnamed fails 2 of .*not registered: decorate"):
        check_strategy(unnamed)


def test_the_kit_leaves_torchs_generator_alone():
    torch.manual_seed(8191)
    state = torch.random.get_rng_state()
    check_strategy(create_strategy("transmix"))
    assert state.equal(torch.random.get_rng_state())


def test_moving_pixels_leaves_out_checks():
    strict, lenient = (
        [check.name for check in checks(Mixup(), moves_pixels=moves)] for moves in (False, True)
    )
    left_out = ["compose_gives_the_images", "pixels_follow_mask", "pixels_are_copied"]
    assert strict == [*lenient, *left_out]
    declared = [check.name for check in checks(RolledAsSaid())]
    assert declared == [*lenient, "compose_gives_the_images"]


@pytest.mark.parametrize("wrapper", ["{}", "transmix(base={})", "alternate(first={})"])
def test_a_move_that_is_told_passes(wrapper):
    registered(type("Broken", (RolledAsSaid,), {}))
    check_strategy(create_strategy(wrapper.format("broken")))


@pytest.mark.parametrize(
    ("move", "message"),
    [
        (lambda maps: (maps.add_(1), maps), "move must not change its maps"),
        (lambda maps: maps[:, :, :2], "move must give two maps"),
        (lambda maps: (maps[:, :, :2], maps[:, :, :2]), "move must give two maps"),
        (lambda maps: 1 / 0, "move raised ZeroDivisionError"),
        ("rolled", "move must be a function of maps or None, not str"),
    ],
)
def test_a_move_that_is_none_is_named(move, message):
    with pytest.raises(AssertionError, match=message):
        check_strategy(registered(altering(move=lambda mixed, images: move)))


def test_pytest_names_a_case_of_every_check():
    strategies = [create_strategy(spec) for spec in ("cutmix", "transmix(base=mixup)")]
    mark = parametrize_with_checks(strategies).mark
    assert mark.name == "parametrize" and mark.args[0] == "check"
    ids = [case.id for case in mark.args[1]]
    assert len(ids) == len(set(ids)) == 37 + 38
    assert {"cutmix-labels_sum_to_one", "transmix(base=mixup)-attention_raises_lam"} <= set(ids)
    assert "cutmix-attention_raises_lam" not in ids


@parametrize_with_checks([create_strategy("cutmix(per_sample=True)")])
def test_a_case_is_a_call(check):
    check()


def test_pytest_runs_the_cases(run_pytest):
    printed = run_pytest(
        """
        from dataclasses import dataclass
        from mixbench import register_strategy
        from mixbench.strategies.mixup import Mixup
        from mixbench.testing import parametrize_with_checks

        @register_strategy("wronglam")
        @dataclass(frozen=True)
        class WrongLam(Mixup):
            def relabel(self, mixed, output):
                return mixed.lam + 1

        @parametrize_with_checks([Mixup(), WrongLam()])
        def test_rules(check):
            check()
        """
    )
    assert "1 failed, 73 passed" in printed
    assert "test_rules[wronglam-lam_in_unit_interval]" in printed
