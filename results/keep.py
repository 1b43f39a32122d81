"""Keep the figures of a finished run, or of several that a report would merge, in results/.

python -m results.keep NAME RUN [RUN ...] [--also COMMAND]

A RUN is the directory that training wrote, or the NAME-DATE-top1.csv that was kept of one: seeds
that were trained on several machines or days become one comparison.

NAME-DATE-top1.csv has their rows, NAME-DATE-top1.md the page, which begins with the commands,
NAME-DATE-evaluations.csv what `mixbench eval` measured of them, and NAME-DATE-label-error.svg is
drawn where rows have a label error.
"""

from __future__ import annotations

import argparse
import re
import shlex
import shutil
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from mixbench.files import replace_file
from mixbench.report.evaluated import Evaluated, evaluated
from mixbench.report.figures import gains_figure
from mixbench.report.summary import compare_runs, figures, strategies
from mixbench.report.tables import markdown_code, markdown_page, markdown_text, text_table
from mixbench.runs.directory import RunDirectory
from mixbench.runs.environment import today
from mixbench.runs.merge import ReportData, read_runs
from mixbench.runs.rows import EvaluationRow, RunRow, write_table

RESULTS = Path(__file__).parent


def main(argv: Sequence[str] | None = None, results: Path = RESULTS) -> int:
    """Write the tables and the page into the folder `results`; the exit status."""
    parser = argparse.ArgumentParser(prog="results.keep", description=__doc__, allow_abbrev=False)
    add = parser.add_argument
    add("name", help="what the files' names begin with")
    add(
        "runs", nargs="+", type=Path, metavar="RUN", help="a run's directory, or a table kept of it"
    )
    add("--also", action="append", default=[], metavar="COMMAND", help="that measured more of them")
    options = parser.parse_args(argv)
    data = read_kept(options.runs)
    if data.damaged:
        print(*data.damaged, "nothing is kept: mend it with --resume", sep="\n", file=sys.stderr)
        return 1
    stem = f"{options.name}-{today()}"
    page = results / f"{stem}-top1.md"
    write_table(page.with_suffix(".csv"), RunRow, data.tables.runs)
    commands = list(dict.fromkeys(map(without_paths, data.commands))) or [""]
    text = markdown_page(data.tables, commands[0], data.correct)
    more = [*commands[1:], *map(without_paths, options.also)]
    if more:
        text += "\nAlso: " + ", ".join(map(markdown_code, more)) + ".\n"
    comparison = compare_runs(data.tables.runs, data.correct)
    assert comparison is not None
    drawn = gains_figure(comparison, figures(data.tables.runs, "label_error"))
    picture = results / f"{stem}-label-error.svg"
    table = results / f"{stem}-evaluations.csv"
    for earlier in (picture, table):  # of what was kept today under this name
        earlier.unlink(missing_ok=True)
    if drawn:
        replace_file(picture, drawn)
        text += f"\n![top-1 gained against label error removed]({picture.name})\n"
    if data.evaluations:
        write_table(table, EvaluationRow, data.evaluations)
        for each in evaluated(data.evaluations, strategies(data.tables)):
            text += "\n".join(["", *lines_of(each), ""])
    replace_file(page, text)
    print(f"wrote {page} and the tables beside it")
    return 0


def read_kept(runs: Sequence[Path]) -> ReportData:
    """What a report shows of directories and kept tables together; ValueError as `read_runs`.

    Which images were right is not kept: beside a kept table, nothing is said of it.
    """
    kept = [run for run in runs if run.suffix == ".csv"]
    with tempfile.TemporaryDirectory() as folder:
        places = {table: RunDirectory(Path(folder, table.stem)) for table in kept}
        for table, place in places.items():
            place.path.mkdir()
            shutil.copyfile(table, place.runs)
            evaluations = table.with_name(table.name.replace("-top1.csv", "-evaluations.csv"))
            if evaluations.is_file():
                shutil.copyfile(evaluations, place.evaluations)
        data = read_runs([places[run].path if run in places else run for run in runs])
    for table in kept:
        page = table.with_suffix(".md").read_text()
        for line in re.findall("^(?:Also: )?`.*`\\.?$", page, re.MULTILINE):
            data.commands.extend(re.findall("`(.+?)`", line))
    if kept:
        data.correct.clear()
    return data


def without_paths(command: str) -> str:
    """The command with the last names of its paths: where things lie here is nobody's business.

    Without --resume, which a run that was not cut off has no use for.
    """
    words = [word for word in shlex.split(command) if word != "--resume"]
    return shlex.join(
        [
            kind + Path(path).name if path[:1] == "/" else kind + path
            for kind, path in map(_divided, words)
        ]
    )


def _divided(word: str) -> tuple[str, str]:
    """A word such as `coco:DIR` or `--out=DIR` before and after its sign; others are all path."""
    found = re.fullmatch("(.*?[:=])(/.*)", word, re.DOTALL)
    return (found[1], found[2]) if found else ("", word)


def lines_of(each: Evaluated) -> list[str]:
    """One evaluation as Markdown: the figure that is compared, and the others."""
    lines = [f"## {markdown_text(each.title)}", ""]
    lines += text_table(each.header, each.headline)
    if each.settings:
        lines += ["", markdown_text(f"{each.metric}, mean over the seeds with its interval:"), ""]
        lines += text_table(each.settings_header, each.settings)
    return lines


if __name__ == "__main__":
    sys.exit(main())
