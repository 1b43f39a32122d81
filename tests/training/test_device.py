"""What a step asks of a GPU: no wait for it, few launches, one graph a mix.

Without a GPU too, on tensors that only pretend to be on one.
"""

import contextlib
import functools

import pytest
import torch
from timm import create_model

import mixbench.mix
from mixbench import create_strategy, strategy_spec
from mixbench.data.normalisation import Normalisation
from mixbench.evaluations.speed import ResidentBatch, timed_strategies
from mixbench.mix import MixContext, ModelOutput, Needs, send, step_rng
from mixbench.models.build import build_model
from mixbench.recipe import load_recipe
from mixbench.services.look import make_look
from mixbench.services.tokens import tap_of
from mixbench.training.batches import Micro
from mixbench.training.forward import Network
from mixbench.training.objective import Objective, label_loss
from mixbench.training.parts import attach, build_part

SPECS = [
    "none",
    "mixup",
    "cutmix",
    "cutmix(per_sample=True)",
    "alternate",
    "saliencymix",
    "saliencymix(scope=batch)",
    "saliencymix(source=official)",
    "attentivecutmix",
    "puzzlemix",
    "puzzlemix(num_labels=2,transport=False)",
    "resizemix",
    "gridmix",
    "fmix(max_soft=0.2)",
    "maskmix",
    "tokenmix",
    "guidedmixup",
    "guidedmixup(pairing=mirror)",
    "smmix",
    "transmix",
    "transmix(base=puzzlemix)",
    "tlalign",
    "mixpro",
    "mixpro(base=puzzlemix)",
    "oacutmix",
    "oacutmix(base=smmix, target=fraction)",
    "regmixup",
]


def batch(device):
    return torch.randn(8, 3, 64, 64, device=device), torch.arange(8, device=device)


def context(strategy, step, images, compile=False, model=None):
    """A context with stand-ins for network and gradient: autograd needs a real device.

    Without a model a look has a stand-in too.
    """
    shift = torch.linspace(0, 1, 64, device=images.device)
    mean, std = shift.new_full((3, 1, 1), 0.4), shift.new_full((3, 1, 1), 0.3)
    maps = torch.arange(8 * 49, device=images.device).mul(29).remainder(53).view(8, 1, 7, 7).float()
    pixels = Normalisation(mean, std).pixels(images * 0.1) if strategy.needs.pixels else None
    objects = images.new_zeros(8, 1, 64, 64)
    objects[..., 16:40, 8:] = 1
    seen = ModelOutput(images.flatten(1)[:, :10], maps[:, 0, :4, :4])
    look = make_look(model, "patches") if model and strategy.needs.look else lambda x: seen
    return MixContext(
        rng=step_rng(0, step),
        mean=mean,
        std=std,
        pixels=pixels,
        features=lambda x: maps,
        input_gradient=lambda x, labels: x * shift,
        grid=(4, 4),
        look=look,
        objects=objects,
        part=getattr(model, "mixing", torch.nn.Identity()),
        compile=compile,
    )


def test_the_pretended_gpu_notices_waits(gpu):
    images = torch.randn(2, 3, device="cuda")
    for wait in (
        lambda: images.sum().item(),
        lambda: images[images > 0],
        lambda: bool(images[0, 0] > 0),
        lambda: images.nonzero(),
    ):
        with pytest.raises(Exception, match="aten"):
            wait()
    assert not gpu.waits
    for wait in (
        lambda: images.cpu(),
        lambda: torch.ones(3).to("cuda"),
        lambda: torch.ones(3).to("cuda", non_blocking=True),
        lambda: images + torch.ones(2, 3).cuda(),
    ):
        wait()
        assert gpu.waits
        gpu.waits.clear()
    send([[1, 2]], images)
    send(0.5, images)
    gpu.launches.clear()
    images.add(1).mul(images).view(6)
    assert not gpu.waits and gpu.launches.total() == 2


@pytest.fixture
def pretended_vit(gpu):
    model = create_model("test_vit", img_size=64, depth=2, num_classes=10)
    model.mixing = torch.nn.Linear(model.num_features, 10)
    for module in model.modules():
        for name, parameter in module._parameters.items():
            if parameter is not None:
                module._parameters[name] = torch.nn.Parameter(
                    torch.empty(parameter.shape, device="cuda")
                )
    return model


def launches(gpu, model, spec, step=0):
    """Launches of one mix, and of the forward pass with the label and loss; no wait in either."""
    strategy, (images, labels) = create_strategy(spec), batch("cuda")
    ctx = context(strategy, step, images, model=model)
    gpu.launches.clear()
    mixed = strategy.mix(images, labels, ctx)
    mixing = gpu.launches.total()
    with tap_of(model, strategy.needs) or contextlib.nullcontext() as tap:
        output = tap(mixed.images) if tap else ModelOutput(model(mixed.images))
    label_loss(strategy, mixed, output, 10, 0.1)
    strategy.extra_loss(mixed, output)
    assert mixed.images.device.type == mixed.mask.device.type == "cuda" and not gpu.waits
    return mixing, gpu.launches.total() - mixing


def adds_to_the_forward(strategy):
    """Whether a strategy reads something in the forward pass or adds to the loss."""
    return strategy.needs.attention or strategy.needs.tokens


@pytest.mark.parametrize("spec", SPECS)
def test_a_step_never_waits_for_the_device(gpu, pretended_vit, spec):
    for step in range(4):
        launches(gpu, pretended_vit, spec, step)
        assert not gpu.waits


def test_launches_of_a_step(gpu, pretended_vit):
    """What a strategy costs beyond its arithmetic.

    A launch costs the host about as long as a small kernel runs.
    """
    forward = launches(gpu, pretended_vit, "none")[1]
    counts = {spec: launches(gpu, pretended_vit, spec) for spec in SPECS}
    plain = [spec for spec in SPECS if not adds_to_the_forward(create_strategy(spec))]
    assert max(counts[spec][1] for spec in plain) == forward
    assert (
        counts["transmix"][0] == counts["cutmix"][0] <= 20 and counts["transmix"][1] <= forward + 40
    )
    assert (
        max(counts["cutmix(per_sample=True)"][0], counts["attentivecutmix"][0], counts["mixup"][0])
        <= 20
    )  # whatever the batch
    assert counts["saliencymix"][0] <= 300
    puzzle = [
        (launches(gpu, pretended_vit, "puzzlemix", step)[0], gpu.launches["kernel"])
        for step in range(4)
    ]
    assert (
        max(puzzle)[0] <= 950 and max(kernel for _, kernel in puzzle) == 1
    )  # most of them for moving 16 x 16 blocks


def test_the_mask_kernel_is_launched_on_its_tensors_device_without_a_wait(gpu, monkeypatch):
    mask_triton = pytest.importorskip("mixbench.puzzle.mask_triton", exc_type=ImportError)
    current, launched = ["cuda:0"], []

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(str(tensor.device))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(mask_triton, "_loop", {(3,): lambda *_, **__: launched.append(current[-1])})
    for levels in (1, 2, 3):
        problem = (
            torch.zeros(levels, 16, 3, device="cuda:1"),
            torch.zeros(2, 1, 16, 3, device="cuda:1"),
        )
        x, flow = mask_triton.flow(*problem, 4, 1, 1.0)
        assert x.shape == (levels, 16, 3) and flow.shape == (2, levels**2, 16, 3)
    assert launched == ["cuda:1"] * 3 and not gpu.waits


def test_the_tensor_half_of_every_mix_is_one_graph(monkeypatch):
    """No graph break, the same as eager; another batch with other draws runs the same graphs."""
    torch._dynamo.reset()
    mixbench.mix._compiled.cache_clear()
    graphs = []

    def backend(graph, _):
        graphs.append(graph)
        return graph

    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend=backend, fullgraph=True)
    )
    images, labels = batch("cpu")
    for spec in SPECS:
        strategy = create_strategy(spec)
        for step in range(3):
            plain = strategy.mix(images, labels, context(strategy, step, images))
            compiled = strategy.mix(images, labels, context(strategy, step, images, compile=True))
            assert torch.equal(plain.mask, compiled.mask) and torch.equal(
                plain.images, compiled.images
            )
    assert graphs
    mixbench.mix._compiled.cache_clear()
    torch._dynamo.reset()


def test_a_compiled_step_has_the_eager_gradients(monkeypatch):
    backend = functools.partial(torch.compile, backend="eager", fullgraph=True)
    monkeypatch.setattr(torch, "compile", backend)
    images, labels = batch("cpu")
    for spec in ("saliencymix", "transmix(base=puzzlemix)", "mixpro", "regmixup", "smmix"):
        strategy, gradients = create_strategy(spec), {}
        for compiled in (False, True):
            model = build_model(
                "vit_tiny_patch16_224", num_classes=10, image_size=64, seed=0, depth=2
            ).train()
            part = build_part(strategy, model, 10, 64, seed=0)
            attach(model, part)
            objective = Objective(
                strategy=strategy,
                num_classes=10,
                smoothing=0.1,
                normalisation=Normalisation.of((0.0,) * 3, (1.0,) * 3),
                seed=0,
            )
            needs = strategy.needs | Needs(attention="last")
            with Network(model, needs, part=part, compile=compiled) as network:
                for step in (0, 1):
                    micro = Micro(images=images, labels=labels, step=step)
                    objective(network, micro).loss.backward()
            gradients[compiled] = [p.grad for p in model.parameters()]
        torch.testing.assert_close(gradients[True], gradients[False])


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("compile", [False, True])
def test_a_timed_step_on_a_gpu_never_waits(tmp_path, compile):
    torch.save(create_model("resnet18").state_dict(), tmp_path / "weights.pth")
    specs = [
        spec.replace(
            "attentivecutmix", f"attentivecutmix(network='resnet18:{tmp_path}/weights.pth')"
        )
        for spec in SPECS
    ]
    changes = {
        "speed_model": "deit_tiny_patch16_224",
        "speed_image_size": 64,
        "speed_batch_size": 8,
        "compile": compile,
    }
    device = torch.device("cuda")
    recipe = load_recipe("quick", changes)
    strategies = {strategy_spec(s): s for s in map(create_strategy, specs)}
    resident = ResidentBatch(recipe, device, 1000)
    with timed_strategies(strategies, recipe, device, 1000) as timed:
        for strategy in timed.values():
            # every number of blocks is drawn, networks are built and kernels compiled
            for number in range(8):
                strategy.step(resident.micro(number))
            torch.cuda.set_sync_debug_mode("error")  # a wait raises
            try:
                strategy.step(resident.micro(0))
            finally:
                torch.cuda.set_sync_debug_mode("default")
