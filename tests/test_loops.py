"""A strategy in loops of others: the loss against one that is written out by hand."""

import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn

from mixbench import (
    ModelOutput,
    NoClassAttention,
    attention_tap,
    create_strategy,
    loops,
    make_context,
    soft_targets,
)
from mixbench.loops import MixedCriterion, mixed_loss
from mixbench.strategies.none import NoMix

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
SETTINGS = {"num_classes": 3, "mean": MEAN, "std": STD}
SHAPE = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)


def tiny(**changes):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", **{"num_classes": 3, **SHAPE, **changes})


def batch(count=6):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 32, 32, generator=rng), torch.randint(3, (count,), generator=rng)


def by_hand(strategy, model, images, labels, step, seed=0, shard=0, smoothing=0.0, loss="ce"):
    """The loss of a bare timm model, image by image."""
    ctx = make_context(
        strategy, model, images, seed=seed, step=step, shard=shard, mean=MEAN, std=STD
    )
    mixed = strategy.mix(images, labels, ctx)
    if strategy.needs.attention:
        with attention_tap(model, strategy.needs.attention) as tap:
            output = tap(mixed.images)
        lam, logits = strategy.relabel(mixed, output), output.logits
    else:
        logits, lam = model(mixed.images), mixed.lam
    losses = []
    for row, partner in enumerate(mixed.partner.tolist()):
        target = torch.full((3,), smoothing / 3)
        target[labels[row]] += (1 - smoothing) * lam[row]
        target[labels[partner]] += (1 - smoothing) * (1 - lam[row])
        if loss == "ce":
            losses.append(-(target * logits[row].log_softmax(0)).sum())
        else:
            share = logits[row].sigmoid()
            losses.append(-(target * share.log() + (1 - target) * (1 - share).log()).mean())
    return torch.stack(losses).mean()


STRATEGIES = ["none", "mixup", "cutmix", "puzzlemix", "transmix", "alternate(first=transmix)"]


@pytest.mark.parametrize("loss", ["ce", "bce"])
@pytest.mark.parametrize("spec", STRATEGIES)
def test_the_loss_is_that_of_the_hand(spec, loss):
    strategy, model = create_strategy(spec), tiny()
    for step in range(3):
        names = {"step": step, "seed": 4, "shard": 2, "smoothing": 0.2, "loss": loss}
        ours = mixed_loss(strategy, model, *batch(), **names, **SETTINGS)
        expected = by_hand(strategy, model, *batch(), **names)
        torch.testing.assert_close(ours, expected, atol=1e-6, rtol=0)
    ours.backward()
    assert all(p.grad is not None and p.grad.isfinite().all() for p in model.parameters())
    assert model.patch_embed.proj.weight.grad.abs().sum() > 0


@pytest.mark.parametrize("smoothing", [0.0, 0.1])
@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_the_loss_is_timms_own(loss, smoothing):
    from timm.loss import BinaryCrossEntropy, LabelSmoothingCrossEntropy

    theirs = {"ce": LabelSmoothingCrossEntropy, "bce": BinaryCrossEntropy}[loss](smoothing)
    model, (images, labels) = tiny(), batch()
    ours = mixed_loss(
        NoMix(), model, images, labels, step=0, smoothing=smoothing, loss=loss, **SETTINGS
    )
    torch.testing.assert_close(ours, theirs(model(images), labels))


@pytest.mark.parametrize("loss", ["ce", "bce"])
def test_clean_loss(loss):
    """Without mixing, a clean loss of weight 1 doubles the loss."""

    class Clean(NoMix):
        clean_weight = 1.0

    once, twice = (
        mixed_loss(kind(), tiny(), *batch(), step=0, smoothing=0.1, loss=loss, **SETTINGS)
        for kind in (NoMix, Clean)
    )
    torch.testing.assert_close(2 * once, twice)


def test_progress_reaches_the_strategy():
    seen = []

    class Curious(NoMix):
        def mix(self, images, labels, ctx):
            seen.append(ctx.progress)
            return super().mix(images, labels, ctx)

    mixed_loss(Curious(), tiny(), *batch(), step=0, progress=0.25, **SETTINGS)
    MixedCriterion(Curious(), **SETTINGS)(tiny(), *batch(), progress=0.75)
    assert seen == [0.25, 0.75]


# Models in other models


class Holder(nn.Module):
    """A model of one's own around a timm ViT, which it runs on flipped logits."""

    def __init__(self, model):
        super().__init__()
        self.backbone = model

    def forward(self, images):
        return self.backbone(images).flip(1)


class Output:
    def __init__(self, logits):
        self.logits = logits


class WithOutput(Holder):
    def forward(self, images):
        return Output(self.backbone(images))


@pytest.fixture
def one_process(tmp_path):
    dist.init_process_group(
        "gloo", store=dist.FileStore(str(tmp_path / "s"), 1), rank=0, world_size=1
    )
    yield
    dist.destroy_process_group()


def timm_wrapper(model):
    transformers = pytest.importorskip("transformers")
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", num_labels=3, model_args=SHAPE
    )
    wrapper = transformers.TimmWrapperForImageClassification(config)
    wrapper.timm_model.load_state_dict(model.state_dict())
    return wrapper


def compiled(model, **options):
    torch._dynamo.reset()
    return torch.compile(model, backend="eager", **options)


def compiled_in_place(model):
    torch._dynamo.reset()
    model.compile(backend="eager")
    return model


WRAPPERS = {
    "DDP": nn.parallel.DistributedDataParallel,
    "DataParallel": nn.DataParallel,
    "compile": compiled,
    "compile fullgraph": lambda model: compiled(model, fullgraph=True),
    "compile in place": compiled_in_place,
    "DDP of compile": lambda model: nn.parallel.DistributedDataParallel(compiled(model)),
    "compile of DDP": lambda model: compiled(nn.parallel.DistributedDataParallel(model)),
    "output": WithOutput,
    "output of compile": lambda model: WithOutput(compiled(model)),
    "sequential": lambda model: nn.Sequential(nn.Identity(), nn.Sequential(model)),
    "TimmWrapper": timm_wrapper,
    "DDP of TimmWrapper": lambda m: nn.parallel.DistributedDataParallel(timm_wrapper(m)),
}


@pytest.mark.parametrize("spec", ["transmix", "transmix(attention=rollout)", "puzzlemix"])
@pytest.mark.parametrize("wrap", WRAPPERS)
def test_a_wrapped_model_trains_as_the_bare(wrap, spec, one_process):
    strategy, model = create_strategy(spec), tiny()
    wrapped = WRAPPERS[wrap](tiny())
    for step in range(3):
        loss = mixed_loss(strategy, wrapped, *batch(), step=step, **SETTINGS)
        expected = by_hand(strategy, model, *batch(), step=step)
        torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
        loss.backward()
        expected.backward()
    for ours, theirs in zip(wrapped.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours.grad, theirs.grad, atol=1e-6, rtol=1e-4)
    assert not any(m._forward_hooks or m._forward_pre_hooks for m in wrapped.modules())


def test_hugging_faces_vit():
    """The same weights as timm's give the same loss, on attention that no map is kept for."""
    transformers = pytest.importorskip("transformers")
    config = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=24,
        num_labels=3,
    )
    torch.manual_seed(0)
    model, (images, labels) = transformers.ViTForImageClassification(config), batch()
    strategy = create_strategy("transmix(attention_weight=1.0)")
    loss = mixed_loss(strategy, model, images, labels, step=3, **SETTINGS)
    ctx = make_context(strategy, model, images, seed=0, step=3, mean=MEAN, std=STD)
    mixed = strategy.mix(images, labels, ctx)
    model.set_attn_implementation("eager")
    output = model(pixel_values=mixed.images, output_attentions=True)
    attn = output.attentions[-1][:, :, 0, 1:].mean(1).unflatten(1, (4, 4)).detach()
    lam = strategy.relabel(mixed, ModelOutput(output.logits, attn))
    expected = nn.functional.cross_entropy(output.logits, soft_targets(mixed, lam, 3))
    torch.testing.assert_close(loss, expected, atol=1e-6, rtol=0)
    assert not lam.allclose(mixed.lam)
    mixed_loss(create_strategy("puzzlemix"), model, *batch(), step=0, **SETTINGS).backward()


def test_a_provider_sees_the_images_that_a_wrapped_model_sees(tmp_path):
    torch.manual_seed(1)
    provider = timm.create_model("vit_tiny_patch16_224", num_classes=0, **SHAPE)
    torch.save(
        {"arch": "vit_tiny_patch16_224", "model_args": SHAPE, "state_dict": provider.state_dict()},
        tmp_path / "provider.pth",
    )
    strategy = create_strategy(f"transmix(attention='{tmp_path / 'provider.pth'}')")
    loss = mixed_loss(strategy, Holder(tiny()), *batch(), step=1, **SETTINGS)
    bare = tiny()
    bare.head.weight.data, bare.head.bias.data = bare.head.weight.flip(0), bare.head.bias.flip(0)
    torch.testing.assert_close(loss, by_hand(strategy, bare, *batch(), step=1))


@pytest.mark.parametrize("spec", ["cutmix", "transmix", "puzzlemix"])
def test_autocast(spec):
    strategy, model = create_strategy(spec), tiny()
    with torch.autocast("cpu", torch.bfloat16):
        loss = mixed_loss(strategy, model, *batch(), step=0, loss="bce", **SETTINGS)
    exact = mixed_loss(strategy, model, *batch(), step=0, loss="bce", **SETTINGS)
    assert loss.dtype == torch.float32 and loss != exact
    torch.testing.assert_close(loss, exact, atol=0.02, rtol=0)
    loss.backward()


def test_the_input_gradient_is_taken_in_the_precision_of_the_loop():
    dtypes = []
    model = tiny()
    model.head.register_forward_hook(lambda m, i, output: dtypes.append(output.dtype))
    with torch.autocast("cpu", torch.bfloat16):
        mixed_loss(create_strategy("puzzlemix"), model, *batch(), step=0, **SETTINGS)
    assert dtypes == [torch.bfloat16, torch.bfloat16]


# What is refused


class Parts(Holder):
    """Runs its batch in two parts, as DataParallel on two devices does."""

    def forward(self, images):
        return torch.cat([self.backbone(part) for part in images.chunk(2)])


class Twins(Holder):
    def __init__(self, model):
        super().__init__(model)
        self.teacher = tiny()


class Returning(nn.Module):
    def __init__(self, output):
        super().__init__()
        self.output, self.scale = output, nn.Parameter(torch.ones(()))

    def forward(self, images):
        return self.output


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (lambda: Parts(tiny()), "of 3 images was seen in a batch of 6.*use DistributedData"),
        (lambda: Twins(tiny()), r"several models with class attention \(backbone, teacher\)"),
        (lambda: Holder(timm.create_model("resnet10t", num_classes=3)), "has no class token"),
        (lambda: tiny(num_classes=5), r"must give logits of shape \(6, 3\), not \(6, 5\)"),
    ],
)
def test_models_that_do_not_fit(model, message):
    with pytest.raises(ValueError, match=message):
        mixed_loss(create_strategy("transmix"), model(), *batch(), step=0, **SETTINGS)


@pytest.mark.parametrize(
    ("output", "name"),
    [((torch.zeros(6, 3),) * 2, "tuple"), ({"logits": torch.zeros(6, 3)}, "dict"), (None, "None")],
)
def test_an_output_without_logits_is_refused(output, name):
    with pytest.raises(ValueError, match=rf"Returning must give logits \(B, K\).* not {name}"):
        mixed_loss(NoMix(), Returning(output), *batch(), step=0, **SETTINGS)


ONE_HOT = torch.eye(3)[torch.tensor([0, 1, 2, 0, 1, 2])]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (ONE_HOT, r"torch.float32 of shape \(6, 3\): turn the loop's own mixing"),
        (ONE_HOT.long(), r"torch.int64 of shape \(6, 3\): turn the loop's own mixing"),
        (torch.zeros(6), r"torch.float32 of shape \(6,\)"),
        ((torch.zeros(6), torch.zeros(6), 0.3), "not tuple: turn"),
        (torch.zeros(5, dtype=torch.int64), "6 images came with 5 labels"),
        (torch.arange(6) - 1, "from 0 to 2 with num_classes=3, and these are from -1 to 4"),
    ],
)
def test_labels_that_are_not_class_numbers(labels, message):
    with pytest.raises(ValueError, match=message) as error:
        mixed_loss(NoMix(), tiny(), batch()[0], labels, step=0, **SETTINGS)
    assert len(str(error.value)) < 500


@pytest.mark.parametrize(
    ("strategy", "loss", "message"),
    [
        ("transmix", "ce", r"not 'transmix': make it by create_strategy"),
        (NoMix(), "bse", "loss must be 'ce' or 'bce', not 'bse'"),
    ],
)
def test_settings_that_do_not_fit(strategy, loss, message):
    with pytest.raises(ValueError, match=message):
        mixed_loss(strategy, tiny(), *batch(), step=0, loss=loss, **SETTINGS)
    with pytest.raises(ValueError, match=message):
        MixedCriterion(strategy, loss=loss, **SETTINGS)


def test_a_graph_without_the_tap_is_told_and_the_way_out_works():
    strategy, model = create_strategy("transmix"), compiled(tiny())
    model(batch()[0])
    with pytest.raises(NoClassAttention, match="skip_nnmodule_hook_guards = False"):
        mixed_loss(strategy, model, *batch(), step=0, **SETTINGS)
    with torch._dynamo.config.patch(skip_nnmodule_hook_guards=False):
        model = compiled(tiny())
        model(batch()[0])
        loss = mixed_loss(strategy, model, *batch(), step=0, **SETTINGS)
    torch.testing.assert_close(loss, by_hand(strategy, tiny(), *batch(), step=0))


# The count


@pytest.fixture
def draws(monkeypatch):
    """The (step, shard) of each call of mixed_loss from now on."""
    calls, inner = [], loops.mixed_loss

    def record(*args, **kwargs):
        calls.append((kwargs["step"], kwargs["shard"]))
        return inner(*args, **kwargs)

    monkeypatch.setattr(loops, "mixed_loss", record)
    return calls


def criterion(spec="cutmix", **changes):
    return MixedCriterion(create_strategy(spec), **SETTINGS, **changes)


def test_a_criterion_counts_its_calls_and_goes_on_after_loading(draws):
    model, first, second = tiny(), criterion(seed=3), criterion(seed=3)
    for _ in range(2):
        first(model, *batch())
    second.load_state_dict(first.state_dict())
    assert torch.equal(first(model, *batch()), second(model, *batch()))
    assert draws == [(0, 0), (1, 0), (2, 0), (2, 0)]


def test_calls_of_the_same_step_are_micro_batches(draws):
    loss = criterion()
    for step in (7, 7, 7, 8, 8):
        loss(tiny(), *batch(), step=step)
    assert draws == [(7, 0), (7, 1), (7, 2), (8, 0), (8, 1)]


def test_processes_draw_differently(draws, monkeypatch):
    monkeypatch.setattr(dist, "is_initialized", lambda: True)
    monkeypatch.setattr(dist, "get_rank", lambda: 2)
    monkeypatch.setattr(dist, "get_world_size", lambda: 4)
    loss = criterion()
    for step in (0, 0, 1):
        loss(tiny(), *batch(), step=step)
    assert draws == [(0, 2), (0, 6), (1, 2)]


def test_a_criterion_is_mixed_loss():
    strategy = create_strategy("transmix")
    ours = criterion("transmix", seed=9, smoothing=0.3, loss="bce")(tiny(), *batch(), step=5)
    names = {"step": 5, "seed": 9, "smoothing": 0.3, "loss": "bce"}
    assert torch.equal(ours, mixed_loss(strategy, tiny(), *batch(), **names, **SETTINGS))


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_puzzlemix_takes_its_gradient_under_either_autocast(dtype):
    """float16 is the usual one on a GPU; the gradient's own pass computes in bfloat16."""
    images, labels = batch()
    strategy, model = create_strategy("puzzlemix"), tiny()
    with torch.autocast("cpu", dtype):
        loss = mixed_loss(strategy, model, images, labels, step=0, **SETTINGS)
    exact = mixed_loss(strategy, model, images, labels, step=0, **SETTINGS)
    assert loss.isfinite() and loss.item() == pytest.approx(exact.item(), rel=0.1)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"std": (0.0, 1.0, 1.0)}, "std must be above 0 for each channel"),
        ({"smoothing": 1.5}, "smoothing must be 0 or more and below 1, not 1.5"),
        ({"smoothing": -0.1}, "below 1, not -0.1"),
    ],
)
def test_settings_that_make_no_loss_are_refused_at_once(changes, message):
    with pytest.raises(ValueError, match=message):
        MixedCriterion(NoMix(), **SETTINGS | changes)


def test_masks_of_another_shape_are_refused():
    images, labels = batch()
    common = dict(step=0, **SETTINGS)
    strategy = create_strategy("oacutmix")
    with pytest.raises(ValueError, match=r"objects must be masks \(6, 1, 32, 32\), not \(6, 32,"):
        mixed_loss(strategy, tiny(), images, labels, objects=torch.ones(6, 32, 32), **common)
    loss = mixed_loss(strategy, tiny(), images, labels, objects=torch.ones(6, 1, 32, 32), **common)
    assert loss.isfinite()
