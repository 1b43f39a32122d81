"""What the speed part counts: arithmetic by strategy, paired ratios, parts of the step."""

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from timm import create_model
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from mixbench import create_strategies, create_strategy, register_strategy, strategy_spec
from mixbench.data.normalisation import Normalisation
from mixbench.evaluations.profile import profile
from mixbench.evaluations.speed import (
    CLASSES,
    Interval,
    ResidentBatch,
    Timed,
    blank_row,
    measure,
    median_interval,
    timed_strategies,
)
from mixbench.mix import Needs, hashed_seed
from mixbench.models.build import build_model, recipe_model
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.services.network import external_network
from mixbench.strategies.cutmix import CutMix
from mixbench.training.batches import Micro
from mixbench.training.forward import Network
from mixbench.training.objective import Objective
from mixbench.training.optim import build_optimizer

CPU = torch.device("cpu")
SMALL = {"speed_model": "deit_tiny_patch16_224", "speed_image_size": 32, "speed_batch_size": 2}
PARTS = ("mix", "forward", "backward", "optimizer")


def flops(specs, **changes):
    """Multiply-adds x 2 of one timed step of each strategy, by spec text."""
    recipe = load_recipe("quick", {"speed_batch_size": 1, **changes})
    strategies = {strategy_spec(s): s for s in create_strategies(specs)}
    counts, batch = {}, ResidentBatch(recipe, CPU, CLASSES)
    # the counter does not know the CPU's fused attention
    with sdpa_kernel(SDPBackend.MATH), timed_strategies(strategies, recipe, CPU, CLASSES) as timed:
        for spec, strategy in timed.items():
            with FlopCounterMode(display=False) as counter:
                strategy.step(batch.micro(0))
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
    intervals = [median_interval(rng.normal(1, 0.1, 41), 500) for _ in range(200)]
    covered = [interval.low <= 1.0 <= interval.high for interval in intervals]
    assert 0.88 <= np.mean(covered) <= 1
    assert median_interval(np.ones(5)) == Interval(1.0, 1.0, 1.0)


def test_rows_say_in_what_the_input_gradient_is_computed():
    recipe = load_recipe("quick", SMALL | {"gradient_amp": True})
    assert blank_row(recipe, CPU).timed_precision == "fp32 with bf16 input gradient"


def test_figures_hang_together():
    recipe, ticks = load_recipe("quick", SMALL), []
    runtime = Runtime(device=CPU, tick=lambda done, total: ticks.append((done, total)))
    rows = measure(create_strategies("transmix,none"), recipe, 3, runtime)
    assert ticks == [(1, 3), (2, 3), (3, 3)]
    assert [row.strategy for row in rows] == ["cutmix", "transmix", "none"]
    assert {row.status for row in rows} == {"ok"}
    assert rows[0].ratio_to_cutmix == rows[0].ratio_lo == rows[0].ratio_hi == 1
    for row in rows:
        assert row.im_per_sec_lo <= row.im_per_sec <= row.im_per_sec_hi
        assert row.rounds == 3 and row.peak_memory_mb is None
        assert (row.timed_model, row.timed_image_size) == ("deit_tiny_patch16_224", 32)
        assert (row.timed_batch_size, row.timed_precision) == (2, "fp32")
        parts = [getattr(row, f"{part}_ms") for part in PARTS]
        milliseconds = 1000 * 2 / row.im_per_sec
        assert min(parts) >= 0 and sum(parts[:3]) == pytest.approx(milliseconds, rel=0.5)


def test_figures_by_hand(monkeypatch):
    """CutMix takes 1 + 2 + 3 s and Mixup twice that: 2 images in 12 s, half of CutMix's speed."""

    class Given:
        def __init__(self, times):
            self.times = times

        def seconds(self):
            return self.times

    def step(timed, micro):
        spec = strategy_spec(timed.objective.strategy)
        factor = {"cutmix": 1, "mixup": 2}[spec]
        return Given({part: factor * n for n, part in enumerate(PARTS, 1)})

    monkeypatch.setattr(Timed, "step", step)
    rows = measure(create_strategies("mixup"), load_recipe("quick", SMALL), 3, Runtime(device=CPU))
    cutmix, mixup = rows
    assert (cutmix.im_per_sec, mixup.im_per_sec) == (2 / 6, 2 / 12)
    assert (cutmix.ratio_to_cutmix, mixup.ratio_to_cutmix) == (1, 0.5)
    assert mixup.ratio_lo == mixup.ratio_hi == 0.5 and mixup.control_lo == mixup.control_hi == 1
    assert [getattr(mixup, f"{part}_ms") for part in PARTS] == [2000, 4000, 6000, 8000]


def test_the_order_turns_every_other_round(monkeypatch):
    order, real = [], Timed.step

    def step(timed, micro):
        order.append((micro.step, strategy_spec(timed.objective.strategy)))
        return real(timed, micro)

    monkeypatch.setattr(Timed, "step", step)
    strategies = create_strategies("mixup,none")
    measure(strategies, load_recipe("quick", SMALL), 2, Runtime(device=CPU))
    last = order[-8:]
    assert [spec for _, spec in last[:4]] == ["cutmix", "none", "mixup", "cutmix"]
    assert [spec for _, spec in last[4:]] == ["cutmix", "mixup", "none", "cutmix"]


def test_a_strategy_that_fails_is_named_and_the_others_are_timed():
    @register_strategy("late_failure")
    @dataclass(frozen=True)
    class LateFailure(CutMix):
        def relabel(self, mixed, output):
            raise RuntimeError("not today")

    strategies = [create_strategy("late_failure"), create_strategy("mixup")]
    rows = measure(strategies, load_recipe("quick", SMALL), 1, Runtime(device=CPU))
    assert {row.strategy: row.status for row in rows} == {
        "cutmix": "ok",
        "late_failure": "failed: RuntimeError: not today",
        "mixup": "ok",
    }
    assert rows[1].im_per_sec is None and rows[2].im_per_sec > 0


def test_what_is_timed_is_what_trains():
    """The timed step leaves the weights where the same step by hand leaves them."""
    recipe = load_recipe("quick", {**SMALL, "drop_path": 0.3})
    transmix = create_strategy("transmix")
    with timed_strategies({"transmix": transmix}, recipe, CPU, CLASSES) as timed:
        timed["transmix"].step(ResidentBatch(recipe, CPU, CLASSES).micro(5))
    model = build_model(
        recipe.speed_model, num_classes=CLASSES, image_size=32, seed=0, drop_path_rate=0.3
    ).train()
    rng = torch.Generator().manual_seed(0)
    images = torch.randn(2, 3, 32, 32, generator=rng)
    labels = torch.randint(CLASSES, (2,), generator=rng)
    optimizer = build_optimizer(model, recipe)
    objective = Objective(
        strategy=transmix,
        num_classes=CLASSES,
        smoothing=recipe.smoothing,
        normalisation=Normalisation.of(recipe.mean, recipe.std),
        seed=0,
    )
    torch.manual_seed(hashed_seed("elsewhere"))
    with Network(model, Needs(attention="last")) as network:
        objective(network, Micro(images=images, labels=labels, step=5)).loss.backward()
    optimizer.step()
    weights = timed["transmix"].network.model.parameters()
    assert all(torch.equal(a, b) for a, b in zip(weights, model.parameters(), strict=True))


def test_strategies_with_the_same_attention_share_a_network():
    strategies = {spec: create_strategy(spec) for spec in ("cutmix", "mixup", "transmix")}
    with timed_strategies(strategies, load_recipe("quick", SMALL), CPU, CLASSES) as timed:
        assert timed["cutmix"].network is timed["mixup"].network
        assert timed["cutmix"].network is not timed["transmix"].network
        assert timed["cutmix"].steps is not timed["mixup"].steps


def test_a_profile_names_operators_and_leaves_a_trace(tmp_path):
    strategies = create_strategies("cutmix,transmix")
    runtime = Runtime(device=CPU, out=tmp_path)
    text = profile(strategies, load_recipe("quick", SMALL), runtime, CLASSES)
    assert "cutmix: " in text and "transmix: " in text and "aten::" in text
    for number in (0, 1):
        assert "traceEvents" in (tmp_path / f"trace-{number}.json").read_text()


def test_the_trained_network_is_timed_with_the_datas_classes():
    changes = {"speed_model": None, "speed_image_size": None, "speed_batch_size": 2, "depth": 1}
    recipe = load_recipe("quick", changes)
    [row] = measure([create_strategy("cutmix")], recipe, 1, Runtime(device=CPU), 7)
    assert (row.timed_model, row.timed_image_size) == ("vit_tiny_patch16_224", 32)
    own = recipe_model(recipe, 7, 0)
    assert row.timed_params_m == sum(p.numel() for p in own.parameters()) / 1e6
