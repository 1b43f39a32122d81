"""ImageNet's variants on folders in their layouts, with models whose answers are in the pixels."""

import dataclasses

import numpy as np
import pandas as pd
import pytest
import timm
import torch
from PIL import Image
from sklearn.calibration import calibration_curve
from sklearn.metrics import average_precision_score
from torchvision import transforms

from mixbench.cli import main
from mixbench.data.wnids import imagenet_classes, subset_classes
from mixbench.evaluations.adversaries import ImageNetA, ImageNetO
from mixbench.evaluations.corrupted import EXTRA, SEVERITIES, ImageNetC, alexnet_errors
from mixbench.evaluations.evaluation import Given, Subject
from mixbench.evaluations.shifted import ImageNetR, ImageNetSketch, ImageNetV2, prepared
from mixbench.models.checkpoints import model_record
from mixbench.recipe import load_recipe
from mixbench.runtime import Runtime
from tests.support.photographs import picture

WNIDS = imagenet_classes()
A, R = subset_classes("a"), subset_classes("r")
CPU = Runtime(device=torch.device("cpu"))
SIDE = 16  # pixels
VIT = "vit_tiny_patch16_224"


def colour(number):
    """A colour for 0 to 999, of which JPEG keeps each digit."""
    return tuple(12 + 24 * int(digit) for digit in f"{number:03}")


def save(path, said, strength):
    """An image that says a class, a number of ImageNet, with a strength of 0 to 999."""
    path.parent.mkdir(parents=True, exist_ok=True)
    image = Image.new("RGB", (32, 32), colour(said))
    image.paste(colour(strength), (0, 16, 32, 32))
    image.save(path, quality=95, subsampling=0)


class Reader(torch.nn.Module):
    """The logit strength / 100 for the class that an image says, 20 for `decoy`, 0 for others."""

    def __init__(self, decoy=None):
        super().__init__()
        self.decoy, self.seen = decoy, 0
        recipe = load_recipe("quick")
        self.mean = torch.tensor(recipe.mean)
        self.std = torch.tensor(recipe.std)

    def forward(self, images):
        self.seen += len(images)
        pixels = (images.movedim(1, -1) * self.std + self.mean) * 255
        digits = ((pixels[:, [4, 12], 8] - 12) / 24).round().long()  # (B, 2, 3)
        said, strength = (digits * torch.tensor([100, 10, 1])).sum(-1).unbind(1)
        logits = torch.zeros(len(images), 1000)
        logits[torch.arange(len(images)), said] = strength / 100
        if self.decoy is not None:
            logits[:, self.decoy] = 20
        return logits


def probability(strengths, count):
    """The softmax of strength / 100 among `count` classes."""
    strong = np.exp(np.asarray(strengths) / 100)
    return strong / (strong + count - 1)


def subject_of(model, classes=WNIDS, side=SIDE):
    recipe = load_recipe("quick", {"image_size": side})
    return Subject(spec="reader", model=model, recipe=recipe, classes=classes)


def measured(evaluation, place, model, runtime=CPU, classes=WNIDS):
    data = evaluation.open(Given(own=lambda: None, place=place, image_size=SIDE))
    return evaluation.measure(subject_of(model, classes), data, runtime)


def rows(result):
    return {(each.setting, each.metric): each.value for each in result.figures}


def not_of(wnids):
    """The number of a class of ImageNet that is not one of these."""
    return next(number for number, wnid in enumerate(WNIDS) if wnid not in wnids)


def folder(root, wnids, each, seed=0, strengths=range(1000)):
    """`each` images a wnid, which say it in half of the cases; what is right and how strong.

    No two are as strong.
    """
    rng = np.random.default_rng(seed)
    strengths = iter(rng.permutation(strengths))
    truth = []
    for wnid in sorted(wnids):
        for image in range(each):
            right, strength = bool(rng.integers(2)), int(next(strengths))
            other = wnids[(wnids.index(wnid) + 7) % len(wnids)]
            save(root / wnid / f"{image}.jpg", WNIDS.index(wnid if right else other), strength)
            truth.append((right, strength))
    right, strengths = zip(*truth, strict=True)
    return np.array(right), np.array(strengths)


@pytest.fixture(scope="module")
def imagenet_a(tmp_path_factory):
    root = tmp_path_factory.mktemp("data") / "imagenet-a"
    return root, *folder(root, A, each=2)


def test_imagenet_a_is_measured_among_its_classes(imagenet_a):
    root, right, strengths = imagenet_a
    model = Reader(decoy=not_of(A))
    result = measured(ImageNetA(), root, model)
    assert model.seen == 400  # once each
    assert np.array_equal(result.images["right"], right)
    confidence = probability(strengths, 200)
    assert result.images["confidence"] == pytest.approx(confidence, rel=1e-5)
    found = rows(result)
    assert found["", "top1"] == 100 * right.mean()
    true, predicted = calibration_curve(right, confidence, n_bins=4, strategy="quantile")
    squares = (true - predicted) ** 2
    kept, dropped = np.sqrt(squares.mean()), np.sqrt(squares[:-1].sum() / 4)
    assert found["last bin kept", "rms_calibration_error"] == pytest.approx(100 * kept, rel=1e-5)
    assert found["last bin dropped", "rms_calibration_error"] == pytest.approx(100 * dropped)
    frame = pd.DataFrame({"confidence": confidence, "right": right.astype(float)})
    ordered = frame.sort_values("confidence", ascending=False).right
    assert found["", "aurra"] == pytest.approx(100 * ordered.expanding().mean().mean())
    assert {each.n for each in result.figures} == {400} and result.labels == "true"


def test_the_models_order_of_classes_does_not_matter(imagenet_a):
    root, right, _ = imagenet_a
    order = np.random.default_rng(1).permutation(1000)

    class Shuffled(Reader):
        def forward(self, images):
            return super().forward(images)[:, order]

    classes = tuple(WNIDS[number] for number in order)
    for evaluation in (ImageNetA(), ImageNetSketch(allow_partial=True)):
        result = measured(evaluation, root, Shuffled(), classes=classes)
        assert np.array_equal(result.images["right"], right)


def test_few_images_have_a_top1_and_no_calibration_error(tmp_path):
    right, _ = folder(tmp_path, A[:66], each=3)
    said = []
    runtime = dataclasses.replace(CPU, say=said.append)
    result = measured(ImageNetA(allow_partial=True), tmp_path, Reader(), runtime)
    found = rows(result)
    assert found["", "top1"] == pytest.approx(100 * right.mean())
    assert found["last bin kept", "rms_calibration_error"] is None
    assert found["last bin dropped", "rms_calibration_error"] is None
    assert found["", "aurra"] is not None
    assert said == ["no calibration error of 198 images: it needs 200 or more"]


def test_imagenet_o_is_told_from_what_the_model_knows(tmp_path):
    wnids, val = [*WNIDS[3:400:2], WNIDS[998]], tmp_path / "imagenet" / "val"
    _, outside = folder(tmp_path / "o", wnids, each=1, strengths=range(0, 600, 2))
    _, inside = folder(val, wnids, each=2, seed=1, strengths=range(101, 1000, 2))
    folder(val, [WNIDS[1]], each=40)  # no class of O's
    scores, truth = -np.concatenate([outside, inside]), np.repeat([1, 0], [200, 400])
    expected = 100 * average_precision_score(truth, scores)
    for place in (tmp_path / "imagenet", val):
        model = Reader(decoy=0)
        result = measured(ImageNetO(id_data=str(place)), tmp_path / "o", model)
        assert model.seen == 600
        for name, strengths in (("confidence", outside), ("id_confidence", inside)):
            assert result.images[name] == pytest.approx(probability(strengths, 200), rel=1e-5)
        found = rows(result)
        assert found["", "aupr"] == pytest.approx(expected) and found[
            "a guess", "aupr"
        ] == pytest.approx(100 / 3)
        assert expected > 50 and {each.n for each in result.figures} == {600}


def test_what_is_known_is_part_of_imagenet_os_data(tmp_path):
    folder(tmp_path / "o", WNIDS[:2], each=1)
    given = Given(own=lambda: None, place=tmp_path / "o", image_size=SIDE)
    prints, texts = set(), set()
    for name in ("one", "two"):
        folder(tmp_path / name, WNIDS[:2], each=1 + (name == "two"))
        evaluation = ImageNetO(id_data=str(tmp_path / name), allow_partial=True)
        prints.add(evaluation.open(given).fingerprint)
        texts.add(evaluation.text)
    assert len(prints) == 2 and texts == {"protocol=recipe, allow_partial=True"}


def test_imagenet_v2s_folders_are_numbers(tmp_path):
    numbers = (2, 9, 10, 100, 999)
    for number in numbers:
        save(tmp_path / str(number) / "0.jpg", number, 500)
        save(tmp_path / str(number) / "1.jpg", 10, 300)
    evaluation = ImageNetV2(allow_partial=True)
    result = measured(evaluation, tmp_path, Reader())
    right = {"10": [True, True]}
    expected = [right.get(name, [True, False]) for name in sorted(map(str, numbers))]
    assert np.array_equal(result.images["right"], np.concatenate(expected))
    assert rows(result) == {("", "top1"): 60}
    confidence = probability([500, 300], 1000)
    assert result.images["confidence"][:2] == pytest.approx(confidence, rel=1e-5)
    assert rows(measured(evaluation, tmp_path, Reader(decoy=3))) == {("", "top1"): 0}


def test_imagenet_r_is_measured_among_its_classes_and_sketch_among_all(tmp_path):
    right, _ = folder(tmp_path, R, each=1)
    decoy = not_of(R)
    result = measured(ImageNetR(), tmp_path, Reader(decoy))
    assert np.array_equal(result.images["right"], right)
    assert rows(result) == {("", "top1"): 100 * right.mean()}
    sketch = ImageNetSketch(allow_partial=True)
    assert rows(measured(sketch, tmp_path, Reader())) == {("", "top1"): 100 * right.mean()}
    assert rows(measured(sketch, tmp_path, Reader(decoy))) == {("", "top1"): 0}


@pytest.fixture
def imagenet_c(tmp_path):
    """Every corruption and one of the extra ones, three images each; how many are wrong."""
    rng, wrong = np.random.default_rng(0), {}
    for corruption in (*alexnet_errors(), EXTRA[0]):
        for severity in SEVERITIES:
            count = wrong[corruption, severity] = int(rng.integers(3))
            for image in range(2):
                said = 7 if image < count else 5
                path = tmp_path / corruption / severity / WNIDS[5] / f"{image}.JPEG"
                save(path, said, 900)
            save(tmp_path / corruption / severity / WNIDS[7] / "0.JPEG", 7, 900)
    return tmp_path, wrong


def test_imagenet_c_is_measured_by_alexnets_errors(imagenet_c):
    root, wrong = imagenet_c
    evaluation, said = ImageNetC(allow_partial=True), []
    runtime = dataclasses.replace(CPU, say=said.append)
    result = measured(evaluation, root, Reader(), runtime)
    found, published = rows(result), alexnet_errors()
    assert len(result.images) == 80 and not said
    errors = {}
    for (corruption, severity), count in wrong.items():
        expected = 100 * count / 3
        assert found[f"{corruption} {severity}", "severity_error"] == pytest.approx(expected)
        assert (~result.images[f"{corruption} {severity}"]).sum() == count
        errors.setdefault(corruption, []).append(expected)
    means = {corruption: np.mean(values) for corruption, values in errors.items()}
    assert {name: found[name, "error"] for name in means} == pytest.approx(means)
    means.pop(EXTRA[0])
    assert found["", "mean_error"] == pytest.approx(np.mean([*means.values()]))
    relative = [means[name] / published[name] for name in published]
    assert found["", "mce"] == pytest.approx(np.mean(relative))
    (root / "fog" / "3").rename(root.parent / "fog")
    less = rows(measured(evaluation, root, Reader(), runtime))
    assert less["", "mce"] is None and said == ["no mCE, and means of what is there: no fog/3"]
    rest = [error for number, error in enumerate(errors["fog"]) if number != 2]
    assert less["fog", "error"] == pytest.approx(np.mean(rest))


def test_every_severity_is_part_of_imagenet_cs_data(tmp_path):
    given, prints = Given(own=lambda: None, place=tmp_path, image_size=SIDE), set()
    for severity in ("1", "2"):
        save(tmp_path / "fog" / severity / WNIDS[0] / "0.jpg", 1, 1)
        prints.add(ImageNetC(allow_partial=True).open(given).fingerprint)
    assert len(prints) == 2


def test_alexnets_errors_are_means_over_the_severities():
    """DINOv3's table of the severities has the same means."""
    severities = {
        "gaussian_noise": [0.69528, 0.82542, 0.93554, 0.98138, 0.99452],
        "snow": [0.71726, 0.88392, 0.86468, 0.91870, 0.94952],
        "jpeg_compression": [0.51002, 0.54718, 0.57294, 0.65458, 0.74778],
    }
    errors = alexnet_errors()
    assert {name: np.mean(each) for name, each in severities.items()} == pytest.approx(
        {name: errors[name] for name in severities}
    )
    assert len(errors) == 15


@pytest.mark.parametrize(
    ("evaluation", "folder", "crop"),
    [(ImageNetV2, "{number}", transforms.Resize(256)), (ImageNetC, "fog/1/{wnid}", None)],
)
def test_the_official_preparation_is_torchvisions(evaluation, folder, crop, tmp_path):
    seen, expected = [], []

    class Keep(torch.nn.Module):
        def forward(self, images):
            seen.append(images)
            return torch.zeros(len(images), 1000)

    recipe = load_recipe("quick", {"image_size": 224})
    steps = [transforms.CenterCrop(224), transforms.ToTensor()]
    whole = transforms.Compose(
        [*([crop] if crop else []), *steps, transforms.Normalize(recipe.mean, recipe.std)]
    )
    for number in range(2):
        place = tmp_path / folder.format(number=number, wnid=WNIDS[number])
        place.mkdir(parents=True)
        size = (300, 270 + 90 * number) if crop else (224, 224)
        picture(number, *size).save(place / "0.png")
        expected.append(whole(Image.open(place / "0.png")))
    made = evaluation(protocol="official", allow_partial=True)
    data = made.open(Given(own=lambda: None, place=tmp_path, image_size=224))
    made.measure(subject_of(Keep(), side=224), data, CPU)
    assert torch.allclose(torch.cat(seen), torch.stack(expected), atol=1e-5)


def test_the_official_preparation_is_of_224_px():
    recipe = load_recipe("quick")
    assert prepared(recipe, "recipe", 1.0) is recipe
    with pytest.raises(ValueError, match="official prepares images of 224 px, and the model's hav"):
        prepared(recipe, "official", 1.0)


@pytest.mark.parametrize(
    ("evaluation", "paths", "message"),
    [
        (
            ImageNetA(),
            [],
            f"imagenet-a: .* holds 1 class folders: expected 200 by .* {A[0]}; --allow-partial tr",
        ),
        (
            ImageNetA(),
            ["cat/0.jpg"],
            "holds 'cat', no class of it: expected 200 by WordNet number",
        ),
        (ImageNetA(), [f"{R[0]}/0.jpg"], f"holds '{R[0]}', no class of it: expected 200 .* {A[0]}"),
        (ImageNetR(), [f"{A[3]}/0.jpg"], f"holds '{A[3]}', no class of it: expected 200 .* {R[0]}"),
        (ImageNetV2(), [], "no class of it: expected 0 to 999, the numbers of ImageNet"),
        (ImageNetV2(), ["007/0.jpg"], "holds '007' and 1 more, no class of it"),
        (ImageNetSketch(), [], "holds 1 class folders: expected 1000"),
        (ImageNetA(allow_partial=True), [f"{A[1]}/notes.txt"], "class folder .* holds no images"),
        (ImageNetO(), [], "imagenet-o needs --id-data DIR: ImageNet's validation images"),
        (
            ImageNetO(id_data="ID", allow_partial=True),
            [f"../id/{A[1]}/0.jpg"],
            f"--id-data .* lacks 1 of the 1 classes of data, such as {A[0]}/",
        ),
        (ImageNetC(), [], f"holds '{A[0]}', which is no corruption: expected <corruption>/<sever"),
    ],
)
def test_what_is_refused(evaluation, paths, message, tmp_path):
    place = tmp_path / "data"
    save(place / A[0] / "0.jpg", 1, 1)
    for path in paths:
        file = place / path
        file.parent.mkdir(parents=True, exist_ok=True)
        if file.suffix == ".txt":
            file.write_text("no image")
        else:
            save(file, 1, 1)
    if getattr(evaluation, "id_data", ""):
        evaluation = dataclasses.replace(evaluation, id_data=str(tmp_path / "id"))
    with pytest.raises(ValueError, match=message):
        evaluation.open(Given(own=lambda: None, place=place, image_size=SIDE))
    with pytest.raises(ValueError, match=r"say --data DIR|needs --id-data DIR"):
        evaluation.open(Given(own=lambda: None, place=None, image_size=SIDE))


@pytest.mark.parametrize(
    ("paths", "message"),
    [
        (["fog/6"], "fog holds '6', which is no severity: expected .* severities 1, 2, 3, 4, 5"),
        (["spatter/1"], "holds no corruption that counts"),
        (["fog/1", "fog/2"], "fog/2 holds 1 class folders that are not the 2 of .*fog/1"),
    ],
)
def test_what_imagenet_c_refuses(paths, message, tmp_path):
    for path in paths:
        save(tmp_path / path / WNIDS[0] / "0.jpg", 1, 1)
    save(tmp_path / paths[0] / WNIDS[1] / "0.jpg", 1, 1)
    with pytest.raises(ValueError, match=message):
        ImageNetC(allow_partial=True).open(Given(own=lambda: None, place=tmp_path, image_size=SIDE))


def test_a_model_of_other_classes_is_refused(tmp_path):
    save(tmp_path / A[0] / "0.jpg", 1, 1)
    save(tmp_path / A[1] / "0.jpg", 1, 1)
    with pytest.raises(ValueError, match=f"reader has not got 1 of the 2 classes of .* {A[1]}: me"):
        measured(ImageNetA(allow_partial=True), tmp_path, Reader(), classes=(A[0], "cat"))


def test_a_checkpoint_on_the_command_line(imagenet_a, tmp_path, capsys):
    root = imagenet_a[0]
    parts = {"img_size": 32, "depth": 1, "embed_dim": 24, "num_heads": 3}
    torch.manual_seed(0)
    model = timm.create_model(VIT, num_classes=1000, **parts).eval()
    torch.nn.init.normal_(model.head.weight)
    record = model_record(VIT, **parts)
    torch.save({"state_dict": model.state_dict(), **record}, tmp_path / "a.pt")
    command = ["eval", "imagenet-a", "--checkpoint", str(tmp_path / "a.pt")]
    command += ["--data", str(root), "--out", str(tmp_path / "out")]
    assert main(command) == 0
    assert "top1, higher is better" in capsys.readouterr().out
    config = timm.get_pretrained_cfg(VIT)
    prepare = timm.data.create_transform(
        32, interpolation="bicubic", mean=config.mean, std=config.std, crop_pct=config.crop_pct
    )
    files = sorted(root.rglob("*.jpg"))
    with torch.no_grad():
        logits = model(torch.stack([prepare(Image.open(file)) for file in files]))
    top, said = logits[:, [WNIDS.index(wnid) for wnid in A]].softmax(1).max(1)
    right = np.array([A[number] for number in said]) == [file.parent.name for file in files]
    [arrays] = (tmp_path / "out").glob("*/seed0/eval-imagenet-a-*.npz")
    kept = np.load(arrays)
    assert kept["confidence"] == pytest.approx(top.numpy(), rel=1e-4)
    assert np.array_equal(kept["right"], right)
    table = pd.read_csv(tmp_path / "out" / "evaluations.csv").set_index(["metric", "setting"])
    assert table.value["top1"].item() == pytest.approx(100 * right.mean())
    assert set(table.dataset) == {"imagenet-a"} and set(table.labels) == {True}
    assert main([*command[:1], "imagenet-o", *command[2:]]) == 2
    assert "imagenet-o needs --id-data DIR" in capsys.readouterr().err
