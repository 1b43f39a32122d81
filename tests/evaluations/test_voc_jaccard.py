"""mixbench eval voc-jaccard: closed forms, scikit-learn, other sizes, what is left out."""

import dataclasses

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from sklearn.metrics import jaccard_score
from torchvision import transforms

from mixbench.data import annotated
from mixbench.data.annotated import open_label_maps
from mixbench.evaluations.class_maps import at_size, class_maps, model_at
from mixbench.evaluations.evaluation import Given, Subject
from mixbench.evaluations.voc_jaccard import VocJaccard, _Samples
from mixbench.models.build import recipe_model
from mixbench.models.class_token import NoClassAttention
from mixbench.recipe import load_recipe
from mixbench.services.attention import attention_tap
from tests.support.boxes import voc
from tests.support.looks import (
    CPU,
    SMALL,
    Look,
    blank,
    channels,
    flat,
    images_of,
    subject_of,
    values,
)


def drawn(*objects, height=32, width=32):
    """An image and its labels: objects (label, channel, rows, columns)."""
    image, labels = blank(height, width), np.zeros((height, width), np.uint8)
    for label, channel, rows, columns in objects:
        labels[rows, columns] = label
        image[rows, columns, channel] = 255
    return image, labels


def measured(tmp_path, subject, pairs, **options):
    images, labels = zip(*pairs, strict=True)
    source, _ = open_label_maps(f"voc:{voc(tmp_path, images, labels)}", 32)
    return VocJaccard(**options).measure(subject, images_of(source), CPU)


def test_attention_that_is_the_object_by_hand(tmp_path, monkeypatch):
    """Of 9 patches alike all are kept, of 16 one is not, and half a patch is half a Jaccard."""
    pairs = [
        drawn((5, 0, slice(4, 16), slice(8, 20))),
        drawn((9, 0, slice(0, 16), slice(16, 32))),
        drawn((9, 0, slice(0, 4), slice(0, 2))),
        drawn(),
    ]
    pairs[3][0][:4, :4] = 255  # seen, and no object
    subject = subject_of(monkeypatch, channels(4, 0))
    result = measured(tmp_path, subject, pairs)
    expected = [100, 100 * 15 / 16, 50]
    assert result.images["jaccard"][:3] == pytest.approx(expected)
    assert np.isnan(result.images["jaccard"][3])
    assert values(result, "jaccard")[""] == pytest.approx(np.mean(expected))
    assert values(result, "mask_area")[""] == pytest.approx(100 * (9 + 15 + 1) / 3 / 64)
    full = [100 * size / 1024 for size in (144, 256, 8)]
    assert values(result, "jaccard")["full image"] == pytest.approx(np.mean(full))
    assert {figure.n for figure in result.figures if figure.metric == "jaccard"} == {3}
    [left_out] = [figure for figure in result.figures if figure.metric == "left_out"]
    assert (left_out.value, left_out.n) == (1, 4)


def test_each_labels_best_head_and_the_heads_mean(tmp_path, monkeypatch):
    pair = drawn((5, 0, slice(4, 8), slice(4, 12)), (9, 1, slice(20, 24), slice(0, 24)))
    subject = subject_of(monkeypatch, channels(4, 0, 1))
    best = measured(tmp_path / "best", subject, [pair])
    assert values(best, "jaccard")[""] == pytest.approx(100)
    mean = measured(tmp_path / "mean", subject, [pair], heads="mean")
    assert values(mean, "jaccard")[""] == pytest.approx(100 * (2 / 8 + 6 / 8) / 2)


def test_void_pixels_count_or_do_not(tmp_path, monkeypatch):
    image, labels = drawn((5, 0, slice(4, 16), slice(4, 16)))
    ring = labels.copy()
    ring[4:16, 4:16] = 255
    ring[6:14, 6:14] = 5
    subject = subject_of(monkeypatch, channels(4, 0))
    counted = measured(tmp_path / "a", subject, [(image, ring)])
    assert values(counted, "jaccard")[""] == pytest.approx(100 * 64 / 144)
    left_out = measured(tmp_path / "b", subject, [(image, ring)], void="exclude")
    assert values(left_out, "jaccard")[""] == pytest.approx(100)


def test_images_and_maps_are_squashed_alike(tmp_path, monkeypatch):
    pair = drawn((5, 0, slice(8, 24), slice(0, 8)), height=64, width=16)  # 2 x 4 patches squashed
    result = measured(tmp_path, subject_of(monkeypatch, channels(4, 0)), [pair])
    assert values(result, "mask_area")[""] == pytest.approx(100 * 8 / 64)
    assert values(result, "jaccard")[""] == pytest.approx(100)


def test_less_mass_is_fewer_patches(tmp_path, monkeypatch):
    pair = drawn((5, 0, slice(0, 16), slice(0, 16)))
    subject = subject_of(monkeypatch, channels(4, 0))
    result = measured(tmp_path, subject, [pair], mass=0.5)
    assert values(result, "jaccard")[""] == pytest.approx(50)


def test_objects_are_met_better_by_attention_on_them_than_by_flat_attention(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 40)
    evaluation = VocJaccard()
    data = evaluation.open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    masks = torch.from_numpy(np.stack([data.source.mask(index) for index in range(40)])).float()
    shares = iter(torch.nn.functional.avg_pool2d(masks[:, None], 4).split(16))
    truth = evaluation.measure(subject_of(monkeypatch, lambda _: next(shares)), data, CPU)
    everywhere = evaluation.measure(subject_of(monkeypatch, flat), data, CPU)
    assert values(truth, "jaccard")[""] > 65 > 40 > values(everywhere, "jaccard")[""]
    assert values(everywhere, "mask_area")[""] == pytest.approx(100 * 58 / 64)
    for result in (truth, everywhere):  # an untrained model's attention is flat, too
        assert 10 < values(result, "jaccard")["untrained model"] < 30


def test_figures_are_scikit_learns_over_the_models_own_attention(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 21)  # more than a batch
    recipe = load_recipe("quick", SMALL)
    model = recipe_model(recipe, 2, 7).eval()
    with torch.no_grad():
        model.blocks[0].attn.qkv.weight *= 40  # it looks at some patches more
    subject = Subject(spec="a", model=model, recipe=recipe, classes=("a", "b"), seed=5)
    evaluation = VocJaccard(void="exclude", mass=0.8)
    data = evaluation.open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    result = evaluation.measure(subject, data, CPU)
    workers = dataclasses.replace(CPU, workers=1)
    assert evaluation.measure(subject, data, workers).figures == result.figures
    mean, std = (np.array(each)[:, None, None] for each in (recipe.mean, recipe.std))
    for setting, net in (("", model), (" untrained model", recipe_model(recipe, 2, 5).eval())):
        expected = []
        for index in range(21):
            pixels = np.asarray(data.source.load(index)).transpose(2, 0, 1) / 255
            image = torch.from_numpy((pixels - mean) / std).float()[None]
            with attention_tap(net) as tap, torch.no_grad():
                tap(image)
            scores = []
            for head in tap.per_head()[0].double():
                order = head.flatten().argsort(descending=True)
                sums = head.flatten()[order].cumsum(0) / head.sum()
                count = int((sums < 0.8 - 1e-12).sum()) + 1
                mask = torch.zeros(64).index_fill(0, order[:count], 1).view(1, 1, 8, 8)
                mask = torch.nn.functional.interpolate(mask, scale_factor=4)[0, 0]
                truth = np.asarray(data.source.mask(index))
                scores.append(100 * jaccard_score(truth.ravel(), mask.numpy().ravel()))
            expected.append(max(scores))
        assert result.images[f"jaccard{setting}"] == pytest.approx(expected)
    assert np.std(result.images["jaccard"] - result.images["jaccard untrained model"]) > 1


def larger_by_hand(model, recipe, side):
    """timm's model built for another size, its position embedding resampled by torch alone."""
    other = timm.create_model(
        recipe.model,
        num_classes=2,
        img_size=side,
        **{name: SMALL[name] for name in ("patch_size", "embed_dim", "depth", "num_heads")},
    )
    state = model.state_dict()
    prefix, grid = state["pos_embed"][:, :1], state["pos_embed"][:, 1:]
    grid = grid.reshape(1, 8, 8, -1).permute(0, 3, 1, 2)
    size = (side // 4, side // 4)
    grid = torch.nn.functional.interpolate(grid, size, mode="bicubic", align_corners=False)
    grid = grid.permute(0, 2, 3, 1).reshape(1, size[0] * size[1], -1)
    other.load_state_dict(state | {"pos_embed": torch.cat([prefix, grid], 1)})
    return other.eval()


def test_a_model_at_another_size_is_the_one_built_at_it(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 3)
    recipe = load_recipe("quick", SMALL)
    model = recipe_model(recipe, 2, 7).eval()
    with torch.no_grad():
        model.pos_embed.normal_()  # it looks where its position embedding says
        model.blocks[0].attn.qkv.weight *= 10
    subject = Subject(spec="a", model=model, recipe=recipe, classes=("a", "b"))
    for side in (64, 48):
        other = larger_by_hand(model, recipe, side)
        ours = model_at(model, subject, at_size(recipe, side)).eval()
        images = torch.rand(2, 3, side, side)
        with torch.no_grad(), attention_tap(other) as theirs, attention_tap(ours) as tap:
            assert tap(images).attn.shape == (2, side // 4, side // 4)
            assert torch.allclose(tap.per_head(), theirs(images) and theirs.per_head(), atol=1e-6)
    assert model_at(model, subject, recipe) is model
    data = VocJaccard().open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    result = VocJaccard(size=48).measure(subject, data, CPU)
    samples = _Samples(data.source, at_size(recipe, 48))
    assert samples[0][0].shape == (3, 48, 48) and samples[0][1].shape == (48, 48)
    maps = [each[""] for each, _ in class_maps(subject, at_size(recipe, 48), samples, "best", CPU)]
    assert maps[0].shape == (3, 12, 12) and len(result.images["jaccard"]) == 3


def test_sizes_that_patches_do_not_divide_are_refused(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 3)
    recipe = load_recipe("quick", SMALL)
    subject = Subject(spec="a", model=recipe_model(recipe, 2, 0), recipe=recipe, classes=("a", "b"))
    data = VocJaccard().open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    with pytest.raises(ValueError, match=r"50 must be .* take --protocol recipe --size 48 or 52"):
        VocJaccard(size=50).measure(subject, data, CPU)


def test_ipvits_protocol_prepares_images_as_its_code(tmp_path):
    rng = np.random.default_rng(0)
    image = rng.integers(0, 255, (37, 61, 3), dtype=np.uint8)
    labels = rng.choice([0, 5, 255], size=(37, 61)).astype(np.uint8)
    source, _ = open_label_maps(f"voc:{voc(tmp_path, [image], [labels])}", 32)
    fields = {"mean": (0.5,) * 3, "std": (0.5,) * 3, "interpolation": "bicubic"}
    recipe = VocJaccard(protocol="ipvit")._recipe(load_recipe("quick", SMALL | fields))
    ours = _Samples(source, recipe)[0]
    theirs = transforms.Compose(
        [
            transforms.Resize((512, 512)),
            transforms.ToTensor(),
            transforms.Normalize((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)),
        ]
    )
    assert torch.allclose(ours[0], theirs(Image.fromarray(image)))
    palette = Image.open(next(tmp_path.rglob("SegmentationClass/*.png")))
    assert palette.mode == "P"
    assert np.array_equal(ours[1], np.array(transforms.Resize((512, 512))(palette)))
    kept = VocJaccard()._recipe(load_recipe("quick", SMALL | fields))
    assert (kept.mean, kept.interpolation, kept.image_size) == ((0.5,) * 3, "bicubic", 32)


@pytest.mark.parametrize(
    "options", [{"mass": 0.6}, {"void": "exclude"}, {"heads": "mean"}, {"size": 224}]
)
def test_a_protocol_excludes_what_it_says_itself(options):
    [(name, value)] = options.items()
    with pytest.raises(ValueError, match=f"--{name} is, and {value} is another: leave --{name}"):
        VocJaccard(protocol="ipvit", **options)
    assert getattr(VocJaccard(**options), name) == value


def test_models_without_class_attention_say_so(monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 3)
    recipe = load_recipe("quick", SMALL)
    model = timm.create_model("test_resnet", num_classes=2)
    subject = Subject(spec="a", model=model, recipe=recipe, classes=("a", "b"))
    data = VocJaccard().open(Given(own=lambda: 1 / 0, place=None, image_size=32))
    with pytest.raises(NoClassAttention, match="has no class token to take attention from"):
        VocJaccard().measure(subject, data, CPU)


def test_images_without_any_object_are_refused(tmp_path, monkeypatch):
    subject = subject_of(monkeypatch, channels(4, 0))
    assert isinstance(subject.model, Look)
    image, labels = drawn()
    with pytest.raises(ValueError, match="no image of drawn has an object"):
        measured(tmp_path, subject, [(image + 1, labels)])
