"""The command that lists what there is: strategies, recipes, models, data sets and runs."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

from mixbench.commands.options import Parser, add_plugin_option, load_plugins, path
from mixbench.commands.printing import print_columns, print_line
from mixbench.commands.strategies import strategy_lines, strategy_rows
from mixbench.data.datasets import DATASETS, PREFIXES, TORCH
from mixbench.errors import sentence
from mixbench.models.zoo import ZOO, paper_figures
from mixbench.recipe import config_dir, load_recipe
from mixbench.registry import shadowed_plugins
from mixbench.runs.found import run_rows
from mixbench.values import did_you_mean, shown

Rows = list[dict[str, Any]]


class Subject(NamedTuple):
    """What can be listed: how its rows are found, and printed for a person."""

    rows: Callable[[Path], Rows]
    print: Callable[[Rows], None]


def list_command(argv: list[str]) -> int:
    """Print a list, of strategies where nothing is named; the exit status."""
    parser = Parser("list")
    parser.usage = f"mixbench list [{'|'.join(SUBJECTS)}] [DIR] [options]"
    add = parser.add_argument
    add("subject", nargs="?", default="strategies", metavar="WHAT", help=", ".join(SUBJECTS))
    add("folder", nargs="?", type=path, metavar="DIR", help="where the runs are (default: runs)")
    add("--json", action="store_true", help="as one JSON document")
    add_plugin_option(parser)
    options = parser.parse(argv)
    name = options.subject
    if name not in SUBJECTS:
        raise ValueError(f"cannot list {shown(name)}: {did_you_mean(name, SUBJECTS)}")
    if options.folder is not None and name != "runs":
        raise ValueError(f"DIR is for `mixbench list runs`: leave out {shown(str(options.folder))}")
    if options.folder is not None and not options.folder.is_dir():
        raise ValueError(f"{options.folder} is not a directory: name one that holds runs")
    with redirect_stdout(sys.stderr):  # what a plug-in prints is no part of the list
        load_plugins(options)
        rows = SUBJECTS[name].rows(options.folder or Path("runs"))
    if options.json:
        print(json.dumps({name: rows}, indent=1, allow_nan=False))
    else:
        SUBJECTS[name].print(rows)
    return 0


def zoo(argv: list[str]) -> int:
    """Print the paper's models; the exit status."""
    return list_command(["models", *argv])


def print_strategies(rows: Rows | None = None) -> None:
    """Print every registered strategy with its parameters and their defaults."""
    for row in strategy_rows() if rows is None else rows:
        for line in strategy_lines(row):
            print_line(line)
    for line in shadowed_plugins():
        print_line(sentence(line))


def recipe_rows() -> Rows:
    """The shipped recipes, with the first line of each file."""
    rows = []
    for file in sorted(config_dir().glob("*.yaml")):
        recipe, lines = load_recipe(file), file.read_text(encoding="utf-8").splitlines()
        rows.append(
            {
                "name": file.stem,
                "model": recipe.model,
                "image_size": recipe.image_size,
                "epochs": recipe.total_epochs,
                "sentence": lines[0].removeprefix("# "),
            }
        )
    return rows


def _print_recipes(rows: Rows) -> None:
    names = ("name", "model", "image_size", "epochs", "sentence")
    header = ("recipe", "model", "px", "epochs", "what it is")
    print_columns(header, [[str(row[name]) for name in names] for row in rows], right={2, 3})


def model_rows() -> Rows:
    """The paper's models as they are counted here, and the paper's figures; None without one."""
    rows = []
    for entry in ZOO:
        paper = paper_figures(entry)
        rows.append(
            {
                "name": entry.name,
                "paper_table": int(entry.table.removeprefix("table")),
                "paper_row": entry.row,
                "params": entry.params,
                "macs": entry.macs,
                "class_attention_blocks": entry.blocks,
                "class_attention_grid": entry.grid or None,
                "paper_params_m": _number(paper.params_m),
                "paper_flops_g": _number(paper.flops_g),
                "paper_top1": _number(paper.top1),
                "paper_top1_transmix": _number(paper.top1_transmix),
            }
        )
    return rows


def _number(text: str) -> float | None:
    return float(text) if text else None


def _print_models(rows: Rows) -> None:
    header = [*("model", "paper", "row", "params", "paper", "GMACs", "paper", "paper top-1")]
    header += ["with TransMix", "class attention", "grid"]
    cells = [
        (
            row["name"],
            f"Table {row['paper_table']}",
            row["paper_row"],
            f"{row['params']:,}",
            f"{row['paper_params_m']:g}M" if row["paper_params_m"] else "",
            f"{row['macs'] / 1e9:.2f}",
            *(
                f"{row[name]:.1f}" if row[name] else ""
                for name in ("paper_flops_g", "paper_top1", "paper_top1_transmix")
            ),
            str(row["class_attention_blocks"] or "none"),
            row["class_attention_grid"] or "",
        )
        for row in rows
    ]
    print_columns(header, cells, right=range(3, 10))


def dataset_rows() -> Rows:
    """What --data and --dataset can name."""
    folder = "a folder of images, train/<class>/ and val/<class>/, as ImageNet has them"
    more = {"torch/": f": {', '.join(TORCH)}"}
    named = {f"--dataset {name}": words for name, words in DATASETS.items()}
    named |= {
        f"--dataset {start}...": f"{start}{rest}{more.get(start, '')}"
        for start, rest in PREFIXES.items()
    }
    return [
        {"name": name, "sentence": words} for name, words in {"--data DIR": folder, **named}.items()
    ]


def _print_datasets(rows: Rows) -> None:
    print_columns(("data", "what it is"), [(row["name"], row["sentence"]) for row in rows])


def _print_runs(rows: Rows) -> None:
    if not rows:
        print_line("no runs here: name their directory, `mixbench list runs DIR`")
        return
    cells = [
        (
            row["directory"],
            row["recipe"] or "",
            row["model"] or "",
            ", ".join(row["strategies"]),
            ",".join(map(str, row["seeds"])),
            row["state"],
        )
        for row in rows
    ]
    print_columns(("run", "recipe", "model", "strategies", "seeds", "state"), cells)


SUBJECTS = {
    "strategies": Subject(lambda _: strategy_rows(), print_strategies),
    "recipes": Subject(lambda _: recipe_rows(), _print_recipes),
    "models": Subject(lambda _: model_rows(), _print_models),
    "datasets": Subject(lambda _: dataset_rows(), _print_datasets),
    "runs": Subject(run_rows, _print_runs),
}
