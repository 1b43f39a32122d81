"""tlalign, mixpro and regmixup against hand-worked cases and their literal forms."""

import dataclasses
import math

import numpy as np
import pytest
import torch
from timm import create_model

from baselines.reference import mixpro, tlalign
from mixbench import MixedBatch, ModelOutput, attention_tap, create_strategy, make_context
from mixbench.loops import mixed_loss
from mixbench.published import own_publication, published_table
from mixbench.registry import BUILTIN
from mixbench.strategies.mixpro import MixPro
from mixbench.strategies.tlalign import TLAlign
from mixbench.testing import MEAN, STD, check_strategy

RULES = ["tlalign", "mixpro"]
BASES = ["cutmix", "cutmix(per_sample=True)", "saliencymix", "puzzlemix", "mixup", "alternate"]


def mixed_with(mask, labels=(0, 1)):
    """A batch of as many images as labels, each the mirror's partner, under one mask (H, W)."""
    labels = torch.tensor(labels)
    mask = torch.as_tensor(mask, dtype=torch.float32)[None, None]
    partner = torch.arange(len(labels)).flip(0)
    images = torch.zeros(len(labels), 3, *mask.shape[-2:])
    return MixedBatch(images=images, labels=labels, partner=partner, mask=mask)


def mix(spec, images, step=0):
    strategy = create_strategy(spec)
    model = torch.nn.Sequential(torch.nn.Flatten(), torch.nn.LazyLinear(9))
    model(images.float())
    amp = images.dtype == torch.bfloat16
    ctx = make_context(strategy, model, images, seed=0, step=step, mean=MEAN, std=STD, amp=amp)
    return strategy.mix(images, torch.arange(len(images)) % 4, ctx)


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("base", BASES)
def test_rules_over_any_base_pass_the_kit(rule, base):
    check_strategy(create_strategy(f"{rule}(base={base})"))


@pytest.mark.parametrize("wrapper", ["{}", "transmix(base={})", "alternate(first={})"])
@pytest.mark.parametrize("spec", ["regmixup", *RULES])
def test_all_pass_the_kit_inside_others(spec, wrapper):
    if (spec, wrapper) == ("tlalign", "transmix(base={})"):
        wrapper = "transmix(base={}, attention=rollout)"
    check_strategy(create_strategy(wrapper.format(spec)))


@pytest.mark.parametrize("rule", RULES)
@pytest.mark.parametrize("base", BASES)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_pixels_are_the_bases(rule, base, dtype):
    generator = torch.Generator().manual_seed(0)
    images = torch.randn(5, 3, 32, 48, generator=generator).to(dtype)
    for step in range(2):
        with torch.random.fork_rng():
            torch.manual_seed(0)
            relabelled = mix(f"{rule}(base={base})", images, step)
            torch.manual_seed(0)
            plain = mix(base, images, step)
        for field in ("images", "mask", "partner"):
            assert torch.equal(getattr(relabelled, field), getattr(plain, field))


def test_tlalign_by_hand():
    blocks = [
        np.array([[0.2, 0.5, 0.3], [0.1, 0.6, 0.3], [0.4, 0.2, 0.4]]),
        np.array([[0.4, 0.4, 0.2], [0.2, 0.2, 0.6], [0.3, 0.3, 0.4]]),
    ]
    mixed = mixed_with([[1.0, 0.0]], labels=[0])  # the area is .5, the patches are A's and B's
    row = torch.tensor([[[0.345, 0.205]]])
    lam = TLAlign().relabel(mixed, ModelOutput(torch.zeros(1, 2), row))
    assert float(lam) == pytest.approx(0.57, abs=1e-6)
    product = ((blocks[1] + np.eye(3)) / 2 @ (blocks[0] + np.eye(3)) / 2)[0]
    assert product == pytest.approx([0.45, 0.345, 0.205])
    assert tlalign.lam(np.array([[1.0, 0.0]]), blocks, (1, 2)) == pytest.approx(0.57)


def attention_of(model, images):
    """Every block's attention with heads averaged, (B, N, N), by a plain softmax(q k^T)."""
    blocks = []

    def see(module, inputs):
        [tokens] = inputs
        batch, count, width = tokens.shape
        q, k, _ = module.qkv(tokens).reshape(batch, count, 3, module.num_heads, -1).unbind(2)
        scores = torch.einsum("bmhd,bnhd->bhmn", q, k) * (width // module.num_heads) ** -0.5
        blocks.append(scores.softmax(-1).mean(1))

    handles = [block.attn.register_forward_pre_hook(see) for block in model.blocks]
    with torch.no_grad():
        model(images)
    for handle in handles:
        handle.remove()
    return [attention.double().numpy() for attention in blocks]


@pytest.mark.parametrize("name", ["vit_tiny_patch16_224", "deit_tiny_distilled_patch16_224"])
def test_tlalign_is_the_label_carried_through_every_block_of_a_vit(name):
    torch.manual_seed(0)
    fields = {"img_size": (32, 48), "patch_size": 8, "embed_dim": 24, "num_heads": 3, "depth": 3}
    model = create_model(name, num_classes=4, **fields).eval()
    for block in model.blocks:  # attention that is far from uniform
        torch.nn.init.normal_(block.attn.qkv.weight, std=0.5)
    mixed = mix("tlalign(base=cutmix(per_sample=True))", torch.randn(5, 3, 32, 48))
    with attention_tap(model, "rollout") as tap, torch.no_grad():
        lam = TLAlign().relabel(mixed, tap(mixed.images))
    blocks, prefix = attention_of(model, mixed.images), model.num_prefix_tokens
    masks = mixed.mask[:, 0].double().numpy()
    expected = [
        tlalign.lam(masks[row], [block[row] for block in blocks], (4, 6), prefix)
        for row in range(5)
    ]
    np.testing.assert_allclose(lam, expected, atol=1e-6)
    assert not np.allclose(lam, mixed.lam, atol=1e-3)


def test_mixpro_by_hand():
    """The area is 5 / 16 and the attention lies to .6 on A, the upper left patch."""
    mask = torch.zeros(16, 16)
    mask[:8, :10] = 1  # of the four patches the upper two are A's
    attn = torch.tensor([[0.35, 0.25], [0.1, 0.3]]).expand(2, 2, 2)
    logits = torch.tensor([[2.0, 1, 0], [2, 1, 0]])
    mixed = mixed_with(mask, labels=[0, 1])
    assert float(mixed.lam[0]) == 0.3125
    lam = MixPro().relabel(mixed, ModelOutput(logits, attn))
    assert float(lam[0]) == pytest.approx(0.512907, abs=1e-6)


def test_mixpro_is_its_literal_form():
    generator = torch.Generator().manual_seed(1)
    images = torch.randn(5, 3, 32, 48, generator=generator)
    for base in ("cutmix(per_sample=True)", "saliencymix"):
        mixed = mix(f"mixpro(base={base})", images)
        attn = torch.rand(5, 4, 6, generator=generator)
        logits = 3 * torch.randn(5, 10, generator=generator)
        output = ModelOutput(logits.requires_grad_(), attn)
        lam = MixPro().relabel(mixed, output)
        expected = [
            mixpro.lam(
                mixed.mask[row, 0].double().numpy(),
                attn[row].double().numpy(),
                logits[row].detach().double().numpy(),
                (int(mixed.labels[row]), int(mixed.labels[4 - row])),
            )
            for row in range(5)
        ]
        np.testing.assert_allclose(lam, expected, atol=1e-6)
        assert not lam.requires_grad


@pytest.mark.parametrize("rule", RULES)
def test_the_area_stays_where_attention_says_nothing(rule):
    strategy, half = create_strategy(rule), torch.ones(8, 8)
    half[:, :4] = 0
    attn, logits = torch.rand(2, 2, 2), torch.randn(2, 3)
    for mask in (torch.full((1, 1), 0.3), torch.full((8, 8), 0.3), torch.ones(8, 8)):
        mixed = mixed_with(mask)
        assert torch.equal(strategy.relabel(mixed, ModelOutput(logits, attn)), mixed.lam)
    mixed = mixed_with(half)
    for broken in (attn * math.nan, attn * math.inf):
        assert torch.equal(strategy.relabel(mixed, ModelOutput(logits, broken)), mixed.lam)
    if rule == "mixpro":
        for output in (ModelOutput(logits * math.nan, attn), ModelOutput(logits, attn * 0)):
            assert torch.equal(strategy.relabel(mixed, output), mixed.lam)


def test_attention_on_the_class_token_alone_is_the_area_to_tlalign():
    half = torch.ones(8, 8)
    half[:, :6] = 0
    mixed = mixed_with(half)
    lam = TLAlign().relabel(mixed, ModelOutput(torch.zeros(2, 3), torch.zeros(2, 2, 2)))
    assert torch.equal(lam, mixed.lam)


class Undecided(torch.nn.Module):
    """Equal logits of five classes."""

    def __init__(self):
        super().__init__()
        self.zero = torch.nn.Parameter(torch.zeros(5))

    def forward(self, images):
        return self.zero.expand(len(images), 5)


def test_regmixup_is_the_sum_of_both_losses():
    images, labels = torch.randn(4, 3, 8, 8), torch.arange(4)
    settings = {"num_classes": 5, "step": 0, "mean": MEAN, "std": STD}
    loss = mixed_loss(create_strategy("regmixup"), Undecided(), images, labels, **settings)
    assert float(loss.detach()) == pytest.approx(2 * math.log(5), abs=1e-6)


def test_regmixup_is_mixup_with_the_clean_batch():
    images = torch.randn(5, 3, 8, 8)
    plain, beside = mix("mixup(alpha=20.0)", images), mix("regmixup(alpha=20.0)", images)
    assert torch.equal(plain.images, beside.images) and torch.equal(plain.mask, beside.mask)
    lams = [float(mix("regmixup", images, step).lam[0]) for step in range(200)]
    assert np.std(lams) == pytest.approx(math.sqrt(1 / 84), rel=0.2)  # Beta(10, 10)'s


@pytest.mark.parametrize(
    "spec",
    ["tlalign(base=transmix)", "mixpro(base=tlalign)", "mixpro(base=transmix, attention=3)"],
)
def test_two_attentions_are_refused_when_it_is_named(spec):
    with pytest.raises(ValueError, match="two kinds of attention"):
        create_strategy(spec)


@pytest.mark.parametrize("rule", RULES)
def test_a_forward_without_attention_is_explained(rule):
    mixed = mixed_with(torch.ones(8, 8))
    with pytest.raises(ValueError, match=f"{rule} needs ModelOutput.attn: run the model inside"):
        create_strategy(rule).relabel(mixed, ModelOutput(torch.zeros(2, 3)))


@pytest.mark.parametrize("rule", RULES)
def test_labels_beside_puzzlemix_keep_its_clean_loss_and_its_move(rule):
    strategy = create_strategy(f"{rule}(base=puzzlemix(clean_lam=0.5))")
    assert (strategy.clean_weight, strategy.moves_pixels) == (0.5, True)
    assert (
        strategy.needs.input_gradient
        and not dataclasses.replace(strategy, base=create_strategy("cutmix")).moves_pixels
    )


def test_a_published_figure_stands_beside_the_reason_why_it_is_not_comparable():
    rows = published_table("deit_small_by_method")
    assert {row["strategy"] for row in rows} <= {*BUILTIN, ""}
    assert all(row["not_comparable"] and not row["top1"].strip("0123456789.") for row in rows)
    table8 = {"none", "mixup", "alternate", "saliencymix", "attentivecutmix", "puzzlemix"}
    assert {*BUILTIN} - {row["strategy"] for row in rows} == table8
    assert own_publication("smmix") == ("81.1", rows[7]["not_comparable"])
    assert own_publication("gridmix") == (None, "none found for DeiT-S")
    assert own_publication("smmix(low=4)") is None is own_publication("mixup")
