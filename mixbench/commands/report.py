"""The command that writes the page of one run or of several."""

from __future__ import annotations

from mixbench.commands.options import Parser, add_class_names_option, path
from mixbench.commands.printing import print_line
from mixbench.runs.directory import RunDirectory
from mixbench.runs.places import check_page, check_places


def report(argv: list[str]) -> int:
    """Write report.html, of several runs also their merged tables; the exit status."""
    parser = Parser("report")
    parser.add_argument(
        "runs", nargs="+", type=path, metavar="RUN", help="a directory that the command wrote"
    )
    parser.add_argument(
        "--out",
        type=path,
        metavar="DIR",
        help="where page and tables go (default: the page alone, in the one run's directory)",
    )
    parser.add_argument(
        "--mixed-machines",
        action="store_true",
        help="list speeds of different machines, models, sizes or precisions in one table",
    )
    add_class_names_option(parser.add_argument)
    options = parser.parse(argv)
    if options.out is not None:
        check_places(options.out, {})
        if RunDirectory(options.out).recipe.exists() and options.runs != [options.out]:
            raise ValueError(
                f"--out {options.out} is a run's own directory, whose tables would be lost: choose "
                "another --out"
            )
    check_page(RunDirectory(options.out or options.runs[0]).report)
    from mixbench.report.page import report_runs

    page = report_runs(
        options.runs,
        options.out,
        mixed_machines=options.mixed_machines,
        class_names=options.class_names,
        say=print_line,
    )
    print_line(f"wrote {page}")
    return 0
