"""The pages' Python runs as it stands, with tiny models on made data; their tables and recipes."""

import dataclasses
import itertools

import pytest
import torch

from mixbench import create_strategy
from mixbench.recipe import load_recipe
from mixbench.training.batches import Micro
from tests.support.pages import ROOT, run, sections


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
def test_other_loops_train_as_the_benchmark(loops, learner, spec):
    sizes = dict(embed_dim=24, depth=2, num_heads=2)
    ours = learner(
        spec, num_classes=3, seed=5, compose="only", mix_prob=1.0, smoothing=0.1, **sizes
    )
    mixed_loss, (images, labels) = loops[1]["mixed_loss"], batch()
    for step in range(4):
        theirs, _ = mixed_loss(
            ours.strategy,
            ours.model,
            ours.model,
            images,
            labels,
            3,
            seed=5,
            step=step,
            shard=2,
        )
        micro = Micro(images=images, labels=labels, step=step, shard=2)
        with ours.network:
            loss = ours.objective(ours.network, micro).loss
        torch.testing.assert_close(theirs, loss)


def test_clean_loss(loops):
    """Without mixing, a clean loss of weight 1 doubles the loss."""
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
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    lines = text.partition(f"| {header} |")[2].partition("\n\n")[0].splitlines()[2:]
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]


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
    """The recipe has these fields, the model takes them, and the rate is DeiT's by the batch."""
    from mixbench.models.build import recipe_model
    from mixbench.services.attention import ClassAttention

    recipe = load_recipe(name)
    assert recipe.lr == 5e-4 * recipe.batch_size / 512
    model = recipe_model(dataclasses.replace(recipe, depth=1), 10, 0)
    with ClassAttention(model) as tap:
        attn = tap(torch.zeros(2, 3, recipe.image_size, recipe.image_size)).attn
    assert attn.shape == (2, *grid)
