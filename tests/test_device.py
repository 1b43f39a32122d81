"""What a step asks of a GPU: no wait for it, few launches, one graph a half. Without a GPU too, on tensors that only pretend to be on one."""

import collections
import contextlib
import functools

import pytest
import torch
from timm import create_model
from torch._subclasses.fake_tensor import FakeTensor, FakeTensorMode, unset_fake_temporarily
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

import mixbench.mix
import mixbench.puzzle.mask
from mixbench import attention_tap, create_strategy, strategy_spec
from mixbench.evaluations.speed import speed_learners, timed_step
from mixbench.mix import MixContext, ModelOutput, send, step_rng, to_pixels
from mixbench.models.build import build_model
from mixbench.recipe import load_recipe
from mixbench.training.learner import Learner
from mixbench.training.objective import compiled_parts, label_loss, mixed_loss

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
    "transmix",
    "transmix(base=puzzlemix)",
]


class PretendGpu(TorchDispatchMode):
    """Runs what touches a 'cuda' tensor without data, and counts it; a value that Python asks for is an error, as are copies that wait.

    What is on the CPU is computed as ever.
    """

    def __init__(self):
        super().__init__()
        self.fake, self.pinned, self.launches, self.waits = (
            FakeTensorMode(allow_non_fake_inputs=True),
            [],
            collections.Counter(),
            [],
        )

    def __enter__(self):
        self.fake.__enter__()
        return super().__enter__()

    def __exit__(self, *error):
        super().__exit__(*error)
        self.fake.__exit__(*error)

    def __torch_dispatch__(self, op, types, args=(), kwargs=None):
        kwargs = kwargs or {}
        given = [t for t in tree_leaves((args, kwargs)) if isinstance(t, torch.Tensor)]
        device = kwargs.get("device")
        if not any(isinstance(t, FakeTensor) for t in given) and (
            device is None or torch.device(device).type != "cuda"
        ):
            with unset_fake_temporarily():
                if op is torch.ops.aten._pin_memory.default:
                    self.pinned.append(args[0].clone())
                    return self.pinned[-1]
                return op(*args, **kwargs)
        made = op(
            *args, **kwargs
        )  # asking for a value, or for a shape that depends on one, is an error here
        for source in given:
            for target in tree_leaves(made):
                if (
                    isinstance(target, torch.Tensor)
                    and {source.device.type, target.device.type} == {"cpu", "cuda"}
                    and source.ndim
                ):
                    pinned = any(source is kept for kept in self.pinned)
                    if target.device.type == "cpu" or not (pinned and kwargs.get("non_blocking")):
                        self.waits.append(
                            f"{op} {tuple(source.shape)} {source.device} to {target.device}"
                        )
        if op.namespace == "aten" and not op.is_view:
            self.launches[str(op)] += 1
        return made


@pytest.fixture
def gpu(monkeypatch):
    """A pretended GPU, on which the mask solver's kernel is a launch without work."""
    if torch.__version__ < "2.11":
        pytest.skip(
            "tensors that pretend to be on a GPU ask the driver in torch 2.6, and not in 2.11"
        )

    def kernel(difference, weight, n, *_):
        levels, _, batch = difference.shape
        mode.launches["kernel"] += 1
        return torch.empty_like(difference), difference.new_empty(2, levels**2, n * n, batch)

    monkeypatch.setattr(mixbench.puzzle.mask, "_triton_flow", lambda _: kernel)
    with PretendGpu() as mode:
        yield mode


def batch(device):
    return torch.randn(8, 3, 64, 64, device=device), torch.arange(8, device=device)


def context(strategy, step, images, compile=False):
    """A context whose network and gradient are stand-ins: autograd cannot run backwards on a pretended GPU."""
    shift = torch.linspace(0, 1, 64, device=images.device)
    mean, std = shift.new_full((3, 1, 1), 0.4), shift.new_full((3, 1, 1), 0.3)
    maps = torch.arange(8 * 49, device=images.device).mul(29).remainder(53).view(8, 1, 7, 7).float()
    return MixContext(
        rng=step_rng(0, step),
        mean=mean,
        std=std,
        pixels=to_pixels(images * 0.1, mean, std) if strategy.needs.pixels else None,
        features=lambda x: maps,
        input_gradient=lambda x, labels: x * shift,
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
    model = create_model("deit_tiny_patch16_224", img_size=64, num_classes=10)
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
    ctx = context(strategy, step, images)
    gpu.launches.clear()
    mixed = strategy.mix(images, labels, ctx)
    mixing = gpu.launches.total()
    with (
        attention_tap(model, strategy.needs.attention)
        if strategy.needs.attention
        else contextlib.nullcontext() as tap
    ):
        output = tap(mixed.images) if tap else ModelOutput(model(mixed.images))
    label_loss(strategy, mixed, output, 10, 0.1)
    assert mixed.images.device.type == mixed.mask.device.type == "cuda" and not gpu.waits
    return mixing, gpu.launches.total() - mixing


@pytest.mark.parametrize("spec", SPECS)
def test_a_step_never_waits_for_the_device(gpu, pretended_vit, spec):
    for step in range(4):
        launches(gpu, pretended_vit, spec, step)
        assert not gpu.waits


def test_launches_of_a_step(gpu, pretended_vit):
    """A launch costs the host about as long as a small kernel runs, so their number is what a strategy may cost beyond its arithmetic."""
    forward = launches(gpu, pretended_vit, "none")[1]
    counts = {spec: launches(gpu, pretended_vit, spec) for spec in SPECS}
    assert all(counts[spec][1] == forward for spec in SPECS if "transmix" not in spec)
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
    pytest.importorskip("triton", reason="triton is not installed: pip install triton")
    from mixbench.puzzle import mask_triton as puzzle_triton

    current, launched = ["cuda:0"], []

    @contextlib.contextmanager
    def device_of(tensor):
        current.append(str(tensor.device))
        yield
        current.pop()

    monkeypatch.setattr(torch.cuda, "device_of", device_of)
    monkeypatch.setattr(
        puzzle_triton, "_loop", {(3,): lambda *_, **__: launched.append(current[-1])}
    )
    for levels in (1, 2, 3):
        problem = (
            torch.zeros(levels, 16, 3, device="cuda:1"),
            torch.zeros(2, 1, 16, 3, device="cuda:1"),
        )
        x, flow = puzzle_triton.flow(*problem, 4, 1, 1.0)
        assert x.shape == (levels, 16, 3) and flow.shape == (2, levels**2, 16, 3)
    assert launched == ["cuda:1"] * 3 and not gpu.waits


def test_the_tensor_half_of_every_mix_is_one_graph(monkeypatch):
    """No graph break, and the same as eager; a second batch with other draws runs the same graphs."""
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
    monkeypatch.setattr(
        torch, "compile", functools.partial(torch.compile, backend="eager", fullgraph=True)
    )
    images, labels = batch("cpu")
    shape = {
        "mean": torch.zeros(3, 1, 1),
        "std": torch.ones(3, 1, 1),
        "num_classes": 10,
        "smoothing": 0.1,
        "amp": False,
        "seed": 0,
    }
    for spec in ("saliencymix", "transmix(base=puzzlemix)"):
        strategy, gradients = create_strategy(spec), {}
        for compiled in (False, True):
            model = build_model("vit_tiny_patch16_224", 10, 0, image_size=64, depth=2).train()
            with attention_tap(model, "last") as tap:
                learner = Learner(
                    strategy, strategy, model, tap=tap, **compiled_parts(model, tap, compiled)
                )
                for step in (0, 1):
                    mixed_loss(
                        learner, strategy, images, labels, step=step, **shape
                    ).loss.backward()
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
    step = timed_step(recipe, device)
    with contextlib.ExitStack() as stack:
        strategies = {strategy_spec(s): s for s in map(create_strategy, specs)}
        for learner in speed_learners(strategies, recipe, device, stack).values():
            for number in range(
                8
            ):  # every number of blocks is drawn, networks are built and kernels compiled here
                step(learner, number)
            torch.cuda.set_sync_debug_mode("error")
            try:
                step(learner, 0)
            finally:
                torch.cuda.set_sync_debug_mode("default")
