"""The pages' Python runs as it stands, with tiny models on made data; the second example plug-in and the recipes that go with them."""

import dataclasses
import itertools
import re
import runpy
from pathlib import Path

import numpy as np
import pytest
import torch

from mixbench import MixedBatch, create_strategy
from mixbench import registry as registered
from mixbench.mix import MixContext, step_rng
from mixbench.recipe import load_recipe
from mixbench.testing import check_strategy

ROOT = Path(__file__).parents[2]
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def sections(page: str) -> dict[str, list[str]]:
    """The Python blocks of a page by the heading they stand under; '' before the first."""
    blocks: dict[str, list[str]] = {}
    for part in re.split(
        r"^## ", "\n" + (ROOT / "docs" / page).read_text(encoding="utf-8"), flags=re.M
    ):
        heading = part.partition("\n")[0]
        blocks[heading if blocks else ""] = re.findall(r"^```python\n(.*?)^```", part, re.M | re.S)
    return blocks


def run(names: dict, *blocks: str) -> dict:
    for block in blocks:
        exec(compile(block, "docs", "exec"), names)
    return names


def tiny_model(**kwargs):
    import timm

    torch.manual_seed(0)
    shape = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
    return timm.create_model("vit_tiny_patch16_224", num_classes=3, **shape, **kwargs)


def batch(count: int = 6):
    rng = torch.Generator().manual_seed(1)
    return torch.randn(count, 3, 32, 32, generator=rng), torch.randint(3, (count,), generator=rng)


@pytest.fixture
def unregistered(monkeypatch):
    """The registry as it was, after the test."""
    monkeypatch.setattr(registered, "_registered", dict(registered._registered))


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


# docs/adding-a-strategy.md and examples/resizemix.py


def test_adding_a_strategy(unregistered):
    registered._registered.pop("halves", None)
    names: dict = {"__name__": "docs"}
    [halves] = sections("adding-a-strategy.md")["The smallest one"]
    assert (ROOT / "examples" / "halves.py").read_text(encoding="utf-8").endswith(halves)
    for blocks in sections("adding-a-strategy.md").values():
        run(names, *blocks)
    for name, test in list(names.items()):
        if name.startswith("test_"):
            test()


def test_gradient_labels(unregistered):
    """Labels by the gradient's share, worked by hand: A's box keeps 1 of its 4, and 3 x 2 of B's are seen."""
    names = run({"__name__": "docs"}, *sections("adding-a-strategy.md")["Services"])
    mask = torch.tensor([[1.0, 0.0], [0.0, 0.0]])[None, None]
    saliency = torch.stack([torch.full((2, 2), 1.0), torch.full((2, 2), 2.0)])
    mixed = MixedBatch(
        images=torch.zeros(2, 3, 2, 2),
        labels=torch.tensor([0, 1]),
        partner=torch.tensor([1, 0]),
        mask=mask,
        memo=saliency,
    )
    strategy = names["GradientLabels"]()
    torch.testing.assert_close(strategy.relabel(mixed, None), torch.tensor([1 / 7, 2 / 5]))
    blank = dataclasses.replace(mixed, memo=torch.zeros(2, 2, 2))
    torch.testing.assert_close(strategy.relabel(blank, None), torch.tensor([0.25, 0.25]))


@pytest.fixture
def resizemix(unregistered):
    """The names in examples/resizemix.py, its strategy registered for the test."""
    registered._registered.pop("resizemix", None)
    return runpy.run_path(str(ROOT / "examples" / "resizemix.py"))


def test_resizemix_passes_the_kit(resizemix):
    check_strategy(create_strategy("resizemix"), moves_pixels=True)
    check_strategy(create_strategy("transmix(base=resizemix)"), moves_pixels=True)


def test_resizemix_by_hand(resizemix):
    """Halving a, b, c, d with the antialiased triangle: weights 3, 3, 1 around the first output pixel, 1, 3, 3 around the second."""
    rows = torch.tensor([7.0, 14.0, 21.0, 35.0])
    images = torch.stack([torch.zeros(1, 4, 4), rows.expand(1, 4, 4)])
    first, second = (3 * 7 + 3 * 14 + 21) / 7, (14 + 3 * 21 + 3 * 35) / 7
    expected = torch.zeros(4, 4)
    expected[1:3, 2:4] = torch.tensor([first, second])
    mixed = resizemix["paste_resized"](images, (1, 2, 3, 4))
    torch.testing.assert_close(mixed[0, 0], expected)
    expected = rows.expand(4, 4).clone()
    expected[1:3, 2:4] = 0
    torch.testing.assert_close(mixed[1, 0], expected)


def test_resizemix_is_pillows_resize(resizemix):
    from PIL import Image

    images = torch.randn(2, 1, 21, 33, generator=torch.Generator().manual_seed(0))
    top, left, bottom, right = box = 3, 4, 12, 17
    small = Image.fromarray(images[1, 0].numpy()).resize(
        (right - left, bottom - top), Image.Resampling.BILINEAR
    )
    expected = images[0, 0].clone()
    expected[top:bottom, left:right] = torch.from_numpy(np.array(small))
    torch.testing.assert_close(
        resizemix["paste_resized"](images, box)[0, 0], expected, rtol=1e-5, atol=1e-5
    )


def test_resizemix_draws(resizemix):
    """The side's share is uniform in [0.1, 0.8): its square has mean (0.8^3 - 0.1^3) / (3 * 0.7); the box lies inside, anywhere."""
    strategy, images = create_strategy("resizemix"), torch.zeros(2, 3, 100, 200)
    shares, tops, lefts = [], [], []
    for step in range(400):
        ctx = MixContext(rng=step_rng(0, step), mean=torch.zeros(3, 1, 1), std=torch.ones(3, 1, 1))
        inside = strategy.mix(images, torch.tensor([0, 1]), ctx).mask[0, 0] == 0
        rows, cols = inside.any(1).nonzero()[:, 0], inside.any(0).nonzero()[:, 0]
        assert (
            inside.sum() == len(rows) * len(cols)
            and 10 <= len(rows) <= 80
            and abs(2 * len(rows) - len(cols)) <= 1
        )
        shares.append(len(rows) * len(cols) / 20000)
        tops.append(int(rows[0]) / (100 - len(rows)))
        lefts.append(int(cols[0]) / (200 - len(cols)))
    assert abs(np.mean(shares) - (0.8**3 - 0.1**3) / 2.1) < 0.03  # four standard errors
    assert abs(np.mean(tops) - 0.5) < 0.06 and abs(np.mean(lefts) - 0.5) < 0.06
    assert min(tops) < 0.02 and max(tops) > 0.98


@pytest.mark.parametrize(
    "spec",
    [
        "resizemix(min_scale=0)",
        "resizemix(min_scale=0.5, max_scale=0.4)",
        "resizemix(max_scale=1.5)",
    ],
)
def test_resizemix_refuses(resizemix, spec):
    with pytest.raises(ValueError, match="resizemix needs 0 < min_scale"):
        create_strategy(spec)


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
