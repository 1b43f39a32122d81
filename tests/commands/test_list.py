"""What `mixbench list` says, for people and for programs."""

import json
import subprocess
import sys

import pytest
import torch

from mixbench.cli import main
from mixbench.commands.list import SUBJECTS
from mixbench.data.datasets import DATASETS, check_dataset, open_data
from mixbench.models.zoo import ZOO
from mixbench.recipe import config_dir, load_recipe
from mixbench.registry import BUILTIN
from mixbench.training.batches import Micro

PLUGIN = """
import sys
from dataclasses import dataclass
from mixbench import Needs, register_strategy
from mixbench.strategies.cutmix import CutMix

print("hello")

@register_strategy("mine")
@dataclass(frozen=True)
class Mine(CutMix):
    sizes: tuple[float, ...] = (1.0, float("inf"))

    @property
    def needs(self):
        return Needs(attention="dino")

@register_strategy("wrong")
@dataclass(frozen=True)
class Wrong(CutMix):
    \"\"\"Raises. And says more.\"\"\"

    @property
    def needs(self):
        raise RuntimeError("no luck")
"""


def listed(capsys, *argv):
    """The rows of the one JSON document that the command prints."""
    assert main(["list", *argv, "--json"]) == 0
    document = json.loads(capsys.readouterr().out)
    [rows] = document.values()
    return rows


@pytest.mark.parametrize("subject", SUBJECTS)
def test_each_subject_is_a_document_under_its_name(subject, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main(["list", subject, "--json"]) == 0
    assert list(json.loads(capsys.readouterr().out)) == [subject]
    assert main(["list", subject]) == 0 and capsys.readouterr().out


def test_strategies_for_programs(capsys):
    everyone = {row["name"]: row for row in listed(capsys, "strategies")}
    rows = {name: row for name, row in everyone.items() if name in BUILTIN}  # not other tests' own
    assert tuple(rows) == BUILTIN
    assert all(row["sentence"].endswith(".") for row in rows.values())
    without = {name for name, row in rows.items() if row["paper"] is None}
    assert without == {"none", "alternate"}
    assert rows["transmix"]["paper"] == "TransMix (Chen et al., CVPR 2022)"
    assert rows["transmix"]["sentence"].startswith("The pixels of `base`, and lam = (1 - ")
    assert rows["transmix"]["parameters"][:2] == [
        {"name": "base", "default": "cutmix"},
        {"name": "attention_weight", "default": 0.5},
    ]
    assert rows["transmix"]["needs"] == {"attention": "last"}
    assert rows["puzzlemix"]["cost"]["paper_ratio_to_cutmix"] == 0.432  # 139 / 322 of Table 8
    assert rows["gridmix"]["cost"]["paper_ratio_to_cutmix"] is None


def test_strategies_for_people(capsys):
    assert main(["list"]) == 0
    text = capsys.readouterr().out
    for argv in (["--list"], ["list", "strategies"], ["bench", "--list"]):
        assert main(argv) == 0 and capsys.readouterr().out == text
    lines = text.splitlines()
    at = lines.index("smmix(low=3, high=10)")
    assert lines[at + 1].startswith("    The partner's window") and lines[at + 2] == (
        "    SMMix (Chen et al., ICCV 2023); needs look=patches, tokens; costs 1 more forward pass"
    )


@pytest.mark.parametrize("name", BUILTIN)
def test_the_passes_of_an_update_are_counted(name, learner, capsys):
    """By hooks on a block of the model, in a step of each strategy beside one without mixing."""
    rows = {row["name"]: row for row in listed(capsys)}
    cost = rows[name]["cost"]
    if cost["forward_passes_of_other_networks"]:
        assert name == "attentivecutmix"
        return
    counts = passes(learner(name, compose="only", mix_prob=1.0))
    assert counts == (1 + cost["more_forward_passes"], 1 + cost["more_backward_passes"])


def passes(learner):
    """Forward and backward passes of a learner's model in a micro-batch."""
    counts = {"forward": 0, "backward": 0}

    def count(name):
        counts[name] += 1

    block = learner.model.blocks[0]
    block.register_forward_hook(lambda *_: count("forward"))
    block.register_full_backward_hook(lambda *_: count("backward"))
    images, objects = torch.rand(4, 3, 32, 32), torch.ones(4, 1, 32, 32)
    micro = Micro(images=images, labels=torch.arange(4), objects=objects, step=0)
    with learner.network:
        learner.begin(0).accumulate(micro)
    assert learner.trouble is None and learner.failure is None
    return counts["forward"], counts["backward"]


def test_a_plugin_is_listed_and_a_broken_one_is_a_line(capsys, tmp_path):
    file = tmp_path / "plugin.py"
    file.write_text(PLUGIN)
    rows = {row["name"]: row for row in listed(capsys, "--plugin", str(file))}
    assert rows["mine"]["sentence"] == "" and rows["mine"]["paper"] is None
    assert rows["mine"]["parameters"][-1] == {"name": "sizes", "default": [1.0, "inf"]}
    assert rows["mine"]["cost"]["forward_passes_of_other_networks"] == 1
    assert set(rows["wrong"]) == {"name", "broken"} and "no luck" in rows["wrong"]["broken"]
    assert main(["list", "--plugin", str(file)]) == 0
    lines = capsys.readouterr().out.splitlines()
    [_] = [line for line in lines if line.startswith("mine(alpha=1.0, per_sample=False, sizes=(1")]
    [line] = [line for line in lines if line.startswith("wrong is broken: ")]
    assert "no luck" in line and lines[-1] == line


def test_models_are_the_zoo(capsys):
    rows = {row["name"]: row for row in listed(capsys, "models")}
    assert list(rows) == [entry.name for entry in ZOO]
    deit, swin = rows["deit_small_patch16_224"], rows["ca_swin_tiny"]
    assert (deit["paper_top1"], deit["paper_top1_transmix"]) == (79.8, 80.7)
    assert (swin["paper_top1"], swin["paper_top1_transmix"]) == (81.6, 81.8)
    assert rows["resnet50"]["paper_top1"] == 76.3
    assert rows["vit_small_patch16_224"]["paper_top1"] is None  # Table 6's are DeiT-S's
    assert main(["list", "models"]) == 0
    text = capsys.readouterr().out
    assert main(["zoo"]) == 0 and capsys.readouterr().out == text
    assert listed(capsys, "models") and main(["zoo", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["models"] == list(rows.values())


@pytest.mark.parametrize("argv", [["list"], ["list", "models"], ["list", "runs"], ["--help"]])
def test_a_list_waits_for_no_library(argv):
    """torch takes seconds to import, and 19 models much longer to build."""
    code = f"import sys; from mixbench.cli import main; main({argv}); print('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "False"


def test_recipes(capsys):
    rows = {row["name"]: row for row in listed(capsys, "recipes")}
    assert set(rows) == {path.stem for path in config_dir().glob("*.yaml")}
    assert rows["deit_small"] == {
        "name": "deit_small",
        "model": "deit_small_patch16_224",
        "image_size": 224,
        "epochs": 310,
        "sentence": "The fixed recipe: DeiT-S on ImageNet-1k as TransMix's code trains it.",
    }
    assert all(row["sentence"].endswith(".") for row in rows.values())
    assert rows["quick"]["epochs"] == load_recipe("quick").total_epochs


def test_datasets(capsys):
    names = [row["name"] for row in listed(capsys, "datasets")]
    assert names[0] == "--data DIR"
    for name in DATASETS:
        check_dataset(name)
        assert f"--dataset {name}" in names
    assert {f"--dataset {start}..." for start in ("tar/", "hfds/", "torch/")} <= set(names)
    scenes = open_data()
    sizes = f"{len(scenes.train.labels):,} + {len(scenes.val.labels):,} images"
    assert sizes in DATASETS["scenes"] and len(scenes.classes) == 10


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["modls"], "cannot list 'modls': did you mean 'models'?"),
        (["models", "x"], "DIR is for `mixbench list runs`: leave out 'x'"),
        (["runs", "nowhere"], "nowhere is not a directory: name one that holds runs"),
    ],
)
def test_mistakes(argv, sentence, capsys):
    assert main(["list", *argv]) == 2
    assert capsys.readouterr().err == f"error: {sentence}\n"
