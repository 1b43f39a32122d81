"""mixbench eval label-error: by hand, against the column, under controls."""

import dataclasses

import numpy as np
import pytest
import torch

from mixbench import MixedBatch, create_strategy, register_strategy
from mixbench.data.annotated import open_annotated
from mixbench.data.normalisation import Normalisation
from mixbench.data.scenes import CLASSES, SceneSource, draw_scene
from mixbench.evaluations.evaluation import EvalImages, Given, Subject
from mixbench.evaluations.label_error import (
    Images,
    LabelError,
    Labels,
    _by_size,
    _figures,
    label_error,
    mixed_labels,
)
from mixbench.mix import MixStrategy, hashed_seed
from mixbench.models.build import build_model
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.training.forward import Network

CPU = Runtime(device=torch.device("cpu"))
PLAIN = Normalisation.of((0.0,) * 3, (1.0,) * 3)


@dataclasses.dataclass(frozen=True)
class LeftHalf(MixStrategy):
    """A's left half beside B's right one; a label of .9 for A."""

    def mix(self, images, labels, ctx):
        mask = torch.zeros(1, 1, 1, images.shape[-1])
        mask[..., : images.shape[-1] // 2] = 1
        mixed = torch.where(mask == 1, images, images.flip(0))
        partner = torch.arange(len(images)).flip(0)
        return MixedBatch(images=mixed, labels=labels, partner=partner, mask=mask)

    def relabel(self, mixed, output):
        return torch.full((len(mixed.labels),), 0.9)


class Flat(torch.nn.Module):
    def forward(self, images):
        return images.mean((2, 3))


def measured(objects, target="share"):
    images = torch.rand(len(objects), 3, 4, 8)
    batch = Images(images, torch.arange(len(objects)), objects)
    register_strategy("lefthalf")(LeftHalf)
    return mixed_labels(LeftHalf(), Network(Flat()), [batch], PLAIN, target=target)


def test_by_hand():
    """A: 4 object pixels left, 2 right. B: 8 right, 0 left; the others' objects are hidden."""
    objects = torch.zeros(4, 1, 4, 8)
    objects[0, :, 0, 2:8] = 1  # two of them left of the middle
    objects[3, :, 2:, 4:] = 1
    objects[1, :, 0, 7] = 1  # hidden as A, seen as B
    labels = measured(objects)
    # rows 0 and 3 are partners; rows 1 and 2 are left out, since 2 has no object
    assert labels.wanted.tolist() == pytest.approx([2 / 10, 0.0])
    assert labels.error() == pytest.approx([0.7, 0.9], abs=1e-6)
    assert labels.ghost.tolist() == [False, True]
    assert labels.size == pytest.approx([6 / 32, 8 / 32])
    fraction = measured(objects, "fraction")
    assert fraction.wanted.tolist() == pytest.approx([(2 / 6) / (2 / 6 + 1), 0.0])
    error, bias, rank, ghosts, hidden = (figure.value for figure in _figures("", labels))
    assert (error, bias, ghosts, hidden) == pytest.approx((80, 80, 0.5, 0))
    assert rank is None  # of two mixes


def test_a_label_for_a_hidden_b_is_a_ghost_too():
    objects = torch.zeros(2, 1, 4, 8)
    objects[..., 0] = 1  # A's left half has all of it, B's right half nothing
    labels = measured(objects)
    assert labels.wanted.tolist() == [1, 1] and labels.ghost.all()  # lam .9


def test_both_hidden_is_counted_and_left_out():
    labels = Labels(
        lam=np.array([0.2, 0.4, 0.6, 0.9]),
        wanted=np.array([0.1, np.nan, 0.5, 0.8]),
        ghost=np.zeros(4, bool),
        size=np.array([0.001, 0.001, 0.02, 0.5]),
        draw=np.zeros(4, int),
    )
    figures = {figure.metric: figure for figure in _figures("", labels)}
    assert figures["label_error"].value == pytest.approx(10) and figures["label_error"].n == 3
    assert figures["both_hidden"].value == 1 and figures["both_hidden"].n == 4
    assert figures["rank_correlation"].value == pytest.approx(1)
    sizes = {figure.setting: figure.n for figure in _by_size(labels)}
    assert sizes == {"small objects": 1, "medium objects": 1, "large objects": 1}


def subject_of(spec, side=32):
    recipe = load_recipe("quick", {"depth": 1, "embed_dim": 24, "image_size": side})
    fields = {"patch_size": recipe.patch_size, "embed_dim": 24, "depth": 1, "num_heads": 3}
    model = build_model(recipe.model, len(CLASSES), 3, image_size=side, **fields).eval()
    strategy = create_strategy(spec)
    return Subject(spec=spec, model=model, recipe=recipe, classes=CLASSES, strategy=strategy)


def measure(evaluation, subject):
    side = subject.recipe.image_size
    given = Given(own=lambda: 1 / 0, place=None, image_size=side)  # it asks for no others
    return evaluation.measure(subject, evaluation.open(given), CPU)


def test_scenes_give_the_column():
    scenes = [draw_scene(hashed_seed("label error"), index, 32) for index in range(500)]
    for spec in ("cutmix", "transmix"):
        subject = subject_of(spec)
        result = measure(LabelError(), subject)
        recipe = subject.recipe
        network = Network(subject.model, subject.strategy.needs)
        normalisation = Normalisation.of(recipe.mean, recipe.std)
        column = label_error(subject.strategy, network, scenes, normalisation)
        assert result.figures[0].value == pytest.approx(column, abs=1e-4)
        assert len(result.images["error"]) == 500
        settings = {figure.setting for figure in result.figures}
        controls = {"another image's attention", "untrained model"}
        assert settings & controls == (controls if spec == "transmix" else set())
        errors = [f.value for f in result.figures if f.metric == "label_error"]
        assert len({*errors}) == (3 if spec == "transmix" else 1)  # the last is of large objects


def test_the_reference_has_no_error():
    for spec in ("oacutmix", "oacutmix(base=resizemix)", "oacutmix(base=smmix)"):
        result = measure(LabelError(), subject_of(spec))
        assert result.figures[0].value == pytest.approx(0, abs=1e-4)
    result = measure(LabelError(target="fraction"), subject_of("oacutmix"))
    assert result.figures[0].value > 1


def test_photographs_of_other_classes_are_labelled_by_the_model(tmp_path, photographs):
    from PIL import Image

    root = photographs(tmp_path / "data", train=1, val=3)
    for file in sorted((root / "val").glob("*/*")):
        mask = np.zeros(Image.open(file).size[::-1], np.uint8)
        mask[5:20, 5:30] = 1
        path = root / "masks" / "val" / file.parent.name / f"{file.stem}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(mask).save(path)
    source, classes = open_annotated(f"folder:{root}", "union", 32)
    assert classes != CLASSES and len(source.labels) == 6
    evaluation = LabelError(masks=f"folder:{root}")
    for spec in ("cutmix", "mixpro", "puzzlemix"):
        result = measure(evaluation, subject_of(spec))
        assert result.figures[0].n <= 60 and 0 <= result.figures[0].value < 100


def test_a_last_single_image_has_no_partner_and_is_left_out():
    data = EvalImages(name="51", source=SceneSource("label error", 51, 32), classes=CLASSES)
    result = LabelError(passes=1).measure(subject_of("mixup"), data, CPU)
    assert len(result.images["error"]) == 50 and set(result.groups) == {0}


def test_few_images_are_mixed_by_ten_draws_or_as_often_as_asked():
    """Each pass has its own draws and partners; its mixes are a group of the interval."""
    data = EvalImages(name="60", source=SceneSource("label error", 60, 32), classes=CLASSES)
    result = LabelError().measure(subject_of("cutmix"), data, CPU)
    assert len(result.images["error"]) == 300 and sorted(set(result.groups)) == [*range(10)]
    shares = [set(result.images["lam"][result.groups == step].round(6)) for step in range(10)]
    assert all(len(each) == 1 for each in shares) and len(set.union(*shares)) == 10
    wanted = [result.images["wanted"][result.groups == step] for step in (0, 2)]
    assert not np.array_equal(*wanted)
    once = LabelError(passes=1).measure(subject_of("cutmix"), data, CPU)
    assert np.array_equal(once.images["error"], result.images["error"][:60])


def test_loader_processes_give_the_same_figures():
    data = EvalImages(name="60", source=SceneSource("label error", 60, 32), classes=CLASSES)
    alone = LabelError().measure(subject_of("transmix"), data, CPU)
    two = dataclasses.replace(CPU, workers=2)
    assert LabelError().measure(subject_of("transmix"), data, two).figures == alone.figures
