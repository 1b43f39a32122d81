"""mixbench transfer seg: a run's strategies and seeds, the control, what is done once, mistakes."""

import csv
import re
import shutil

import pytest
import torch

from mixbench.cli import main
from mixbench.transfer.recipe import SegmentationRecipe, load_recipe
from tests.support.coloured import write_folder

TRAIN = ["train", "--config", "quick", "--embed-dim", "24", "--depth", "1", "--epochs", "1"]
TRAIN += ["--warmup-epochs", "0", "--mix-prob", "1", "--seeds", "0,1"]
TRAIN += ["--limit-train", "64", "--limit-val", "40"]
SEG = ["--config", "coco100_seg", "--short-side", "40", "--crop-size", "32", "--epochs", "1"]
SEG += ["--window-stride", "24", "--limit-classes", "0", "--batch-size", "4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    out = tmp_path_factory.mktemp("transfer") / "run"
    assert main([*TRAIN, "--strategies", "cutmix,transmix", "--out", str(out)]) == 0
    return out


@pytest.fixture
def run(trained, tmp_path):
    return shutil.copytree(trained, tmp_path / "run")


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("labelled") / "blocks")


SPECS = ("cutmix", "transmix")


def seg(run, data, *options):
    return main(["transfer", "seg", str(run), "--data", str(data), *SEG, *options])


def table(run):
    with (run / "evaluations.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def figures(run, metric="miou"):
    return {
        (row["strategy"], row["seed"], row["setting"]): row["value"]
        for row in table(run)
        if row["metric"] == metric
    }


def test_every_strategy_and_seed_is_transferred_once(run, data, capsys):
    assert seg(run, data, "--decoder", "linear", "--control") == 0
    out = capsys.readouterr().out
    assert out.count("measured seg of") == 6 and "seg on blocks (decoder=linear" in out
    assert "the baseline" in out and "random weights" in out
    found = figures(run)
    assert {key[:2] for key in found} == {
        (spec, seed) for spec in (*SPECS, "random weights") for seed in "01"
    }
    networks = [torch.load(file)["network"] for file in run.glob("*/seed*/eval-seg-*.pt")]
    for name in ("encoder.patch_embed.proj.weight", "decoder.head.weight"):
        assert len({float(each[name].sum()) for each in networks}) == 6
    assert len(figures(run, "class_iou")) == 6 * 4
    assert len(list(run.glob("*/seed*/eval-seg-*.png"))) == 6
    page = (run / "report.html").read_text()
    assert "Transfer" in page and "49.1 % mIoU" in page
    columns = ("photograph", "truth", *(f"{spec}, seed 0" for spec in (*SPECS, "random weights")))
    assert re.findall(r'src="data:image/jpeg[^"]*" alt="([^"]*)"', page) == list(columns)
    before = (run / "evaluations.csv").read_bytes()
    assert seg(run, data, "--decoder", "linear", "--control") == 0
    out = capsys.readouterr().out
    assert "measured" not in out and "epoch 1/1" not in out
    assert (run / "evaluations.csv").read_bytes() == before


def test_other_ways_to_measure_do_not_train_again(run, data, capsys):
    assert seg(run, data, "--decoder", "linear") == 0
    single = figures(run)
    capsys.readouterr()
    assert seg(run, data, "--decoder", "linear", "--ms") == 0
    out = capsys.readouterr().out
    assert "epoch 1/1" not in out and out.count("measured") == 4
    assert len({row["options"] for row in table(run)}) == 2
    both = {key: value for key, value in figures(run).items() if key[2] == "multi-scale"}
    assert len(both) == 4
    again = {
        (row["strategy"], row["seed"], row["setting"]): row["value"]
        for row in table(run)
        if row["metric"] == "miou" and "ms=True" in row["options"]
    }
    assert {key: again[key] for key in single} == single


def test_segmenter_stands_beside_linear(run, data):
    for decoder in ("linear", "segmenter"):
        assert seg(run, data, "--decoder", decoder, "--strategies", "transmix") == 0
    rows = [row for row in table(run) if row["metric"] == "miou"]
    assert {row["strategy"] for row in rows} == {"transmix"}
    assert sorted(row["options"].partition(",")[0] for row in rows) == [
        *["decoder=linear"] * 2,
        *["decoder=segmenter"] * 2,
    ]


def test_a_strategy_that_fails_is_named_and_the_others_go_on(run, data, capsys):
    [weights] = run.glob("cutmix-*/seed0/last.pt")
    weights.write_bytes(b"damaged")
    assert seg(run, data, "--decoder", "linear") == 1
    out = capsys.readouterr().out
    assert "no seg of cutmix, seed 0: failed" in out and "cannot be read" in out
    assert {key[:2] for key in figures(run)} == {
        ("cutmix", "1"), ("transmix", "0"), ("transmix", "1"),
    }  # fmt: skip


def test_a_checkpoint_is_transferred_alone_as_in_its_run(run, data, tmp_path, capsys):
    assert seg(run, data, "--decoder", "linear", "--strategies", "cutmix") == 0
    [weights] = run.glob("cutmix-*/seed0/last.pt")
    where = ["--data", str(data), "--out", str(tmp_path / "out")]
    argv = ["transfer", "seg", "--checkpoint", str(weights), *where, *SEG, "--decoder", "linear"]
    assert main([*argv, "--control"]) == 0
    found = {key[0]: value for key, value in figures(tmp_path / "out").items()}
    [name] = [spec for spec in found if spec.startswith("last.pt ")]
    control = "random weights of vit_tiny_patch16_224, patch_size 8, embed_dim 24, "
    assert set(found) == {name, f"{control}depth 1, num_heads 3"}
    assert found[name] == figures(run)["cutmix", "0", "single-scale"]


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["boxes", "RUN"], "unknown task 'boxes'"),
        (["seg"], "say what to transfer: RUN, a directory of training, or --checkpoint FILE"),
        (["seg", "RUN", "--data", "DATA"], "say which decoder: --decoder linear or segmenter"),
        (["seg", "RUN", "--decoder", "linear"], "say where the images are: --data DIR"),
        (
            ["seg", "RUN", "--data", "DATA", "--decoder", "unet"],
            "decoder must be one of linear, segmenter, not 'unet'",
        ),
        (
            ["seg", "RUN", "--data", "DATA", "--decoder", "linear", "--config", "coco100"],
            "recipe file not found: 'coco100'; did you mean 'coco100_seg'?",
        ),
        (["seg", "RUN", "--data", "NONE", "--decoder", "linear"], "data directory not found"),
        (["seg", "RUN", "--out", "NONE"], "--out belongs to --checkpoint"),
        (["seg", "RUN", "--epoch", "3"], "unknown option '--epoch': did you mean '--epochs'?"),
        (["seg", "NONE", "--data", "DATA", "--decoder", "linear"], "is no run"),
        (
            ["seg", "RUN", "--data", "DATA", "--decoder", "linear", "--strategies", "mixup"],
            "has no 'mixup'",
        ),
        (
            ["seg", "RUN", "--data", "DATA", "--decoder", "linear", "--min-lr", "1"],
            "min_lr 1 must not be above lr 0.001",
        ),
        (
            ["seg", "RUN", "--data", "DATA", "--decoder", "linear", "--window-stride", "481"],
            "window_stride 481 must not be above crop_size 480",
        ),
    ],
)
def test_mistakes_exit_with_2(argv, message, run, data, tmp_path, capsys):
    places = {"RUN": str(run), "DATA": str(data), "NONE": str(tmp_path / "NONE")}
    assert main(["transfer", *(places.get(word, word) for word in argv)]) == 2
    assert message in capsys.readouterr().err
    assert not (run / "evaluations.csv").exists()


def test_a_label_of_no_class_ends_it_before_training(run, tmp_path, capsys):
    root = write_folder(tmp_path / "data", names=("red", "green", "blue"))
    assert seg(run, root, "--decoder", "linear") == 2
    assert "has the label 3, which is none of the classes" in capsys.readouterr().err


def test_classes_that_no_image_has_are_said_and_have_no_figure(run, tmp_path, capsys):
    names = ("red", "green", "blue", "grey", "unicorn")
    root = write_folder(tmp_path / "data", names=names)
    assert seg(run, root, "--decoder", "linear", "--strategies", "cutmix") == 0
    out = capsys.readouterr().out
    assert "no training image of data has unicorn" in out
    assert "no validation image of data has unicorn" in out
    accuracies = figures(run, "class_accuracy")
    assert accuracies["cutmix", "0", "unicorn"] == "" and accuracies["cutmix", "0", "red"] != ""


def test_the_shipped_recipe_is_the_defaults():
    assert load_recipe(SegmentationRecipe, "pascal_context", {}) == SegmentationRecipe()
