"""The command line: parse, check before anything heavy is imported, run, write."""

from __future__ import annotations

import argparse
import dataclasses
import shlex
import sys
import typing
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import Any, NoReturn

from mixbench.comparison.plan import Plan
from mixbench.data.folders import check_splits
from mixbench.recipe import HINTS, Recipe, load_recipe, recipe_hash, recipe_text
from mixbench.registry import BUILTIN, list_strategies, load_plugin, strategy_class
from mixbench.runs.directory import check_out, numbered
from mixbench.spec import create_strategies, strategy_spec
from mixbench.values import did_you_mean

DATASETS = ("scenes", "cifar10", "cifar100", "fashionmnist")
ROUNDS = 5
STAYS = "what was written so far stays, --resume goes on from there"
PLAN_OPTIONS = (
    "data",
    "dataset",
    "download",
    "limit_train",
    "limit_val",
    "mode",
    "rounds",
    "device",
    "workers",
    "cache",
    "csv",
    "resume",
    "profile",
    "peers",
    "log",
)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser; every field of the recipe is an option too."""
    parser = _Parser(
        prog="mixbench",
        allow_abbrev=False,
        description="Train and time image-mixing strategies under one recipe and write one comparison CSV.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
        epilog="example: python bench.py --strategies cutmix,'transmix(attention_weight=1.0)' --data imagenette\n\ncommands:\n"
        + "\n".join(
            f"  mixbench {name:<8} {(command.__doc__ or '').splitlines()[0]}"
            for name, command in COMMANDS.items()
        ),
    )
    add = parser.add_argument
    add(
        "--strategies",
        default="cutmix,transmix",
        help="names or spec texts, comma-separated (default: %(default)s)",
    )
    add("--list", action="store_true", help="list the strategies with their parameters and stop")
    add(
        "--plugin",
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that registers strategies",
    )
    add(
        "--config",
        metavar="FILE",
        help="recipe, a YAML file or a shipped one's name (default: quick; deit_small with data)",
    )
    add("--data", type=Path, metavar="DIR", help="image folder with train/ and val/")
    add(
        "--dataset",
        choices=DATASETS,
        help="a data set by name (default: scenes, which needs no download)",
    )
    add("--download", action="store_true", help="fetch the --dataset")
    add("--limit-train", type=_count, metavar="N", help="train on a class-balanced subset")
    add("--limit-val", type=_count, metavar="N", help="validate on a class-balanced subset")
    add(
        "--seeds",
        type=_seeds,
        metavar="0,1,2",
        help="one run of every strategy for each (default: the recipe's seed)",
    )
    add(
        "--mode",
        choices=("accuracy", "speed", "both"),
        default="both",
        help="what to measure (default: %(default)s)",
    )
    add(
        "--rounds",
        type=_count,
        default=ROUNDS,
        metavar="N",
        help="timed rounds of the speed part (default: %(default)s)",
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
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    add(
        "--workers",
        type=int,
        metavar="N",
        help="loader processes (default: by the data and the cores)",
    )
    add(
        "--cache",
        choices=("ram",),
        help="decode every image once and keep it in memory; changes no pixel",
    )
    add(
        "--out",
        type=Path,
        metavar="DIR",
        help="output directory (default: runs/<recipe>-<hash of what was asked>)",
    )
    add("--csv", type=Path, metavar="FILE", help="also write the comparison here")
    add(
        "--log",
        choices=("tensorboard",),
        help="also log each epoch for TensorBoard, under the output directory",
    )
    add(
        "--resume",
        action="store_true",
        help="go on with a run that was stopped; what is finished is not done again",
    )
    add("--dry-run", action="store_true", help="say what would run, and stop")
    add("--print-recipe", action="store_true", help="print the resolved recipe and stop")
    group = parser.add_argument_group("recipe", "each field of the recipe, over the YAML's value")
    for field in dataclasses.fields(Recipe):
        hint = HINTS[field.name]
        names = list(dict.fromkeys([f"--{field.name.replace('_', '-')}", f"--{field.name}"]))
        if hint is bool:
            group.add_argument(
                *names,
                action=argparse.BooleanOptionalAction,
                default=argparse.SUPPRESS,
                dest=f"recipe.{field.name}",
            )
        else:
            parts = [part.__name__ for part in typing.get_args(hint) if part is not type(None)]
            kind = hint.__name__ if isinstance(hint, type) else ",".join(parts)
            group.add_argument(
                *names, default=argparse.SUPPRESS, dest=f"recipe.{field.name}", metavar=kind.upper()
            )
    return parser


def _count(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


def _seeds(text: str) -> tuple[int, ...]:
    parts = [part.strip() for part in text.split(",")]
    if not all(part.isdecimal() for part in parts) or len(set(parts)) < len(parts):
        raise argparse.ArgumentTypeError(
            f"must be different whole numbers such as 0,1,2, not {text!r}"
        )
    if max(map(int, parts)) >= 2**63:
        raise argparse.ArgumentTypeError(f"must be below 2**63, not {max(map(int, parts))}")
    return tuple(int(part) for part in parts)


def parse(argv: list[str], parser: argparse.ArgumentParser | None = None) -> argparse.Namespace:
    """The options; ValueError with the nearest one for an unknown option."""
    parser = parser or build_parser()
    known = [option for action in parser._actions for option in action.option_strings]
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        hint = did_you_mean(name, known) if name.startswith("-") else "options begin with --"
        raise ValueError(
            f"unknown option {unknown[0]!r}: {hint if 'did you' in hint else 'see --help'}"
        )
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 where a strategy failed, 2 for a user's mistake, 130 when interrupted."""
    argv = sys.argv[1:] if argv is None else list(argv)
    name = argv.pop(0) if argv and not argv[0].startswith("-") else "bench"
    try:
        if name not in COMMANDS:
            raise ValueError(f"unknown command {name!r}: {did_you_mean(name, COMMANDS)}")
        return COMMANDS[name](argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except OSError as error:
        print(f"error: {error}; {STAYS}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        print(f"interrupted: {STAYS}", file=sys.stderr)
        return 130
    except Exception:  # a dead loader worker, or a fault of ours: the traceback says which
        print(f"stopped: {STAYS}", file=sys.stderr)
        raise


def bench(argv: list[str]) -> int:
    """Compare strategies (the command without a name): check, measure and write what the options ask for; the exit status."""
    options = parse(argv)
    for path in options.plugin:
        load_plugin(path)
    if options.list:
        _print_strategies()
        return 0
    plan = plan_of(options, argv)
    if options.print_recipe:
        print(recipe_text(plan.recipe), end="")
        return 0
    if plan.data is not None:
        check_splits(plan.data)
    check_out(plan.out, plan.stamp, csv=plan.csv, resume=plan.resume)
    if options.dry_run:
        _describe(plan)
        return 0
    from mixbench.comparison.comparison import Bench

    return Bench(plan).run()


def plan_of(options: argparse.Namespace, argv: list[str]) -> Plan:
    """What the options ask for; ValueError for a mistake in them."""
    strategies = create_strategies(options.strategies)
    if options.data and options.dataset:
        raise ValueError("--data and --dataset exclude each other: give one")
    if options.mode == "accuracy" and (options.profile or options.peers):
        raise ValueError(
            "--profile and --peers belong to the speed part: take --mode speed or both"
        )
    if options.log and not find_spec("tensorboard"):
        raise ValueError("--log tensorboard needs TensorBoard: pip install tensorboard")
    if options.peers and not find_spec("baselines"):
        raise ValueError("--peers needs the folder baselines/ of a checkout: run it there")
    if options.workers is not None and options.workers < 0:
        raise ValueError(f"--workers must be 0 or more, not {options.workers}")
    real = options.data is not None or options.dataset not in (None, "scenes")
    config = options.config or ("deit_small" if real else "quick")
    overrides = {
        key.partition(".")[2]: value
        for key, value in vars(options).items()
        if key.startswith("recipe.")
    }
    recipe = load_recipe(config, overrides)
    plan = Plan(
        strategies=strategies,
        recipe=recipe,
        seeds=options.seeds or (recipe.seed,),
        out=Path(),
        command=shlex.join(["python", "bench.py", *argv]),
        **{name: getattr(options, name) for name in PLAN_OPTIONS},
    )
    asked = [strategy_spec(strategy) for strategy in strategies], plan.seeds, plan.mode, plan.rounds
    name = f"{Path(config).stem}-{recipe_hash(recipe, of=plan.stamp, asked=asked)}"
    return dataclasses.replace(
        plan, out=options.out or numbered(Path("runs") / name, options.resume)
    )


def train(argv: list[str]) -> int:
    """Train one strategy and model by any recipe: `bench --mode accuracy` for one strategy, which ends in last.pt."""
    return bench(["--mode", "accuracy", "--strategies", "transmix", *argv])


def speed(argv: list[str]) -> int:
    """Time strategies: `bench --mode speed`, every built-in one and 40 rounds unless told otherwise."""
    return bench(["--mode", "speed", "--rounds", "40", "--strategies", ",".join(BUILTIN), *argv])


def report(argv: list[str]) -> int:
    """Write report.html of one run, or of several that are merged: `mixbench report RUN... --out DIR`."""
    from mixbench.report.page import report_runs

    parser = _Parser(prog="mixbench report", allow_abbrev=False, description=report.__doc__)
    parser.add_argument(
        "runs", nargs="+", type=Path, metavar="RUN", help="a directory that the command wrote"
    )
    parser.add_argument(
        "--out",
        type=Path,
        metavar="DIR",
        help="where the merged comparison goes (default: the one run's directory)",
    )
    parser.add_argument(
        "--mixed-machines",
        action="store_true",
        help="list speeds of different machines in one table",
    )
    options = parser.parse_args(argv)
    print(f"wrote {report_runs(options.runs, options.out, mixed_machines=options.mixed_machines)}")
    return 0


def sweep(argv: list[str]) -> int:
    """Send every strategy and seed to Slurm as a job of its own and collect the rows; the same command again goes on."""
    try:
        from mixbench.commands.sweep import Sweep, add_options
    except ModuleNotFoundError as error:
        if error.name != "submitit":
            raise
        raise ValueError("mixbench sweep needs submitit: pip install 'mixbench[slurm]'") from None
    parser, own = build_parser(), _Parser(add_help=False, allow_abbrev=False)
    add_options(
        parser.add_argument_group(
            "sweep", "what each job may use; all other options are each job's own"
        )
    )
    add_options(own)
    own.add_argument("--csv")  # this and the next are of the sweep, not of its jobs
    own.add_argument("--dry-run", action="store_true")
    options = parse(["--mode", "accuracy", *argv], parser)
    if options.list or options.print_recipe:
        raise ValueError(
            "--list and --print-recipe belong to the command without a name: mixbench --list"
        )
    for path in options.plugin:
        load_plugin(path)
    plan = plan_of(options, ["sweep", *argv])
    if plan.data is not None:
        check_splits(plan.data)
    if options.out is None:
        plan = dataclasses.replace(plan, out=plan.out.with_name(f"{plan.out.name}-sweep"))
    check_out(plan.out, plan.stamp, csv=plan.csv, resume=True)  # the same command again goes on
    return Sweep(plan, options, ["--mode", "accuracy", *own.parse_known_args(argv)[1]]).run()


def zoo(argv: list[str]) -> int:
    """List the paper's models: parameters, multiply-adds, class attention, and the paper's figures beside them."""
    _Parser(prog="mixbench zoo", allow_abbrev=False, description=zoo.__doc__).parse_args(argv)
    from mixbench.models.zoo import zoo_table, zoo_text

    print(zoo_text(zoo_table()))
    return 0


COMMANDS: dict[str, Callable[[list[str]], int]] = {
    command.__name__: command for command in (bench, train, speed, report, sweep, zoo)
}


def _print_strategies() -> None:
    for name in list_strategies():
        cls = strategy_class(name)
        fields = []
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            default = field.default
            fields.append(
                f"{field.name}={_default_text(default)}"
                if default is not dataclasses.MISSING
                else field.name
            )
        print(f"{name}({', '.join(fields)})" if fields else name)


def _default_text(value: Any) -> str:
    from mixbench.mix import MixStrategy

    return strategy_spec(value) if isinstance(value, MixStrategy) else str(value)


def _describe(plan: Plan) -> None:
    from mixbench.comparison.comparison import training_cost

    recipe = plan.recipe
    print(f"would run   {', '.join(map(strategy_spec, plan.strategies))}")
    print(
        f"on          {plan.data or plan.dataset or 'scenes'}, {recipe.model} at {recipe.image_size} px"
    )
    if plan.mode != "speed":
        print(
            f"training    {recipe.total_epochs} epochs x {len(plan.strategies)} strategies x {len(plan.seeds)} seeds, "
            f"batch {recipe.batch_size}"
        )
        print(f"cost        {training_cost(plan)}")
    if plan.mode != "accuracy":
        print(
            f"timing      {recipe.speed_model} at {recipe.speed_image_size} px, {plan.rounds} rounds"
        )
    print(f"output      {plan.out}")


if __name__ == "__main__":
    sys.exit(main())
