"""The options of the commands, each with a sentence of help."""

from __future__ import annotations

import argparse
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn

from mixbench import __version__
from mixbench.commands.recipe_options import add_recipe_options
from mixbench.comparison.plan import MODES
from mixbench.data.datasets import DATASETS, PREFIXES
from mixbench.data.scene_area import AREA
from mixbench.files import shipped
from mixbench.registry import load_plugin
from mixbench.values import did_you_mean, read_text, shortened, shown

ROUNDS = 5
MOST_WORKERS = 1024
MOST_SEEDS = 1000  # of a range
COMMANDS = {  # name -> what it does
    "bench": "compare strategies: measure what the options ask for, by default a demonstration",
    "train": "train strategies and model by any recipe: bench --mode accuracy",
    "speed": "time strategies: bench --mode speed, every built-in one in 40 rounds",
    "report": "write report.html of one run, of several merged, or an overview of several models",
    "eval": "measure more of a run's models: label error, robustness, attention",
    "transfer": "fine-tune a run's models for segmentation or detection and compare them",
    "sweep": "send every strategy and seed to Slurm as a job and collect the rows",
    "list": "list strategies, recipes, models, datasets or runs; --json for programs",
    "zoo": "list the paper's models beside the paper's figures: list models",
}


class Parser(argparse.ArgumentParser):
    """A parser whose mistakes are ValueErrors with the nearest option; no abbreviations."""

    def __init__(self, name: str, *, add_help: bool = True):
        super().__init__(
            add_help=add_help,
            prog=f"mixbench {name}" if name != "bench" else "mixbench",
            description=f"{COMMANDS[name][0].upper()}{COMMANDS[name][1:]}.",
            formatter_class=argparse.RawDescriptionHelpFormatter,
            allow_abbrev=False,
        )

    def error(self, message: str) -> NoReturn:
        """Raise the mistake as a ValueError."""
        raise ValueError(shortened(message, 400))

    def parse(self, argv: list[str]) -> argparse.Namespace:
        """The options; ValueError with the nearest one for an unknown option."""
        known = [option for action in self._actions for option in action.option_strings]
        options, unknown = self.parse_known_intermixed_args(argv)
        if unknown:
            name = unknown[0].partition("=")[0]
            hint = "see --help"
            if name.startswith("-"):
                nearest = did_you_mean(name, known)
                hint = nearest if "did you" in nearest else hint
            raise ValueError(f"unknown option {shown(unknown[0])}: {hint}")
        return options


def overview() -> str:
    """The help of all commands."""
    return f"""usage: mixbench COMMAND [options]

Train and time image-mixing strategies under one recipe and write one comparison.

{_commands()}

examples:
  mixbench bench --strategies cutmix,transmix
  mixbench bench --strategies none,cutmix,transmix --data DIR --config quick --seeds 0-6
  mixbench list recipes

documentation: {shipped("docs")}
examples: {shipped("examples")}

`mixbench COMMAND --help` lists the options of a command, `mixbench --version` says the version."""


def _commands() -> str:
    """Every command with a sentence, a line each."""
    lines = [f"  mixbench {name:<8} {sentence}" for name, sentence in COMMANDS.items()]
    return "\n".join(["commands:", *lines])


def bench_parser(command: str = "bench", **defaults: Any) -> Parser:
    """The parser of `bench`, or of a command that is the same with other defaults.

    Every field of the recipe is an option too.
    """
    parser = Parser(command)
    parser.usage = f"mixbench {command} [options]"
    parser.description = (
        "Train and time image-mixing strategies under one recipe and write one comparison CSV."
    )
    parser.epilog = (
        "example: python bench.py --strategies cutmix,'transmix(attention_weight=1.0)' "
        "--data imagenette\n\n" + _commands()
    )
    parser.add_argument("--version", action="version", version=f"mixbench {__version__}")
    _add_what(parser)
    _add_data(parser)
    _add_measurement(parser)
    _add_output(parser)
    add_recipe_options(parser)
    parser.set_defaults(**defaults)
    return parser


def _add_what(parser: Parser) -> None:
    add = parser.add_argument_group("what to compare").add_argument
    add(
        "--strategies",
        default="cutmix,transmix",
        help="names or spec texts, comma-separated (default: %(default)s)",
    )
    add("--list", action="store_true", help="list the strategies with their parameters and stop")
    add_plugin_option(parser)
    add(
        "--config",
        type=path_or_name,
        metavar="FILE",
        help="recipe, a YAML file or a shipped one's name (default: quick; deit_small with data; "
        "finetune with --init or --pretrained)",
    )
    add(
        "--seeds",
        type=seeds,
        metavar="0,1,2",
        help="one run of every strategy for each, 0-7 is a range (default: the recipe's seed)",
    )


def add_plugin_option(parser: Parser) -> None:
    """Add --plugin, which `load_plugins` reads."""
    parser.add_argument(
        "--plugin",
        type=path_or_name,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file, or the name of an installed module, that registers strategies",
    )


def add_class_names_option(add: Callable[..., object]) -> None:
    """Add --class-names, with a parser's or a group's `add_argument`."""
    add(
        "--class-names",
        type=path,
        metavar="FILE",
        help="what people call the classes, for pictures and tables: a line each, the folder, a "
        "tab, the name (default: the folders; ImageNet's wnids by WordNet)",
    )


def load_plugins(options: argparse.Namespace) -> None:
    """Run the files, and import the modules, that --plugin names."""
    for plugin in options.plugin:
        load_plugin(plugin)


def _add_data(parser: Parser) -> None:
    add = parser.add_argument_group("data").add_argument
    add("--data", type=path, metavar="DIR", help="image folder with train/ and val/")
    add(
        "--dataset",
        metavar="NAME",
        help=f"a data set by name: {', '.join(DATASETS)}, or "
        f"{', '.join(f'{start}{rest}' for start, rest in PREFIXES.items())} (default: scenes, "
        "which needs no download)",
    )
    add("--download", action="store_true", help="fetch the --dataset")
    add(
        "--scene-area",
        metavar="LOW,HIGH",
        help="the least and most of a scene that its object's square takes (default: "
        f"{AREA[0]},{AREA[1]})",
    )
    add("--limit-train", type=count, metavar="N", help="train on a class-balanced subset")
    add("--limit-val", type=count, metavar="N", help="validate on a class-balanced subset")
    add(
        "--workers",
        type=whole(0, MOST_WORKERS),
        metavar="N",
        help="loader processes (default: by data and cores)",
    )
    add(
        "--check-data",
        action="store_true",
        help="decode every image once before anything else, and keep the hash of their bytes",
    )
    add(
        "--skip-unreadable",
        action="store_true",
        help="as --check-data, but leave out images that cannot be decoded",
    )
    add_class_names_option(add)
    add(
        "--cache",
        choices=("ram",),
        help="decode every image once and keep it in memory; changes no pixel",
    )


def _add_measurement(parser: Parser) -> None:
    add = parser.add_argument_group("what to measure, and where").add_argument
    add(
        "--mode",
        choices=MODES,
        default="both",
        help="what to measure (default: %(default)s)",
    )
    add(
        "--rounds",
        type=count,
        default=ROUNDS,
        metavar="N",
        help="timed rounds of the speed part (default: %(default)s)",
    )
    add(
        "--val-interval",
        type=count,
        default=1,
        metavar="N",
        help="evaluate the validation images after every N-th epoch, and after the last; changes "
        "no figure of the last (default: %(default)s)",
    )
    add(
        "--profile",
        action="store_true",
        help="with the speed part: the dearest operators of each strategy, and a trace",
    )
    add(
        "--peers",
        action="store_true",
        help="with the speed part: other packages' mixing beside ours; in a checkout only",
    )
    add(
        "--evaluate",
        type=names,
        default=(),
        metavar="NAME,NAME",
        help="after training measure what mixbench eval does: label-error, occlusion, shuffle, ...",
    )
    add(
        "--side-by-side",
        type=count,
        metavar="N",
        help="strategies of a seed that train at once on one loader; changes no figure (default: "
        "as many as fit in memory)",
    )
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")


def _add_output(parser: Parser) -> None:
    add = parser.add_argument_group("output").add_argument
    add(
        "--out",
        type=path,
        metavar="DIR",
        help="output directory (default: runs/<recipe>-<hash of what was asked>)",
    )
    add("--csv", type=path, metavar="FILE", help="also write comparison.csv here")
    add("--json", type=path, metavar="FILE", help="also write every table here, as one document")
    add(
        "--log",
        type=names,
        default=(),
        metavar="NAME,NAME",
        help="also log each epoch by tensorboard or wandb, files under the output directory",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with a run that was stopped; what is finished is not done again",
    )
    add("--dry-run", action="store_true", help="say what would run, and stop")
    add("--print-recipe", action="store_true", help="print the resolved recipe and stop")


def whole(low: int, high: int = 10**9) -> Callable[[str], int]:
    """A reader of whole numbers from `low` to `high`, for argparse."""

    def read(text: str) -> int:
        try:
            number = read_text(text, int, "it")
        except ValueError:
            number = low - 1
        if not low <= number <= high:
            least = f"above {low - 1}" if low == 1 else f"of {low} or more"
            raise argparse.ArgumentTypeError(
                f"must be a whole number {least}, at most {high}, not {shown(text)}"
            )
        return number

    return read


count = whole(1)


def hours(text: str) -> float:
    """A number of hours, for argparse."""
    try:
        number = read_text(text, float, "it")
    except ValueError:
        number = 0.0
    if not 0.1 <= number <= 10**5:
        raise argparse.ArgumentTypeError(
            f"must be hours, 0.1 or more and at most 100000, not {shown(text)}"
        )
    return number


def path(text: str) -> Path:
    """A path, which is not empty, for argparse."""
    if not text or "\0" in text:
        raise argparse.ArgumentTypeError(f"must be a path, not {shown(text)}")
    return Path(text)


def path_or_name(text: str) -> str:
    """The text of a path or of a name: `./quick` is a path, `quick` a shipped recipe's name."""
    path(text)
    return text


def names(text: str) -> tuple[str, ...]:
    """Names, comma-separated, for argparse."""
    return tuple(name.strip() for name in text.split(","))


def seeds(text: str) -> tuple[int, ...]:
    """Different whole numbers, comma-separated; `0-7` stands for 0 to 7."""
    try:
        numbers = [seed for part in text.split(",") for seed in _seed_range(part)]
    except ValueError:
        numbers = []
    if not numbers or len(set(numbers)) < len(numbers) or min(numbers) < 0:
        raise argparse.ArgumentTypeError(
            f"must be different whole numbers such as 0,1,2 or a range such as 0-7, not "
            f"{shown(text)}"
        )
    if max(numbers) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be below 2**63, not {shown(max(numbers))}")
    return tuple(numbers)


def _seed_range(text: str) -> range:
    """The seeds of one part: of a number itself, of two with a hyphen those and all between."""
    first, hyphen, last = text.partition("-")
    if not hyphen:
        last = first
    elif not first.strip():
        raise ValueError("a negative number")
    low, high = (read_text(end, int, "it") for end in (first, last))
    if high - low >= MOST_SEEDS:
        raise argparse.ArgumentTypeError(
            f"must be at most {MOST_SEEDS} seeds in a range, not {shown(text)}"
        )
    if high < low:
        raise ValueError("a range that ends before it begins")
    return range(low, high + 1)
