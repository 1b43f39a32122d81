"""The pages' Python runs as it stands, with tiny models on made data; their tables and recipes."""

import copy
import dataclasses
import itertools
import math

import pytest
import torch

from mixbench import attention_tap, make_context, soft_targets
from mixbench.loops import MixedCriterion, mixed_loss
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
def other_loops(monkeypatch, tmp_path):
    """The page's blocks, its names after the first one, and what the criterion says from then on.

    That is, for each call, the step, the micro-batch, and the loss.
    """
    monkeypatch.chdir(tmp_path)
    pages, calls, model = sections("other-loops.md"), [], tiny_model()
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch(8)), batch_size=4)
    names = {
        "__name__": "docs",
        "model": model,
        "num_classes": 3,
        "train_loader": loader,
        "val_loader": loader,
        "optimizer": torch.optim.SGD(model.parameters(), lr=0.1),
    }
    run(names, *pages[""])
    names["criterion"].register_forward_hook(
        lambda module, inputs, loss: calls.append((module._step, module._micro, loss.item()))
    )
    return pages, names, calls


def expected_loss(strategy, model, images, labels, step, shard=0) -> float:
    """The loss by the four calls of the interface and torch's own cross-entropy."""
    mean, std = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
    ctx = make_context(strategy, model, images, seed=0, step=step, shard=shard, mean=mean, std=std)
    mixed = strategy.mix(images, labels, ctx)
    with attention_tap(model, strategy.needs.attention) as tap, torch.no_grad():
        output = tap(mixed.images)
    targets = soft_targets(mixed, strategy.relabel(mixed, output), 3, 0.1)
    return torch.nn.functional.cross_entropy(output.logits, targets).item()


def test_a_loop_of_ones_own(other_loops):
    _, names, _ = other_loops
    images, labels = batch(8)
    model, strategy, before = names["model"], names["criterion"].strategy, tiny_model()
    assert names["criterion"]._step == 1 and not model.head.weight.equal(before.head.weight)
    last = copy.deepcopy(before)
    loss = expected_loss(strategy, before, images[:4], labels[:4], 0)
    optimizer = torch.optim.SGD(last.parameters(), lr=0.1)
    first = MixedCriterion(strategy, num_classes=3, mean=(0.5,) * 3, std=(0.5,) * 3, smoothing=0.1)(
        last, images[:4], labels[:4]
    )
    assert first.item() == pytest.approx(loss, abs=1e-6)
    first.backward()
    optimizer.step()
    loss = expected_loss(strategy, last, images[4:], labels[4:], 1)
    assert names["loss"].item() == pytest.approx(loss, abs=1e-6)


@pytest.mark.parametrize(
    "spec", ["none", "mixup", "transmix", "alternate(first=transmix, switch_prob=0.7)"]
)
def test_other_loops_train_as_the_benchmark(learner, spec):
    sizes = dict(embed_dim=24, depth=2, num_heads=2)
    ours = learner(
        spec, num_classes=3, seed=5, compose="only", mix_prob=1.0, smoothing=0.1, **sizes
    )
    images, labels = batch()
    normalisation = ours.objective.normalisation
    for step in range(4):
        theirs = mixed_loss(
            ours.strategy,
            ours.model,
            images,
            labels,
            num_classes=3,
            seed=5,
            step=step,
            shard=2,
            mean=normalisation.mean,
            std=normalisation.std,
            smoothing=0.1,
        )
        micro = Micro(images=images, labels=labels, step=step, shard=2)
        with ours.network:
            loss = ours.objective(ours.network, micro).loss
        torch.testing.assert_close(theirs, loss)


def test_timm_task(other_loops):
    pytest.importorskip("timm.task")
    pages, names, calls = other_loops
    run(names, *pages["timm's train.py"])
    model, criterion, (images, labels) = names["model"], names["criterion"], batch()
    task = names["MixedTask"](model=model, mixed=criterion, verbose=False)
    for step in (2, 3):
        loss = task(images, labels)["loss"]
        expected = expected_loss(criterion.strategy, model, images, labels, step)
        assert calls[-1] == (step, 0, pytest.approx(expected, abs=1e-6))
    loss.backward()
    assert model.head.weight.grad.abs().sum() > 0
    again = copy.deepcopy(criterion)
    state = task.get_checkpoint_state()
    names["MixedTask"](model=tiny_model(), mixed=again, verbose=False).load_checkpoint_state(
        **state
    )
    task(images, labels)
    again(model, images, labels)
    assert calls[-2] == calls[-1] and calls[-1][0] == 4


def test_lightning_module(other_loops):
    pytest.importorskip("lightning")
    pages, names, calls = other_loops
    start, (images, labels) = copy.deepcopy(names["model"]), batch(8)
    run(names, *pages["A Lightning module"])
    strategy, trainer = names["criterion"].strategy, names["trainer"]
    expected = expected_loss(strategy, start, images[:4], labels[:4], 2)
    assert calls[0] == (2, 0, pytest.approx(expected, abs=1e-6))
    assert [call[:2] for call in calls] == [(2, 0), (3, 0)] and trainer.global_step == 2
    assert not names["model"].head.weight.equal(start.head.weight)
    assert {"train_loss", "top1"} <= set(trainer.callback_metrics)
    trainer.save_checkpoint("last.ckpt")
    state = torch.load("last.ckpt", weights_only=True)["state_dict"]
    assert state["mixed._extra_state"].tolist() == [3, 0]


def hugging_face_model(kind: str):
    transformers = pytest.importorskip("transformers")
    pytest.importorskip("accelerate")
    torch.manual_seed(0)
    if kind == "timm":
        shape = dict(img_size=32, patch_size=8, embed_dim=24, depth=2, num_heads=2)
        config = transformers.TimmWrapperConfig(
            architecture="vit_tiny_patch16_224", num_labels=3, model_args=shape
        )
        return transformers.TimmWrapperForImageClassification(config)
    shape = dict(hidden_size=24, num_hidden_layers=2, num_attention_heads=2, intermediate_size=48)
    config = transformers.ViTConfig(image_size=32, patch_size=8, num_labels=3, **shape)
    return transformers.ViTForImageClassification(config)


@pytest.mark.parametrize("kind", ["timm", "vit"])
def test_hugging_face_trainer(other_loops, kind):
    pages, names, calls = other_loops
    names["hf_model"] = model = hugging_face_model(kind)
    pairs = zip(*batch(8), strict=True)
    names["train_dataset"] = [{"pixel_values": image, "labels": label} for image, label in pairs]
    before = [parameter.clone() for parameter in model.parameters()]
    run(names, *pages["A Hugging Face Trainer"])
    assert [call[:2] for call in calls] == [(0, 0), (1, 0)]
    assert all(math.isfinite(loss) for *_, loss in calls)
    after = [parameter.cpu() for parameter in model.parameters()]
    assert not any(a.equal(b) for a, b in zip(after, before, strict=True))


def test_hugging_face_trainer_accumulates_and_evaluates(other_loops):
    """The micro-batches of a step have draws of their own, and evaluation mixes nothing."""
    pages, names, calls = other_loops
    pairs = zip(*batch(8), strict=True)
    rows = [{"pixel_values": image, "labels": label} for image, label in pairs]
    names |= {"hf_model": hugging_face_model("timm"), "train_dataset": rows}
    run(names, *pages["A Hugging Face Trainer"])
    calls.clear()
    seen, criterion, model = [], names["criterion"], hugging_face_model("timm")
    start = copy.deepcopy(model.timm_model).train()
    criterion.register_forward_pre_hook(lambda module, inputs: seen.append(inputs[1:]))
    options = names["TrainingArguments"](
        "out",
        max_steps=2,
        per_device_train_batch_size=2,
        gradient_accumulation_steps=2,
        report_to="none",
        save_strategy="no",
        use_cpu=True,
    )
    trainer = names["MixedTrainer"](
        model, options, train_dataset=rows, eval_dataset=rows, mixed=criterion
    )
    trainer.train()
    expected = [expected_loss(criterion.strategy, start, *seen[i], 0, shard=i) for i in (0, 1)]
    assert [call[:2] for call in calls] == [(0, 0), (0, 1), (1, 0), (1, 1)]
    assert [call[2] for call in calls[:2]] == pytest.approx(expected, abs=1e-6)
    assert math.isfinite(trainer.evaluate()["eval_loss"]) and len(calls) == 4


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


def test_the_small_vit_of_cifar_is_as_large_as_the_page_says():
    """5.56M by hand: embedding, class token, 65 positions, 7 blocks, a norm, ten classes."""
    from mixbench.models.build import recipe_model

    recipe = load_recipe("vit_cifar")
    model = recipe_model(recipe, 10, 0)
    block = 12 * 256**2 + 13 * 256
    by_hand = (48 + 1) * 256 + 256 + 65 * 256 + 7 * block + 2 * 256 + 257 * 10
    assert sum(each.numel() for each in model.parameters()) == by_hand
    assert "5.6M parameters" in (ROOT / "docs" / "cifar.md").read_text() and by_hand == 5_560_842
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 10)


# docs/python.md


def test_the_comparison_from_python_runs(monkeypatch, tmp_path, capsys):
    monkeypatch.chdir(tmp_path)
    names = {"__name__": "docs"}
    first, logged = (block for [block] in sections("python.md").values())
    run(names, first.replace("limit_train=200", "limit_train=64"))
    summary = names["comparison"].summary
    assert summary["strategy"].tolist() == ["none", "cutmix", "transmix"]
    assert (tmp_path / "report.html").is_file() and summary["seeds"].tolist() == [2, 2, 2]
    run(names, logged.replace("epochs=1", "limit_train=16, limit_val=16, batch_size=8, epochs=1"))
    assert "cutmix 0 0 " in capsys.readouterr().out
