"""Detection on the common loop: stopped and gone on with to the same end, what is measured."""

import dataclasses

import pytest
import torch

from mixbench.data.coco import open_detection
from mixbench.transfer import training
from mixbench.transfer.candidates import Start
from mixbench.transfer.detection import Detection, open_detection_data
from mixbench.transfer.recipe import DetectionRecipe
from tests.support.coco import CLASSES, write_detection
from tests.support.transfers import CPU, MODEL, Stopped, equal, stopped_at, transferred

RECIPE = DetectionRecipe(
    fpn_channels=16,
    box_head_dim=16,
    mask_layers=1,
    anchor_size=8,
    drop_path=0.1,
    rpn_post_nms_top_n_train=20,
    rois_per_image=8,
    short_side=32,
    long_side=64,
    epochs=3,
    batch_size=2,
    milestones=(2,),
    warmup_steps=2,
)


@pytest.fixture
def root(tmp_path):
    return write_detection(tmp_path / "data")


def trained(data, file, runtime=CPU, recipe=RECIPE, seed=0):
    return transferred(Detection(recipe=recipe), data, file, runtime, seed)


def test_a_frozen_encoder_stays_and_the_rest_learns(root, tmp_path):
    recipe = dataclasses.replace(RECIPE, encoder_lr_scale=0.0, weight_decay=0.0)
    data, task = open_detection(root), Detection(recipe=recipe)
    network = task.network(Start(model=MODEL, weights=None), data, 0)
    before = {name: each.clone() for name, each in network.state_dict().items()}
    steps = task.training(network, data, MODEL, 0, CPU)
    training.train_network(network, steps, 0, tmp_path / "a.pt", CPU, "vit")
    after = network.state_dict()
    changed = {name for name, each in before.items() if not torch.equal(each, after[name])}
    assert changed and not [name for name in changed if "encoder" in name]


def test_what_was_stopped_goes_on_to_the_same_weights(root, tmp_path, monkeypatch):
    data = open_detection(root)
    whole = trained(data, tmp_path / "a.pt")
    monkeypatch.setattr(training, "KEEP_EVERY", 0.0)
    with pytest.raises(Stopped):
        trained(data, tmp_path / "b.pt", dataclasses.replace(CPU, say=stopped_at("epoch 3/3")))
    lines = []
    assert equal(
        whole, trained(data, tmp_path / "b.pt", dataclasses.replace(CPU, say=lines.append))
    )
    assert len(lines) == 1 and "epoch 3/3" in lines[0]
    assert not equal(whole, trained(data, tmp_path / "c.pt", seed=1))


def test_every_image_is_measured_and_the_picture_shows_those_with_an_object(root, tmp_path):
    data = open_detection(root)
    network = trained(data, tmp_path / "a.pt")
    result = Detection(recipe=RECIPE).measure(network, data, MODEL, CPU)
    figures = {(each.setting, each.metric): each for each in result.figures}
    assert {key[1] for key in figures if key[0] == "masks"} == {"ap", "ap50", "ap75"}
    assert {each.n for each in result.figures} == {3}
    for name in CLASSES:
        known = figures[name, "class_ap_boxes"].value
        assert (known is None) == (name == "bus" and not data.val.counts[2])
    assert result.images["detections"].shape == (3,)
    assert result.files[".png"].startswith(b"\x89PNG")


def test_what_is_left_out_is_said(root):
    lines = []
    runtime = dataclasses.replace(CPU, say=lines.append)
    open_detection_data(root, RECIPE, runtime)
    assert lines == [
        "left out of the training of data: 2 images without an object",
        "left out of the training of data: 2 crowds",
        "left out of the training of data: 3 objects without a pixel, or narrower than one",
        "left out of the validation of data: 1 crowds",
    ]
    lines.clear()
    data = open_detection_data(root, dataclasses.replace(RECIPE, limit_classes=1), runtime)
    assert data.classes == ("bus",) and lines[0] == "data: the classes are bus"
    assert not [line for line in lines if "has bus" in line]
