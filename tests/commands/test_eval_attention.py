"""mixbench eval voc-jaccard and localize: a checkpoint over images in Pascal VOC's and ImageNet's
layouts, and over scenes."""

import csv

import numpy as np
import pytest
import torch

from mixbench.cli import main
from mixbench.data import annotated
from mixbench.models.build import build_model
from mixbench.models.checkpoints import model_record
from tests.support.boxes import image_net, voc

PARTS = {"patch_size": 4, "embed_dim": 24, "depth": 1, "num_heads": 3}


@pytest.fixture
def checkpoint(tmp_path):
    """A tiny ViT without a classifier, as untrained as the one that it is compared with."""
    name, file = "vit_tiny_patch16_224", tmp_path / "tiny.pth"
    state = build_model(name, 2, 0, image_size=32, **PARTS).state_dict()
    state = {key: value for key, value in state.items() if not key.startswith("head.")}
    torch.save({"state_dict": state} | model_record(name, img_size=32, **PARTS), file)
    return str(file)


@pytest.fixture
def folders(tmp_path):
    """Two photographs with a square on the left, as Pascal VOC and as ImageNet have it."""
    rng = np.random.default_rng(0)
    images = list(rng.integers(0, 100, (2, 40, 40, 3), dtype=np.uint8))
    labels = np.zeros((2, 40, 40), np.uint8)
    for image, numbers in zip(images, labels, strict=True):
        image[10:30, :20] = 255
        numbers[8:32, :22] = 255
        numbers[10:30, :20] = 15
    return {
        "VOC": str(voc(tmp_path / "voc", images, labels)),
        "IMAGENET": str(image_net(tmp_path / "net", [[(1, 11, 20, 30)]] * 2, pixels=images)),
    }


def table(run):
    with (run / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(run, evaluation, metric):
    return {
        row["setting"]: float(row["value"])
        for row in table(run)
        if (row["evaluation"], row["metric"]) == (evaluation, metric)
    }


def test_voc_jaccard(checkpoint, folders, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["eval", "voc-jaccard", "--checkpoint", checkpoint, "--out", str(out)]
    command += ["--masks", f"voc:{folders['VOC']}"]
    assert main([*command, "--workers", "1"]) == 0
    printed = capsys.readouterr().out
    assert "voc-jaccard on voc:voc (protocol=recipe, mass=0.9, void=include" in printed
    found = figures(out, "voc-jaccard", "jaccard")
    assert found["full image"] == 25 and set(found) == {"", "untrained model", "full image"}
    assert found[""] == found["untrained model"] > 0
    before = table(out)
    assert main(command) == 0 and "measured" not in capsys.readouterr().out
    assert main([*command, "--size", "48", "--void", "exclude"]) == 0
    assert len(table(out)) == 2 * len(before)
    [arrays, _] = sorted(out.glob("*/seed0/eval-voc-jaccard-*.npz"))
    with np.load(arrays) as file:
        assert file["jaccard"].shape == file["mask_area untrained model"].shape == (2,)


def test_localize(checkpoint, folders, tmp_path, capsys):
    out = tmp_path / "out"
    command = ["eval", "localize", "--checkpoint", checkpoint, "--out", str(out)]
    command += ["--boxes", f"imagenet:{folders['IMAGENET']}"]
    assert main([*command, "--workers", "1"]) == 0
    assert "localize on imagenet:net (allow_missing=False" in capsys.readouterr().out
    assert figures(out, "localize", "box_iou")["full image"] == 25
    assert figures(out, "localize", "left_out") == {"": 0}
    (tmp_path / "net" / "bbox" / "val" / "ILSVRC2012_val_00000001.xml").unlink()
    assert main(command) == 2
    assert "1 of 2 images have no file of boxes" in capsys.readouterr().err
    assert main([*command, "--allow-missing", "true"]) == 0
    assert sorted(row["value"] for row in table(out) if row["metric"] == "left_out") == [
        "0.0",
        "1.0",
    ]


def test_a_damaged_file_of_boxes_is_named(checkpoint, folders, tmp_path, capsys):
    file = tmp_path / "net" / "bbox" / "val" / "ILSVRC2012_val_00000002.xml"
    file.write_text(file.read_text()[:-5])
    command = ["eval", "localize", "--checkpoint", checkpoint, "--out", str(tmp_path / "out")]
    command += ["--boxes", f"imagenet:{folders['IMAGENET']}", "--workers", "1"]
    assert main(command) == 1
    assert f"UnreadableImage: cannot read boxes {file}: " in capsys.readouterr().out


def test_scenes_are_the_default_and_shared_with_label_error(checkpoint, tmp_path, monkeypatch):
    monkeypatch.setattr(annotated, "SCENES", 20)
    out = tmp_path / "out"
    command = ["eval", "label-error,localize,voc-jaccard", "--checkpoint", checkpoint]
    assert main([*command, "--strategies", "cutmix", "--masks", "scenes", "--out", str(out)]) == 0
    assert {row["dataset"] for row in table(out)} == {"scenes"}
    assert len({row["data_hash"] for row in table(out)}) == 1
    assert figures(out, "localize", "box_iou")[""] > 0
    assert figures(out, "voc-jaccard", "jaccard")[""] > 0


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (
            ["voc-jaccard", "--protocol", "ipvit", "--void", "exclude"],
            "--protocol ipvit says itself what --void is, and exclude is another",
        ),
        (["voc-jaccard", "--mass", "0"], "--mass must be above 0 and at most 1, not 0.0"),
        (["voc-jaccard", "--masks", "imagenet:."], "--masks must be one of scenes, scenes:LOW"),
        (["localize", "--boxes", "voc"], "--boxes must be one of scenes, scenes:LOW,HIGH"),
        (["localize", "--resize", "pad"], "--resize must be one of squash, crop, not 'pad'"),
    ],
)
def test_mistakes_exit_with_2(argv, message, checkpoint, tmp_path, capsys):
    out = tmp_path / "out"
    assert main(["eval", *argv, "--checkpoint", checkpoint, "--out", str(out)]) == 2
    assert message in capsys.readouterr().err
    assert not out.exists()


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["voc-jaccard", "--size", "50"], "take --protocol recipe --size 48 or 52"),
        (["voc-jaccard,localize", "--model", "test_resnet"], "has no class token to take"),
    ],
)
def test_what_a_model_does_not_give_is_said(
    argv, message, checkpoint, tmp_path, monkeypatch, capsys
):
    monkeypatch.setattr(annotated, "SCENES", 3)
    if "--model" in argv:
        model = build_model("test_resnet", 2, 0)
        checkpoint = str(tmp_path / "resnet.pth")
        torch.save(model.state_dict(), checkpoint)
    out = tmp_path / "out"
    assert main(["eval", *argv, "--checkpoint", checkpoint, "--out", str(out)]) == 1
    printed = capsys.readouterr().out
    assert printed.count(message) == len(argv[0].split(","))
