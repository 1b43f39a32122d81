"""The command that evaluates the trained models of a run."""

from __future__ import annotations

import argparse
import dataclasses
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from mixbench.commands.options import Parser, add_plugin_option, load_plugins, path
from mixbench.commands.printing import print_line
from mixbench.runs.directory import RunDirectory
from mixbench.values import shown

if TYPE_CHECKING:
    from mixbench.evaluations.evaluation import Evaluation
    from mixbench.runs.rows import EvaluationRow


def evaluate(argv: list[str]) -> int:
    """Measure every strategy and seed of a run, write evaluations.csv; the exit status."""
    names = argv[0].split(",") if argv and not argv[0].startswith("-") else []
    parser = Parser("eval")
    parser.usage = "mixbench eval NAME[,NAME] RUN [options]"
    parser.epilog = "mixbench eval NAME --help has the options of NAME too"
    parser.add_argument("names", metavar="NAME", help=_names())
    parser.add_argument("run", type=path, metavar="RUN", help="a directory that training wrote")
    parser.add_argument(
        "--data", type=path, metavar="DIR", help="where the run's data are, if they were moved"
    )
    parser.add_argument("--device", default="auto", help="auto, cpu, cuda (default: %(default)s)")
    add_plugin_option(parser)
    classes = _classes(names)
    _add_options(parser, classes)
    options = parser.parse(argv)
    if options.names.split(",") != names:
        raise ValueError(f"NAME comes first: {parser.usage}, not {shown(argv[0])}")
    load_plugins(options)
    evaluations = [_made(cls, options) for cls in classes]
    run = RunDirectory(options.run)
    failed = _measure(run, evaluations, options)
    return 1 if failed else 0


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


def _measure(
    run: RunDirectory, evaluations: Sequence[Evaluation], options: argparse.Namespace
) -> bool:
    """Measure what is not yet measured and print what is; whether anything failed."""
    from mixbench.evaluations.subjects import run_data, run_rows, run_subject
    from mixbench.runs import evaluated
    from mixbench.runtime import Runtime, choose_device, explain

    rows, data = run_rows(run), run_data(run, options.data)
    runtime = Runtime(device=choose_device(options.device), say=print_line)
    order, failed = list(dict.fromkeys(row.strategy for row in rows)), False
    for row in rows:
        subject = None
        for evaluation in evaluations:
            named = f"{evaluation.name} of {row.strategy}, seed {row.seed}"
            file = evaluated.result_file(run, row.strategy, row.seed, evaluation)
            if evaluated.is_measured(file):
                continue
            try:
                subject = subject or run_subject(run, row, runtime.device)
                result = evaluation.measure(subject, data, runtime)
            except Exception as error:  # a plug-in may raise anything; the others go on
                failed = True
                print_line(f"no {named}: {explain(error).reason}")
                continue
            evaluated.keep(file, row, evaluation, result)
            print_line(f"measured {named}")
    found = evaluated.write_evaluations(run, order)
    texts = {(each.name, each.text) for each in evaluations}
    _print([row for row in found if (row.evaluation, row.options) in texts], order)
    print_line(f"wrote {run.evaluations}")
    return failed


def _print(rows: Sequence[EvaluationRow], order: Sequence[str]) -> None:
    """The headline of each strategy, compared as top-1 is, and what the seeds show."""
    from mixbench.comparison.screen import make_console
    from mixbench.report.evaluated import evaluated
    from mixbench.report.tables import print_table

    for each in evaluated(rows, order):
        print_line(each.title)
        print_table(each.header, each.headline, make_console())
