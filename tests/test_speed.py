"""What the speed part counts: arithmetic by strategy, paired ratios, parts of the step."""

from contextlib import ExitStack

import numpy as np
import pytest
import torch
from timm import create_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mixbench import create_strategies, create_strategy, strategy_spec
from mixbench.evaluations.speed import PARTS, measure, median_interval, speed_learners, timed_step
from mixbench.recipe import load_recipe
from mixbench.services.network import external_network

CPU = torch.device("cpu")
SMALL = {"speed_model": "deit_tiny_patch16_224", "speed_image_size": 32, "speed_batch_size": 2}


def flops(specs, **changes):
    """Multiply-adds x 2 of one timed step of each strategy, by spec text."""
    recipe = load_recipe("quick", {"speed_batch_size": 1, **changes})
    strategies = {strategy_spec(s): s for s in create_strategies(specs)}
    counts = {}
    with ExitStack() as stack:
        stack.enter_context(
            sdpa_kernel(SDPBackend.MATH)
        )  # the counter does not know the CPU's fused attention
        step = timed_step(recipe, CPU)
        for spec, learner in speed_learners(strategies, recipe, CPU, stack).items():
            with FlopCounterMode(display=False) as counter:
                step(learner, 0)
            counts[spec] = counter.get_total_flops()
    return counts


def test_transmix_costs_no_arithmetic_at_the_papers_size():
    counts = flops("cutmix,transmix", speed_model="deit_small_patch16_224", speed_image_size=224)
    # forward 2 x 4.60 G, backward twice that, less 0.2 G for the gradient of the pixels
    assert counts["cutmix"] == pytest.approx(27.4e9, rel=0.01)
    assert counts["cutmix"] < counts["transmix"] < 1.0002 * counts["cutmix"]


def test_attentivecutmix_costs_the_forward_pass_of_its_network(tmp_path):
    weights = tmp_path / "resnet50.pth"
    torch.save(create_model("resnet50").state_dict(), weights)
    spec = f"attentivecutmix(network='resnet50:{weights}')"
    external_network(create_strategy(spec).network, CPU)  # built before it is counted
    counts = flops(f"cutmix,{spec}", speed_model="deit_small_patch16_224", speed_image_size=224)
    added = counts[strategy_spec(create_strategy(spec))] - counts["cutmix"]
    assert added == pytest.approx(2 * 4.087e9, rel=0.001)  # the body's multiply-adds
    assert added < 0.30 * counts["cutmix"]


def test_interval_of_the_median():
    rng = np.random.default_rng(0)
    covered = [
        low <= 1.0 <= high
        for _, low, high in (median_interval(rng.normal(1, 0.1, 41), 500) for _ in range(200))
    ]
    assert 0.88 <= np.mean(covered) <= 1
    assert median_interval(np.ones(5)) == (1.0, 1.0, 1.0)


def test_figures_hang_together():
    recipe, heard = load_recipe("quick", SMALL), []
    speeds, failed = measure(
        create_strategies("transmix,none"),
        recipe,
        CPU,
        3,
        lambda done, total: heard.append((done, total)),
    )
    assert (
        heard == [(1, 3), (2, 3), (3, 3)]
        and not failed
        and list(speeds) == ["cutmix", "transmix", "none"]
    )
    assert (
        speeds["cutmix"].ratio_to_cutmix
        == speeds["cutmix"].ratio_lo
        == speeds["cutmix"].ratio_hi
        == 1
    )
    for speed in speeds.values():
        assert (
            speed.im_per_sec_lo <= speed.im_per_sec <= speed.im_per_sec_hi
            and speed.rounds == 3
            and speed.peak_memory_mb is None
        )
        parts = [getattr(speed, f"{part}_ms") for part in PARTS]
        assert min(parts) >= 0 and sum(parts[:3]) == pytest.approx(
            1000 * 2 / speed.im_per_sec, rel=0.5
        )


def test_a_strategy_that_fails_is_named_and_the_others_are_timed():
    from dataclasses import dataclass

    from mixbench import register_strategy
    from mixbench.strategies.cutmix import CutMix

    @register_strategy("late_failure")
    @dataclass(frozen=True)
    class LateFailure(CutMix):
        def relabel(self, mixed, output):
            raise RuntimeError("not today")

    speeds, failed = measure(
        [create_strategy("late_failure"), create_strategy("mixup")],
        load_recipe("quick", SMALL),
        CPU,
        1,
    )
    assert failed == {"late_failure": "failed: RuntimeError: not today"} and list(speeds) == [
        "cutmix",
        "mixup",
    ]


def test_what_is_timed_is_what_trains():
    """The timed step leaves the weights where a training step with the same draws leaves them."""
    from mixbench.mix import hashed_seed
    from mixbench.models.build import build_model
    from mixbench.training.learner import Learner
    from mixbench.training.objective import forward_pass, mixed_loss
    from mixbench.training.optim import build_optimizer

    recipe = load_recipe("quick", {**SMALL, "drop_path": 0.3})
    with ExitStack() as stack:
        strategies = {"transmix": create_strategy("transmix")}
        [timed] = speed_learners(strategies, recipe, CPU, stack).values()
        timed_step(recipe, CPU)(timed, 5)
        stack.close()
        model = build_model(recipe.speed_model, 1000, 0, image_size=32, drop_path_rate=0.3).train()
        from mixbench import ClassAttention

        rng = torch.Generator().manual_seed(0)
        images, labels = (
            torch.randn(2, 3, 32, 32, generator=rng),
            torch.randint(1000, (2,), generator=rng),
        )
        with ClassAttention(model) as tap:
            strategy = create_strategy("transmix")
            own = Learner(
                strategy,
                strategy,
                model,
                forward_pass(model, tap, False),
                tap,
                build_optimizer(model, recipe),
            )
            torch.manual_seed(hashed_seed("elsewhere"))
            mixed_loss(
                own,
                strategy,
                images,
                labels,
                num_classes=1000,
                smoothing=recipe.smoothing,
                amp=False,
                seed=0,
                step=5,
                mean=torch.tensor(recipe.mean).reshape(-1, 1, 1),
                std=torch.tensor(recipe.std).reshape(-1, 1, 1),
            ).loss.backward()
            own.optimizer.step()
    assert all(
        torch.equal(a, b) for a, b in zip(timed.model.parameters(), model.parameters(), strict=True)
    )
