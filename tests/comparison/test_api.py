"""The comparison from Python: the command's figures, and anyone's own network and data."""

import csv
import json

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

import mixbench
from mixbench import compare, create_strategy
from mixbench.cli import main
from tests.support import kills

TINY = {
    **{"embed_dim": 24, "depth": 1, "batch_size": 8, "micro_batch": 8, "epochs": 1},
    **{"warmup_epochs": 0, "config": "quick", "mode": "accuracy"},
}
SMALL = {"limit_train": 32, "limit_val": 20}


class Photographs:
    """Items of two classes, as torch's data sets give them."""

    classes = ("dark", "light")

    def __init__(self, count, form=lambda pixels: pixels, seed=0):
        rng = np.random.default_rng(seed)
        self.pixels = rng.integers(0, 128, (count, 20, 24, 3), dtype=np.uint8)
        self.pixels[1::2] += 120
        self.form = form

    def __len__(self):
        return len(self.pixels)

    def __getitem__(self, index):
        if not 0 <= index < len(self):
            raise IndexError(index)
        return self.form(self.pixels[index]), index % 2


PAIR = Photographs(24), Photographs(8, seed=1)


class Tiny(nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.layer = nn.Linear(12, num_classes)

    def forward(self, images):
        return self.layer(nn.functional.adaptive_avg_pool2d(images, 2).flatten(1))


def figures(rows):
    return [
        {name: value for name, value in row.items() if name not in kills.MEASURED} for row in rows
    ]


def test_the_figures_are_the_commands(tmp_path, capsys):
    alone = {"out": tmp_path / "python", "side_by_side": 1}  # which changes none
    comparison = compare("none, cutmix", seeds=[0, 1], **alone, **TINY, **SMALL)
    assert "2 strategies train in 2 groups (1, 1)" in capsys.readouterr().out
    options = [f"--{name.replace('_', '-')}={value}" for name, value in (TINY | SMALL).items()]
    argv = ["--strategies", "none,cutmix", "--seeds", "0,1", "--out", str(tmp_path / "command")]
    assert main([*argv, *options]) == 0 and comparison.good
    tables = [
        list(csv.DictReader((tmp_path / name / "runs.csv").open()))
        for name in ("python", "command")
    ]
    assert figures(tables[0]) == figures(tables[1]) and len(tables[0]) == 4
    assert comparison.runs["top1"].tolist() == [float(row["top1"]) for row in tables[1]]
    assert comparison.runs["seed"].tolist() == [0, 0, 1, 1]
    assert comparison.summary["strategy"].tolist() == ["none", "cutmix"]
    assert comparison.speed.empty and "im_per_sec" in comparison.speed.columns
    page = comparison.report(tmp_path / "page.html")
    assert page.read_text() == (tmp_path / "python" / "report.html").read_text()
    assert "mixbench.compare(strategies=&#39;none, cutmix&#39;, seeds=[0, 1]" in page.read_text()


def test_a_network_and_data_of_ones_own(tmp_path):
    arguments = TINY | {"embed_dim": None, "depth": None}
    del arguments["embed_dim"], arguments["depth"]
    first = compare(
        ["none", create_strategy("mixup(alpha=0.2)")], model=Tiny, data=PAIR,
        out=tmp_path / "a", image_size=16, **arguments,
    )  # fmt: skip
    [name] = set(first.runs["model"])
    assert first.good and name.startswith("Tiny_") and len(name) == len("Tiny_") + 10
    assert set(first.runs["dataset"]) == {"Photographs"} and set(first.runs["num_classes"]) == {2}
    again = compare(
        ["none", "mixup(alpha=0.2)"], model=Tiny, data=PAIR, out=tmp_path / "a", image_size=16,
        resume=True, **arguments,
    )  # fmt: skip
    assert again.runs.equals(first.runs)
    other = Photographs(24, seed=2), PAIR[1]
    with pytest.raises(ValueError, match="was begun with, but other pixels or labels"):
        compare("none", model=Tiny, data=other, out=tmp_path / "a", image_size=16, resume=True,
                **arguments)  # fmt: skip


FORMS = {
    "array": lambda pixels: pixels,
    "PIL": Image.fromarray,
    "tensor": lambda pixels: torch.from_numpy(pixels).permute(2, 0, 1),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_an_image_is_the_same_pixels(form):
    from mixbench.data.items import data_of_items

    data = data_of_items(Photographs(6, FORMS[form]), Photographs(4, FORMS[form]))
    assert np.array_equal(np.asarray(data.train.load(3)), Photographs(6).pixels[3])
    assert data.identity == data_of_items(Photographs(6), Photographs(4)).identity
    assert data.classes == ("dark", "light") and data.train.labels == [0, 1] * 3


class Named(Photographs):
    """The same items, whose classes are called so."""

    def __init__(self, count, *classes):
        super().__init__(count)
        self.classes = list(classes)


def test_the_call_that_is_written_down_names_data_sets_and_not_their_items(tmp_path):
    items = [(PAIR[0].pixels[i], i % 2) for i in range(24)]
    out = tmp_path / "run"
    compared = compare("none", data=(items, PAIR[1]), out=out, evaluate=None, log=None, **TINY)
    command = json.loads((out / "environment.json").read_text())["command"]
    assert "data=(list, Photographs)" in command and len(command) < 400
    with pytest.raises(ValueError, match="is a directory: name a file for the page"):
        compared.report(tmp_path)


def test_labels_that_mean_other_classes_are_refused():
    """As two folders do, of which the second lacks a class: its later labels are one less."""
    from mixbench.data.items import data_of_items

    three = Named(6, "cat", "dog", "fox")
    with pytest.raises(ValueError, match="label 1 is 'dog' in the train data set and 'fox' in"):
        data_of_items(three, Named(4, "cat", "fox"))
    for other in (Named(4, "cat", "dog"), Named(4)):  # without the last one, without any names
        assert data_of_items(three, other).classes == ("cat", "dog", "fox")


class Lazy:
    """Files that are opened and not read, as some data sets give them."""

    def __init__(self, files):
        self.files = files

    def __len__(self):
        return len(self.files)

    def __getitem__(self, index):
        return Image.open(self.files[index]), index % 2


def test_items_that_cannot_be_read_are_named_or_left_out(tmp_path):
    from mixbench.data.items import data_of_items

    files = [tmp_path / f"{number}.png" for number in range(6)]
    for number, file in enumerate(files):
        Image.fromarray(Photographs(6).pixels[number]).save(file)
    whole = data_of_items(Lazy(files), Lazy(files[:2]))
    files[1].write_bytes(files[1].read_bytes()[:60])
    Image.new("F", (4, 4)).save(files[4].with_suffix(".tif"))
    files[4] = files[4].with_suffix(".tif")
    with pytest.raises(
        ValueError,
        match=r"3 of 8 images cannot be read: cannot read train/1 of the data set: .*; cannot read "
        r"train/4 of the data set: its pixels are float.*val/1 .*or give skip_unreadable=True",
    ):
        data_of_items(Lazy(files), Lazy(files[:2]))
    left = data_of_items(Lazy(files), Lazy([files[0], files[3], files[4]]), skip=True)
    assert left.remarks == ("left out 3 images that cannot be read",)
    assert [left.train.image_name(i) for i in range(4)] == [f"train/{i}" for i in (0, 2, 3, 5)]
    assert left.train.labels == [0, 0, 1, 1] and left.val.labels == [0, 1]
    assert np.array_equal(np.asarray(left.train.load(2)), np.asarray(whole.train.load(3)))
    with pytest.raises(ValueError, match="no image of the val data set can be read"):
        data_of_items(Lazy(files), Lazy(files[4:5]), skip=True)
    out = compare(
        "none", data=(Lazy(files * 3), Lazy(files[:4])), skip_unreadable=True,
        out=tmp_path / "run", **TINY,
    )  # fmt: skip
    assert out.good and out.runs["train_images"].tolist() == [12]


def changing(pixels):
    return np.random.default_rng().integers(0, 255, pixels.shape, dtype=np.uint8)


class Iterable:
    def __iter__(self):
        return iter(())


@pytest.mark.parametrize(
    ("data", "words"),
    [
        ((Photographs(4, changing), PAIR[1]), "train/0 of the data set is another image each time"),
        ((Photographs(4, lambda p: p / 255), PAIR[1]), "not ndarray of float64, .*leave ToTensor"),
        ((Iterable(), PAIR[1]), "the train data set has no length: an iterable one"),
        ((PAIR[0], []), "the val data set is empty"),
        ((PAIR[0], [(PAIR[0].pixels[0], 0.5)]), "label of val/0 .*from 0, not 0.5"),
        ((PAIR[0], [(PAIR[0].pixels[0], -1)]), "from 0, not -1"),
        ((PAIR[0], [(PAIR[0].pixels[0], 2)]), "label 2 is in the val data set alone"),
        ((PAIR[0], [PAIR[0].pixels[0]]), r"val/0 of the data set must be a pair \(image, label\)"),
        ((PAIR[0],), r"a pair of data sets \(train, val\), not tuple"),
        (PAIR[0], "not Photographs"),
        ("nowhere", "nowhere"),
    ],
)
def test_data_that_are_refused(data, words, tmp_path):
    with pytest.raises(ValueError, match=words):
        compare("none", data=data, out=tmp_path / "a", **TINY)
    assert not (tmp_path / "a").exists()


class Unseeded(Tiny):
    def __init__(self, num_classes):
        super().__init__(num_classes)
        self.layer.bias.data += np.random.default_rng().normal()


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({"epoch": 3}, "unknown keyword 'epoch': did you mean 'epochs'"),
        ({"model": 3}, "model must be a name or a function that makes one, not 3"),
        ({"model": lambda count: nn.LazyLinear(count)}, "model lambda cannot be built"),
        ({"strategies": None}, "strategies must be spec texts or strategies, not None"),
        ({"seeds": 0}, "seeds must be different whole numbers, not 0"),
        ({"out": 3}, "out must be a directory, not 3"),
        ({"out": ""}, "out must be a directory, not ''"),
        ({"class_names": 3}, "class_names must be a file, not 3"),
        ({"class_names": "no/names.txt"}, "no/names.txt cannot be read: No such file"),
        ({"model": Tiny, "layer_decay": 0.5}, "layer_decay 0.5 has no effect on Tiny"),
        ({"model": Unseeded}, "model Unseeded gives other weights each time"),
        ({"model": lambda: Tiny(2)}, "model lambda cannot be built for 10 classes"),
        ({"model": lambda count: count}, "torch.nn.Module, not one that gives 10"),
        ({"model": Tiny, "depth": 3}, "depth is for timm's models"),
        ({"model": lambda count: nn.Conv2d(3, count, 1)}, "gives no logits of classes"),
        ({"model": "vit_tinny_patch16_224"}, "unknown model 'vit_tinny_patch16_224': did you mean"),
        ({"strategies": ["cutmix", "cutmix(alpha=1)"]}, "is listed twice"),
        ({"seeds": [0, 0]}, "seeds must be different whole numbers"),
        ({"seeds": [-1]}, "seeds must be different whole numbers"),
        ({"mode": "fast"}, "mode must be one of"),
        ({"rounds": 0}, "rounds must be"),
        ({"resume": "no"}, "resume must be True or False, not 'no'"),
        ({"limit_trian": 1}, "unknown keyword 'limit_trian': did you mean 'limit_train'"),
        ({"worker": 1}, "did you mean 'workers'"),
        ({"side_by_side": 0}, "side_by_side must be a whole number of 1 or more"),
        ({"limit_train": 3}, "leaves classes out"),
        ({"epochs": "many"}, "epochs must be"),
    ],
)
def test_arguments_that_are_refused(arguments, words, tmp_path):
    values = {"config": "quick", "mode": "accuracy", "out": tmp_path / "a", "batch_size": 8}
    values |= SMALL | {"strategies": "none"} | arguments
    with pytest.raises(ValueError, match=words):
        compare(**values)
    assert not (tmp_path / "a").exists()


def test_it_is_public():
    assert mixbench.compare is compare and "compare" in dir(mixbench)


class Normalised(nn.Module):
    """A network whose forward pass in training changes its buffers."""

    def __init__(self):
        super().__init__()
        self.layers = nn.Sequential(nn.BatchNorm2d(3), nn.Flatten(), nn.Linear(3 * 16 * 16, 2))

    def forward(self, images):
        return self.layers(images)


def test_a_function_that_gives_its_own_network_keeps_it(tmp_path):
    network = Normalised()
    before = {name: value.clone() for name, value in network.state_dict().items()}
    arguments = {name: value for name, value in TINY.items() if name not in ("embed_dim", "depth")}
    arguments |= {"data": PAIR, "out": tmp_path / "a", "image_size": 16}
    for resume in (False, True):
        assert compare("none", model=lambda _: network, resume=resume, **arguments).good
    for name, value in network.state_dict().items():
        assert torch.equal(value, before[name]), name


def test_numbers_of_numpy_and_paths_are_taken(tmp_path):
    arguments = TINY | {"epochs": np.int64(1), "lr": np.float32(0.5)}
    seeds = np.arange(1, 2)
    assert compare("none", seeds=seeds, out=tmp_path / "a", **arguments, **SMALL).good
    with pytest.raises(ValueError, match=r"init '.*b\.pt' is no file"):
        compare("none", init=tmp_path / "b.pt", out=tmp_path / "b")
