"""mixbench eval visualize: its numbers are training's, its picture is one, and its mistakes."""

import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from mixbench import create_strategy
from mixbench.data.class_names import class_titles
from mixbench.data.datasets import open_data
from mixbench.evaluations.evaluation import EvalImages, Given, Subject
from mixbench.evaluations.visualize import Visualize
from mixbench.models.build import build_model
from mixbench.recipe import load_recipe
from mixbench.report import gallery
from mixbench.runtime import Runtime
from mixbench.services.context import make_context
from mixbench.training.forward import Network

CPU = Runtime(device=torch.device("cpu"))
PARTS = {"patch_size": 8, "embed_dim": 24, "depth": 1, "num_heads": 3}


def subject_of(spec, classes):
    recipe = load_recipe("quick", PARTS)
    model = build_model(recipe.model, len(classes), 3, image_size=32, **PARTS).eval()
    strategy = create_strategy(spec)
    return Subject(spec=spec, model=model, recipe=recipe, classes=classes, strategy=strategy)


def scenes():
    data = open_data(image_size=32)
    return EvalImages(name="scenes", source=data.val, classes=data.classes)


@pytest.mark.parametrize("spec", ["transmix", "cutmix", "puzzlemix", "alternate", "oacutmix"])
def test_shares_are_those_of_the_forward_pass_that_trains(spec, monkeypatch):
    seen = []
    monkeypatch.setattr(
        gallery, "make_context", lambda *a, **k: seen.append((a, k)) or make_context(*a, **k)
    )
    data = scenes()
    subject = subject_of(spec, data.classes)
    result = Visualize(count=3).measure(subject, data, CPU)
    [(arguments, keywords)] = seen
    strategy, model, images = arguments
    labels = torch.tensor(data.source.labels[: len(images)])
    mixed = strategy.mix(images, labels, make_context(*arguments, **keywords))
    network = Network(model, strategy.needs)
    with torch.no_grad(), network:
        lam = strategy.relabel(mixed, network(mixed.images))
    about = json.loads(result.files[".pairs.json"])
    assert (about["strategy"], len(about["pairs"])) == (spec, 3)
    for number, pair in enumerate(about["pairs"]):
        partner = int(mixed.partner[number])
        assert (pair["a"], pair["b"]) == (number, partner)
        assert pair["class_a"] == data.classes[int(labels[number])]
        assert pair["class_b"] == data.classes[int(labels[partner])]
        assert pair["lam_area"] == pytest.approx(float(mixed.lam[number]))
        assert pair["lam_used"] == pytest.approx(float(lam[number]))
        used = spec == "transmix"
        assert pair["map"] == f"class attention, {'used' if used else 'not used'} in the label"
    rows = {(each.setting, each.metric): each.value for each in result.figures}
    assert len(rows) == 6 and rows["pair 2", "lam_used"] == pytest.approx(float(lam[1]))
    with Image.open(io.BytesIO(result.files[".png"])) as picture:
        assert picture.format == "PNG" and picture.width > picture.height


def test_files_are_mixed_with_each_other_and_named_by_the_model(tmp_path):
    files = []
    for index, colour in enumerate(("red", "blue")):
        files.append(tmp_path / f"{index}.png")
        Image.new("RGB", (40, 30), colour).save(files[-1])
    evaluation = Visualize(images=",".join(map(str, files)))
    given = Given(own=lambda: 1 / 0, place=None, image_size=32)
    images = evaluation.open(given)
    assert images.source.load(1).getpixel((0, 0)) == (0, 0, 255)
    subject = subject_of("cutmix", scenes().classes)
    result = evaluation.measure(subject, images, CPU)
    pairs = json.loads(result.files[".pairs.json"])["pairs"]
    assert [(pair["a"], pair["b"]) for pair in pairs] == [(0, 1), (1, 0)]
    assert result.labels == "predicted"
    assert {pair["class_a"] for pair in pairs} <= set(subject.classes)
    assert evaluation.text == "count=4, draw=0"  # the files' content is told by the images' digits
    before = images.fingerprint
    Image.new("RGB", (80, 90), "green").save(files[0])
    assert evaluation.open(given).fingerprint != before


@pytest.mark.parametrize(
    ("images", "message"),
    [("missing.png", "there is no file missing.png"), ("FILE", "two files or more to mix")],
)
def test_mistakes(tmp_path, images, message):
    file = tmp_path / "a.png"
    Image.new("RGB", (8, 8)).save(file)
    given = Given(own=lambda: 1 / 0, place=None, image_size=32)
    with pytest.raises(ValueError, match=message):
        Visualize(images=images.replace("FILE", str(file))).open(given)


def test_classes_are_called_by_their_names():
    """Those of the run first, then ImageNet's, then the folder's."""
    data = scenes()
    folders = ("n01440764", *data.classes[1:])
    data = replace(data, classes=folders)
    subject = replace(
        subject_of("cutmix", folders), titles=class_titles(folders, {folders[1]: "second"})
    )
    about = json.loads(Visualize(count=4).measure(subject, data, CPU).files[".pairs.json"])
    named = {pair["a"]: pair["class_a"] for pair in about["pairs"]}
    titles = ("tench", "second", *folders[2:])
    assert named == {a: titles[data.source.labels[a]] for a in range(4)}
