"""The pages' Python runs as it stands, with tiny models on made data; the recipes that go with them."""

import dataclasses
import itertools
import re

import pytest
import torch

from mixbench import create_strategy
from mixbench.recipe import load_recipe
from tests.support.pages import ROOT, run, sections

MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def tiny_model(**kwargs):
    import timm

    torch.manual_seed(0)
    shape = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **shape, **kwargs)


def batch(count: int = 6):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 32, 32, generator=rng), torch.randint(3, (count,), generator=rng)


# docs/other-loops.md


@pytest.fixture
def loops(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    pages = sections("other-loops.md")
    images, labels = batch(8)
    loader = torch.utils.data.DataLoader(
        torch.utils.data.TensorDataset(images, labels), batch_size=4
    )
    names = {
        "__name__": "docs",
        "model": tiny_model(),
        "num_classes": 3,
        "train_loader": loader,
        "val_loader": loader,
    }
    return pages, run(names, *pages[""])


@pytest.mark.parametrize(
    "spec", ["none", "mixup", "transmix", "alternate(first=transmix, switch_prob=0.7)"]
)
def test_other_loops_train_as_the_benchmark(loops, spec):
    from mixbench.training.learner import prepare
    from mixbench.training.objective import mixed_loss

    recipe = dataclasses.replace(
        load_recipe("quick"),
        compose="only",
        mix_prob=1.0,
        embed_dim=24,
        depth=2,
        num_heads=2,
        smoothing=0.1,
    )
    [learner] = prepare([create_strategy(spec)], recipe, 3, 0, torch.device("cpu"), 1)
    images, labels = batch()
    mean, std = (torch.tensor(v).reshape(3, 1, 1) for v in (MEAN, STD))
    for step in range(4):
        ours, _ = loops[1]["mixed_loss"](
            learner.strategy,
            learner.model,
            learner.model,
            images,
            labels,
            3,
            seed=5,
            step=step,
            shard=2,
        )
        if learner.tap:
            learner.tap.__enter__()
        theirs = mixed_loss(
            learner,
            learner.strategy,
            images,
            labels,
            num_classes=3,
            smoothing=0.1,
            amp=False,
            seed=5,
            step=step,
            shard=2,
            mean=mean,
            std=std,
        ).loss
        if learner.tap:
            learner.tap.__exit__(None, None, None)
        torch.testing.assert_close(ours, theirs)


def test_clean_loss(loops):
    """A strategy that mixes nothing and asks for the clean loss with weight 1 has twice the loss."""
    from mixbench.strategies.none import NoMix

    class Clean(NoMix):
        clean_weight = 1.0

    model, (images, labels) = loops[1]["model"].eval(), batch()
    once, twice = (
        loops[1]["mixed_loss"](kind(), model, model, images, labels, 3, step=0)[0]
        for kind in (NoMix, Clean)
    )
    torch.testing.assert_close(2 * once, twice)


def test_timm_task(loops):
    pytest.importorskip("timm.task")
    pages, names = loops
    run(names, *pages["timm's train.py"])
    model, strategy, (images, labels) = names["model"], create_strategy("transmix"), batch()
    task = names["MixedTask"](
        model=model, strategy=strategy, num_classes=3, smoothing=0.2, rank=1, seed=4, verbose=False
    )
    for step in range(2):
        result = task(images, labels)
        expected, _ = names["mixed_loss"](
            strategy, model, model, images, labels, 3, step=step, seed=4, shard=1, smoothing=0.2
        )
        torch.testing.assert_close(result["loss"], expected)
        assert result["output"].shape == (6, 3)
    result["loss"].backward()
    assert model.head.weight.grad.abs().sum() > 0


def watched(names: dict) -> list[tuple[int, int]]:
    """The (step, shard) of each call of mixed_loss from now on."""
    calls, inner = [], names["mixed_loss"]

    def record(*args, **kwargs):
        calls.append((kwargs["step"], kwargs["shard"]))
        return inner(*args, **kwargs)

    names["mixed_loss"] = record
    return calls


def test_lightning_module(loops):
    pytest.importorskip("lightning")
    pages, names = loops
    calls = watched(names)
    before = names["model"].head.weight.clone()
    run(names, *pages["A Lightning module"])
    assert (
        calls == [(0, 0), (1, 0)]
        and names["trainer"].global_step == 2
        and not names["model"].head.weight.equal(before)
    )
    assert {"train_loss", "top1"} <= set(names["trainer"].callback_metrics)


def test_hugging_face_trainer(loops):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    pages, names = loops
    images, labels = batch(8)
    shape = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    config = transformers.TimmWrapperConfig(
        architecture="vit_tiny_patch16_224", num_labels=3, model_args=shape
    )
    vit = transformers.ViTConfig(
        image_size=32,
        patch_size=8,
        hidden_size=24,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=48,
        num_labels=3,
        attn_implementation="eager",
    )
    names |= {
        "hf_model": transformers.TimmWrapperForImageClassification(config),
        "hf_vit": transformers.ViTForImageClassification(vit),
        "train_dataset": [
            {"pixel_values": image, "labels": label}
            for image, label in zip(images, labels, strict=True)
        ],
        "images": images,
        "labels": labels,
    }
    before = names["hf_model"].timm_model.head.weight.clone()
    calls = watched(names)
    run(names, *pages["A Hugging Face Trainer"])
    assert calls == [(0, 0), (1, 0)]
    assert not names["hf_model"].timm_model.head.weight.cpu().equal(before)
    assert names["attn"].shape == (8, 16) and names["loss"].isfinite()
    names["loss"].backward()
    assert names["hf_vit"].classifier.weight.grad.abs().sum() > 0


# docs/reading-the-report.md


def table(page: str, header: str) -> list[list[str]]:
    """The cells of the table that begins with this header cell."""
    lines = (
        (ROOT / "docs" / page)
        .read_text(encoding="utf-8")
        .partition(f"| {header} |")[2]
        .partition("\n\n")[0]
        .splitlines()[2:]
    )
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


def test_every_column_is_explained():
    from mixbench.runs.rows import COLUMNS

    explained = [
        name
        for row in table("reading-the-report.md", "column")
        for name in re.findall(r"`(\w+)`", row[0])
    ]
    assert len(explained) == len(set(explained)) and set(COLUMNS) <= set(explained)


def test_smallest_p_by_counting_signs():
    for seeds, smallest, claim in table("reading-the-report.md", "seeds"):
        means = [abs(sum(signs)) for signs in itertools.product((-1, 1), repeat=int(seeds))]
        p = sum(mean == int(seeds) for mean in means) / len(means)
        assert float(smallest) == p
        strategies = int(0.05 / p)
        words = {0: "never", 1: "of one strategy to the baseline"}
        assert claim == words.get(strategies, f"of up to {strategies} strategies")


def test_binomial_errors():
    from scipy import stats

    for row in table("reading-the-report.md", "validation images"):
        count = int(row[0].split()[0])
        assert row[1:] == [
            f"{100 * stats.binom.std(count, p) / count:.2f}" for p in (0.5, 0.8, 0.9)
        ]


# configs


@pytest.mark.parametrize(
    ("name", "grid"), [("deit_small_imagenette", (10, 10)), ("deit_small_cifar100", (8, 8))]
)
def test_recipes(name, grid):
    """Every field is one of the recipe's own, the model takes them, and the rate is DeiT's by the batch."""
    from mixbench.services.attention import ClassAttention
    from mixbench.training.optim import recipe_model

    recipe = load_recipe(name)
    assert recipe.lr == 5e-4 * recipe.batch_size / 512
    model = recipe_model(dataclasses.replace(recipe, depth=1), 10, 0)
    with ClassAttention(model) as tap:
        attn = tap(torch.zeros(2, 3, recipe.image_size, recipe.image_size)).attn
    assert attn.shape == (2, *grid)
