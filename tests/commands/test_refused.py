"""What does not fit a strategy is one sentence before training, and leaves nothing behind."""

import pytest

from mixbench.cli import main

ACCURACY = ["--mode", "accuracy"]


@pytest.mark.parametrize(
    ("specs", "options", "message"),
    [
        ("oacutmix", [], "the train images have none: lay them in masks/train/"),
        ("transmix(base=oacutmix)", [], "the train images have none: lay them in masks/train/"),
        ("none,tokenmix(patch=64)", [], "needs 2 x 2 tokens or more, not 1 x 1 of 32 x 32 px"),
        ("alternate(first=gridmix(high=20))", [], "at most half the images' width, 32 px, not 20"),
        ("smmix", ["--model", "resnet18"], "resnet18"),
        ("smmix", ["--image-size", "33"], "33"),
        ("maskmix(grid=40)", [], "40"),
    ],
)
def test_what_does_not_fit_is_refused_before_training(
    specs, options, message, tmp_path, capsys, photographs
):
    data = photographs(tmp_path / "data")
    command = ["--data", str(data), "--strategies", specs, *ACCURACY, "--config", "quick"]
    assert main([*command, *options, "--batch-size", "8", "--out", str(tmp_path / "run")]) == 2
    assert message in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
