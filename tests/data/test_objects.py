"""Masks of objects: read from the disk, checked, and moved exactly as their images are."""

import random
import re
from dataclasses import dataclass, replace

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench import Needs, create_strategies, register_strategy
from mixbench.cli import main
from mixbench.data.augment import augment, collate
from mixbench.data.datasets import open_data
from mixbench.data.draws import Draw
from mixbench.data.loaders import readable, set_epoch, train_loader
from mixbench.data.masks import check_objects, is_object, read_mask
from mixbench.data.normalisation import Normalisation
from mixbench.data.objects import MaskAugmentation, eval_objects, on_object
from mixbench.data.sources import Source, UnreadableMask
from mixbench.data.transforms import eval_transform, train_transform
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from mixbench.strategies.cutmix import CutMix
from mixbench.training.loop import train

CPU = torch.device("cpu")
GEOMETRIC = ("Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel")


def recipe(**options):
    fields = {"image_size": 64, "aa": "rand-m9-n3-mstd0.5-inc1", "hflip": 0.5, "reprob": 0.0}
    return load_recipe("quick", fields | {"mean": (0.0,) * 3, "std": (1.0,) * 3} | options)


def seeded(seed):
    random.seed(seed)
    np.random.seed(seed)
    torch.manual_seed(seed)


@pytest.fixture
def blob():
    """A mask of two shapes, and a black image that is painted white there."""
    mask = np.zeros((90, 110), np.uint8)
    mask[20:60, 15:70], mask[50:80, 80:100] = 1, 1
    return Image.fromarray(mask), Image.fromarray(mask * 255).convert("RGB")


def only(transform, names):
    """The transform with no other operations of RandAugment than the named."""
    for step in transform.transforms:
        if hasattr(step, "ops"):
            step.ops = [op for op in step.ops if op.name.removesuffix("Increasing") in names]
            step.choice_weights = None
    return transform


def inner(mask):
    """Where the nearest 5 x 5 pixels of a mask (1, H, W) all agree; no resampling reaches there."""
    mask = mask.float()[None]
    high = torch.nn.functional.max_pool2d(mask, 5, 1, 2)
    low = -torch.nn.functional.max_pool2d(-mask, 5, 1, 2)
    return (high == low)[0]


@pytest.mark.parametrize("where", ["loader", "device"])
@pytest.mark.parametrize(
    ("names", "interpolation"),
    [((name,), "bicubic") for name in GEOMETRIC]
    # a random one takes a draw of its own, before those of the flip and of RandAugment
    + [(GEOMETRIC, "bicubic"), (GEOMETRIC, "random")],
)
def test_an_image_painted_with_its_mask_equals_it_after_geometry(names, interpolation, where, blob):
    mask, image = blob
    # the fill of what comes from outside is the mean colour, black here
    transform = only(train_transform(recipe(train_interpolation=interpolation)), names)
    moved = MaskAugmentation(transform)
    whiteness = Normalisation.of((0.0,) * 3, (1.0,) * 3)
    agree = []
    for seed in range(40):
        seeded(seed)
        if where == "loader":
            pixels = transform(image)
        else:
            pixels = augment(collate([(Draw(transform)(image), 0)])[0], whiteness, "pixel")[0]
        seeded(seed)
        objects = moved(mask)
        clear = inner(objects)
        same = ((pixels.mean(0, keepdim=True) > 0.5) == objects.bool())[clear]
        agree.append(float(same.float().mean()))
        assert clear.float().mean() > 0.4
    assert min(agree) > 0.995 and sum(agree) / len(agree) > 0.9995
    assert len({float(moved(mask).float().mean()) for _ in range(10)}) > 3  # it does move


def test_colours_leave_a_mask_and_erased_boxes_empty_it(blob):
    mask, image = blob
    names = ("Invert", "PosterizeIncreasing", "Color", "Solarize", "Contrast", "Equalize")
    coloured = MaskAugmentation(only(train_transform(recipe(hflip=0.0, scale=(1.0, 1.0))), names))
    plain = MaskAugmentation(train_transform(recipe(aa=None, hflip=0.0, scale=(1.0, 1.0))))
    for seed in range(5):
        seeded(seed)
        left = coloured(mask)
        seeded(seed)
        assert left.equal(plain(mask)) and left.any()
    transform = train_transform(recipe(aa=None, hflip=0.0, reprob=1.0, remode="const"))
    full = Image.new("L", image.size, 1)
    seeded(3)
    pixels = transform(Image.new("RGB", image.size, "white"))
    seeded(3)
    assert MaskAugmentation(transform)(full).bool().equal(pixels.amin(0, keepdim=True) > 0)


def test_images_are_the_same_with_and_without_masks():
    data = open_data(image_size=64, limit_train=20, limit_val=10)
    masks_of = []
    for where in ("loader", "device"):
        chosen = recipe(augment_on=where, reprob=0.5, batch_size=10)
        batches = []
        for objects in (False, True):
            loader = train_loader(data, chosen, 0, 10, 0, CPU, objects=objects)
            set_epoch(loader, 1)
            batches.append(list(readable(loader)))
        for (images, labels), (same, alike, masks) in zip(*batches, strict=True):
            if where == "device":
                whiteness = Normalisation.of(chosen.mean, chosen.std, CPU)
                images, same = (augment(raw, whiteness, "pixel") for raw in (images, same))
            assert images.equal(same) and labels.equal(alike)
            assert masks.shape == (10, 1, 64, 64) and set(masks.unique().tolist()) == {0, 1}
        masks_of.append(torch.cat([batch[2] for batch in batches[1]]))
    assert masks_of[0].equal(masks_of[1])


def test_masks_are_not_read_where_nobody_asks(monkeypatch):
    def asked(*_):
        raise AssertionError("a mask was read")

    data = open_data(image_size=32, limit_train=32, limit_val=10)
    monkeypatch.setattr(type(data.train.source), "mask", asked)
    small = load_recipe("quick", {"embed_dim": 24, "depth": 1, "epochs": 1, "batch_size": 16})
    [learner] = train(create_strategies("cutmix"), small, data, Runtime(device=CPU))
    assert learner.failure is None


@dataclass(frozen=True)
class Sees(CutMix):
    """CutMix that asks for objects and keeps what it saw."""

    @property
    def needs(self) -> Needs:
        return Needs(objects=True)

    def mix(self, images, labels, ctx):
        SEEN.append((ctx.objects.clone(), images.clone()))
        return super().mix(images, labels, ctx)


SEEN: list = []


@pytest.mark.parametrize("group", [4, "auto"])
def test_training_hands_each_mixing_group_its_objects(group):
    register_strategy("sees")(Sees)
    SEEN.clear()
    data = open_data(image_size=32, limit_train=32, limit_val=10)
    fields = {"embed_dim": 24, "depth": 1, "epochs": 1, "batch_size": 16, "mix_group": group}
    chosen = load_recipe("quick", fields | {"mix_prob": 1.0, "aa": None, "hflip": 0.0})
    chosen = replace(chosen, scale=(1.0, 1.0), ratio=(1.0, 1.0), micro_batch=8)
    [learner] = train(create_strategies("sees"), chosen, data, Runtime(device=CPU))
    assert learner.failure is None and SEEN[0][0].shape == (4 if group == 4 else 8, 1, 32, 32)
    source = data.train
    known = {}
    transform = eval_transform(replace(chosen, crop_pct=1.0))
    for index in range(len(source.labels)):
        key = transform(source.load(index)).flatten()[::97].round(decimals=2)
        known[tuple(key.tolist())] = on_object(source.mask(index)).float()
    for objects, images in SEEN:
        for mask, image in zip(objects, images, strict=True):
            assert mask.equal(known[tuple(image.flatten()[::97].round(decimals=2).tolist())])


def test_three_states_of_a_mask(tmp_path):
    numbers = np.array([[0, 1, 7], [255, 0, 2]], np.uint8)
    Image.fromarray(numbers).save(tmp_path / "grey.png")
    assert is_object(read_mask(tmp_path / "grey.png")).tolist() == [
        [False, True, True],
        [False, False, True],
    ]
    palette = Image.fromarray(numbers, "P")
    palette.putpalette([255, 0, 0] * 256)
    palette.save(tmp_path / "palette.png")
    assert np.array_equal(read_mask(tmp_path / "palette.png"), numbers)
    many = np.array([[0, 255, 3], [1000, 1001, 70000], [1, 1000, 254]], np.int32)
    Image.fromarray(many.astype(np.uint16)).save(tmp_path / "instances.png")
    found = np.asarray(read_mask(tmp_path / "instances.png"))
    assert found[0].tolist() == [0, 255, 3] and found[2].tolist()[::2] == [1, 254]
    others = [found[1, 0], found[1, 1], found[1, 2]]
    assert found[2, 1] == found[1, 0] and len({*others, 0, 255, 3, 1, 254}) == 8
    Image.fromarray(numbers.astype(np.uint16) * 500).save(tmp_path / "sixteen.png")
    assert is_object(read_mask(tmp_path / "sixteen.png")).tolist() == [
        [False, True, True],
        [True, False, True],
    ]
    Image.new("RGB", (3, 2)).save(tmp_path / "colour.png")
    with pytest.raises(UnreadableMask, match="channels R, G, B, and a mask has one"):
        read_mask(tmp_path / "colour.png")
    (tmp_path / "broken.png").write_bytes(b"\x89PNG")
    with pytest.raises(
        UnreadableMask, match=r"cannot read mask .*broken\.png: .*\n.* mend this file"
    ):
        read_mask(tmp_path / "broken.png")


def test_evaluation_crops_a_mask_as_its_image(blob):
    mask, image = blob
    transform = eval_transform(recipe(crop_pct=0.8))
    objects = eval_objects(mask, transform)
    seen = transform(image).mean(0, keepdim=True) > 0.5
    assert objects.shape == (1, 64, 64) and objects.dtype == torch.float32
    assert (seen == objects.bool())[inner(objects)].all() and 0.1 < objects.mean() < 0.6
    assert eval_objects(None, transform).equal(torch.zeros(1, 64, 64))


@pytest.fixture
def masked(tmp_path, photographs):
    """An image folder, and a function that lays a mask for each of its images."""
    root = photographs(tmp_path / "photos", train=4, val=2)

    def lay(split="train"):
        for path in sorted((root / split).rglob("*.*")):
            with Image.open(path) as image:
                mask = np.zeros(image.size[::-1], np.uint8)
            mask[1:3, 1:3] = 1
            target = root / "masks" / path.relative_to(root).with_suffix(".png")
            target.parent.mkdir(parents=True, exist_ok=True)
            Image.fromarray(mask).save(target)
        return sorted((root / "masks" / split).rglob("*.png"))

    return root, lay


def test_a_folder_of_masks_beside_the_images(masked):
    root, lay = masked
    data = open_data(data=root)
    with pytest.raises(ValueError, match=r"lay them in masks/train/<path of the image>\.png"):
        check_objects(data.train, "train")
    files = lay()
    assert check_objects(data.train, "train") is None
    few = open_data(data=root, limit_train=2).train
    assert check_objects(few, "train") is None and is_object(few.mask(0)).sum() == 4
    files[0].unlink()
    Image.new("L", Image.open(files[1]).size).save(files[1])
    count = len(files)
    sentence = (
        f"1 of {count} train images have no mask, and 1 of {count - 1} masks that were looked at "
        "are empty"
    )
    assert sentence in check_objects(data.train, "train")
    assert data.train.mask(0) is None


def test_what_systems_lay_among_masks_is_none_of_them(masked):
    root, lay = masked
    [first, *_] = lay()
    (first.parent / "@eaDir").mkdir()
    for name in (f"._{first.name}", "@eaDir/x.png"):
        (first.parent / name).write_bytes(b"system's")
    assert check_objects(open_data(data=root).train, "train") is None


def test_masks_that_write_the_object_as_255_are_refused(masked):
    """255 says that nobody knows; one mask that knows is enough."""
    root, lay = masked
    files = lay()
    for file in files:
        mask = np.asarray(Image.open(file)).astype(bool)
        Image.fromarray((mask * 255).astype(np.uint8)).save(file)
    with pytest.raises(ValueError, match=r"hold nothing but 0 and 255, and 255 says .* as 1$"):
        check_objects(open_data(data=root).train, "train")
    Image.new("L", Image.open(files[0]).size, 1).save(files[0])
    assert "masks that were looked at are empty" in check_objects(open_data(data=root).train, "t")


@pytest.mark.parametrize("workers", [0, 1])
def test_a_mask_of_another_size_stops_training_too(workers, masked):
    """Before it not every mask is looked at: of many there is no time for it."""
    root, lay = masked
    files = lay()
    with Image.open(files[-1]) as mask:
        mask.resize((mask.height, mask.width + 1)).save(files[-1])
    data = open_data(data=root)
    assert check_objects(data.train, "train", seconds=-1) is None
    loader = train_loader(data, recipe(batch_size=4), 0, 4, workers, CPU, objects=True)
    set_epoch(loader, 0)
    words = r"^the mask of train/.* has \d+x\d+ pixels, and the"
    with pytest.raises(UnreadableMask, match=words) as caught:
        list(readable(loader))
    assert "\n" not in str(caught.value) and caught.value.__notes__ == [UnreadableMask.way_out]


@pytest.mark.parametrize("kind", ["size", "lonely", "twice"])
def test_masks_that_do_not_fit_are_one_sentence(kind, masked):
    root, lay = masked
    files = lay()
    if kind == "size":
        Image.new("L", (1, 1), 1).save(files[0])
        words = r"the mask of train/.* has 1x1 pixels, and the image \d+x\d+"
    elif kind == "lonely":
        files[0].rename(files[0].with_name("nobody.png"))
        words = r"1 of \d+ masks belong to no image, such as .*nobody\.png"
    else:
        image = next(path for path in sorted((root / "train").rglob("*.*")))
        Image.open(image).convert("RGB").save(image.with_suffix(".bmp"))
        words = r"would both have the mask .*: rename one"
    with pytest.raises(ValueError, match=words):
        check_objects(open_data(data=root).train, "train")


def test_a_source_without_masks_has_none():
    class Bare(Source):
        labels, fingerprint = [0, 1], "bare"

        def load(self, index):
            raise NotImplementedError

    assert Bare().mask(0) is None and not Bare().has_mask(0)


PLUGIN = """
from dataclasses import dataclass
from mixbench import Needs, register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("sighted")
@dataclass(frozen=True)
class Sighted(CutMix):
    @property
    def needs(self):
        return Needs(objects=True)

    def mix(self, images, labels, ctx):
        assert ctx.objects.shape == (len(images), 1, *images.shape[2:])
        return super().mix(images, labels, ctx)
"""


def test_the_command_says_what_is_missing_and_draws_pictures(masked, tmp_path, capsys):
    root, lay = masked
    plugin, out = tmp_path / "plugin.py", tmp_path / "run"
    plugin.write_text(PLUGIN)
    argv = ["--plugin", str(plugin), "--strategies", "sighted", "--data", str(root), "--config"]
    argv += ["quick", "--epochs", "1", "--warmup-epochs", "0", "--batch-size", "4", "--workers"]
    argv += ["0", "--mode", "accuracy", "--embed-dim", "24", "--depth", "1", "--out", str(out)]
    assert main(argv) == 2
    printed = capsys.readouterr()
    assert re.search(r"error: a strategy asks for masks of objects", printed.err)
    assert not out.exists()
    lay()[0].unlink()
    assert main(argv) == 0
    printed = capsys.readouterr()
    assert "1 of 8 train images have no mask" in printed.out.replace("\n", " ")
    assert (out / "mixed.png").is_file()
