"""A strategy in loops of others: the loss against one that is written out by hand."""


import pytest
import timm
import torch
import torch.distributed as dist
from torch import nn

from mixbench import attention_tap, create_strategy, make_context
from mixbench.loops import MixedCriterion, mixed_loss
from mixbench.strategies.none import NoMix

MEAN, STD = (0.5, 0.4, 0.3), (0.2, 0.3, 0.4)
SETTINGS = {"num_classes": 3, "mean": MEAN, "std": STD}
SHAPE = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)


def tiny(**changes):
    torch.manual_seed(0)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **{**SHAPE, **changes})


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
