"""The command line: parse, check before anything heavy is imported, run, write."""
from __future__ import annotations

import argparse
import dataclasses
import json
import os
import shlex
import sys
import typing
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from mixbench.recipe import HINTS, Recipe, load_recipe, recipe_hash, recipe_text
from mixbench.registry import create_strategies, did_you_mean, list_strategies, load_plugin, strategy_class, strategy_spec

if TYPE_CHECKING:
    from mixbench.mix import MixStrategy

DATASETS = ("scenes", "cifar10", "cifar100", "fashionmnist")
LONG = 3600  # seconds after which a run deserves a warning
ROUNDS = 5


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        raise ValueError(message)


def build_parser() -> argparse.ArgumentParser:
    """The parser; every field of the recipe is an option too."""
    parser = _Parser(
        prog="mixbench",
        allow_abbrev=False,
        description="Train and time image-mixing strategies under one recipe and write one comparison CSV.",
        epilog="example: python bench.py --strategies cutmix,'transmix(attention_weight=1.0)' --data imagenette",
    )
    add = parser.add_argument
    add("--strategies", default="cutmix,transmix", help="names or spec texts, comma-separated (default: %(default)s)")
    add("--list", action="store_true", help="list the strategies with their parameters and stop")
    add("--plugin", action="append", default=[], metavar="FILE", help="a Python file that registers strategies")
    add("--config", metavar="FILE", help="recipe, a YAML file or a shipped one's name (default: quick; deit_small with data)")
    add("--data", type=Path, metavar="DIR", help="image folder with train/ and val/")
    add("--dataset", choices=DATASETS, help="a data set by name (default: scenes, which needs no download)")
    add("--download", action="store_true", help="fetch the --dataset")
    add("--limit-train", type=_count, metavar="N", help="train on a class-balanced subset")
    add("--limit-val", type=_count, metavar="N", help="validate on a class-balanced subset")
    add("--seeds", type=_seeds, metavar="0,1,2", help="one run of every strategy for each (default: the recipe's seed)")
    add("--mode", choices=("accuracy", "speed", "both"), default="both", help="what to measure (default: %(default)s)")
    add("--rounds", type=_count, default=ROUNDS, metavar="N", help="timed rounds of the speed part (default: %(default)s)")
    add("--device", default="auto", help="auto, cpu, cuda, cuda:1 or mps (default: %(default)s)")
    add("--workers", type=int, metavar="N", help="loader processes (default: by the data and the cores)")
    add("--out", type=Path, metavar="DIR", help="output directory (default: runs/<recipe>-<hash>)")
    add("--csv", type=Path, metavar="FILE", help="also write the comparison here")
    add("--dry-run", action="store_true", help="say what would run, and stop")
    add("--print-recipe", action="store_true", help="print the resolved recipe and stop")
    group = parser.add_argument_group("recipe", "each field of the recipe, over the YAML's value")
    for field in dataclasses.fields(Recipe):
        hint = HINTS[field.name]
        names = list(dict.fromkeys([f"--{field.name.replace('_', '-')}", f"--{field.name}"]))
        if hint is bool:
            group.add_argument(
                *names, action=argparse.BooleanOptionalAction, default=argparse.SUPPRESS, dest=f"recipe.{field.name}"
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
        raise argparse.ArgumentTypeError(f"must be different whole numbers such as 0,1,2, not {text!r}")
    return tuple(int(part) for part in parts)


def parse(argv: list[str] | None) -> argparse.Namespace:
    """The options; ValueError with the nearest one for an unknown option."""
    parser = build_parser()
    known = [option for action in parser._actions for option in action.option_strings]
    options, unknown = parser.parse_known_args(argv)
    if unknown:
        name = unknown[0].partition("=")[0]
        hint = did_you_mean(name, known) if name.startswith("-") else "options begin with --"
        raise ValueError(f"unknown option {unknown[0]!r}: {hint if 'did you' in hint else 'see --help'}")
    return options


def main(argv: list[str] | None = None) -> int:
    """Run the command; the exit status: 0, 1 where a strategy failed, 2 for a user's mistake, 130 when interrupted."""
    try:
        return run(parse(argv), argv)
    except ValueError as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("interrupted: what was written so far stays", file=sys.stderr)
        return 130


def run(options: argparse.Namespace, argv: list[str] | None = None) -> int:
    """Check, measure and write what the options ask for; the exit status."""
    for path in options.plugin:
        load_plugin(path)
    if options.list:
        _print_strategies()
        return 0
    strategies = create_strategies(options.strategies)
    if options.data and options.dataset:
        raise ValueError("--data and --dataset exclude each other: give one")
    if options.workers is not None and options.workers < 0:
        raise ValueError(f"--workers must be 0 or more, not {options.workers}")
    real = options.data is not None or options.dataset not in (None, "scenes")
    config = options.config or ("deit_small" if real else "quick")
    overrides = {key.partition(".")[2]: value for key, value in vars(options).items() if key.startswith("recipe.")}
    recipe = load_recipe(config, overrides)
    if options.print_recipe:
        print(recipe_text(recipe), end="")
        return 0
    if options.data is not None:
        _quick_folder_check(options.data)
    seeds = options.seeds or (recipe.seed,)
    name = Path(config).stem
    source = str(options.data or options.dataset or "scenes")
    limits = {"data": source, "limit_train": options.limit_train, "limit_val": options.limit_val}
    out = options.out or Path("runs") / f"{name}-{recipe_hash(recipe, **limits)}"
    stamp = f"# data: {json.dumps(limits)}\n{recipe_text(recipe)}"
    _check_out(out, stamp)
    if options.dry_run:
        _describe(strategies, recipe, seeds, options, out, source)
        return 0
    _claim(out, stamp)
    return Bench(options, recipe, strategies, seeds, out, shlex.join(["python", "bench.py", *(argv or sys.argv[1:])])).run()


def _print_strategies() -> None:
    for name in list_strategies():
        cls = strategy_class(name)
        fields = []
        for field in dataclasses.fields(cls):  # type: ignore[arg-type]
            default = field.default
            fields.append(f"{field.name}={_default_text(default)}" if default is not dataclasses.MISSING else field.name)
        print(f"{name}({', '.join(fields)})" if fields else name)


def _default_text(value: Any) -> str:
    from mixbench.mix import MixStrategy

    return strategy_spec(value) if isinstance(value, MixStrategy) else str(value)


def _quick_folder_check(root: Path) -> None:
    """What can be said of a data directory before torch is imported."""
    if not root.is_dir():
        raise ValueError(f"data directory not found: {root}")
    for split in ("train", "val"):
        if not (root / split).is_dir():
            raise ValueError(f"{root} has no {split}/ folder: an image folder holds train/<class>/ and val/<class>/")


def _check_out(out: Path, stamp: str) -> None:
    recipe_file = out / "recipe.yaml"
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file: name a directory")
    if recipe_file.is_file() and recipe_file.read_text(encoding="utf-8") != stamp:
        raise ValueError(f"{out} holds a run of another recipe or other data: choose another --out")
    parent = next(path for path in (out, *out.absolute().parents) if path.exists())
    if not os.access(parent, os.W_OK):
        raise ValueError(f"cannot write to {out}: {parent} is not writable; choose another --out")


def _claim(out: Path, stamp: str) -> None:
    try:
        out.mkdir(parents=True, exist_ok=True)
        (out / "recipe.yaml").write_text(stamp, encoding="utf-8")
    except OSError as error:
        raise ValueError(f"cannot write to {out}: {error.strerror}; choose another --out") from None


def _describe(
    strategies: list[MixStrategy], recipe: Recipe, seeds: tuple[int, ...], options: argparse.Namespace, out: Path, source: str
) -> None:
    print(f"would run   {', '.join(map(strategy_spec, strategies))}")
    print(f"on          {source}, {recipe.model} at {recipe.image_size} px")
    if options.mode != "speed":
        print(f"training    {recipe.total_epochs} epochs x {len(strategies)} strategies x {len(seeds)} seeds, batch {recipe.batch_size}")
    if options.mode != "accuracy":
        print(f"timing      {recipe.speed_model} at {recipe.speed_image_size} px, {options.rounds} rounds")
    print(f"output      {out}")


class Bench:
    """One run of the command: its options, and the rows it gathers."""

    def __init__(
        self, options: argparse.Namespace, recipe: Recipe, strategies: list[MixStrategy], seeds: tuple[int, ...], out: Path, command: str
    ):
        from rich.console import Console

        self.options, self.recipe, self.strategies, self.seeds = options, recipe, strategies, seeds
        self.out, self.command = out, command
        self.console = Console(width=None if sys.stdout.isatty() else 150)
        self.device = choose_device(options.device)
        self.speeds: dict[str, Any] = {}
        self.speed_failures: dict[str, str] = {}
        self.rows: list[dict[str, Any]] = []

    def say(self, line: str) -> None:
        self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def run(self) -> int:
        from mixbench.data import open_data
        from mixbench.report import print_table, replace_file
        from mixbench.train import prepare

        recipe, options = self.recipe, self.options
        data = open_data(
            data=options.data, dataset=options.dataset, download=options.download, image_size=recipe.image_size,
            limit_train=options.limit_train, limit_val=options.limit_val,
        )  # fmt: skip
        count = len(data.train.labels)
        if options.mode != "speed" and recipe.batch_size > count:
            raise ValueError(f"batch_size {recipe.batch_size} is larger than the {count} training images: lower --batch-size")
        self.data = data
        self.hash = recipe_hash(recipe, train=data.train.fingerprint, val=data.val.fingerprint, seeds_init=True)
        # a model without class attention is refused here, before anything is trained
        if options.mode != "speed":
            for learner in prepare(self.strategies, recipe, len(data.classes), 0, self.device, 1):
                self.params = sum(p.numel() for p in learner.model.parameters()) / 1e6
        replace_file(self.out / "environment.json", json.dumps(environment(self.device) | {"command": self.command}, indent=1))
        try:
            if options.mode != "accuracy":
                self._speed()
            if options.mode == "speed":
                self._add_rows([], self.seeds[0])
            else:
                self._train()
        finally:
            self._write()
        print_table(self.rows, self._speed_of(), self.console)
        self.say(f"wrote {self.out / 'comparison.csv'} and comparison.md")
        return 0 if all(row["status"] == "ok" for row in self.rows) else 1

    def _speed_of(self) -> str:
        from mixbench.speed import speed_batch

        recipe = self.recipe
        precision = "bf16" if recipe.speed_amp else "fp32"
        return (f"{recipe.speed_model} at {recipe.speed_image_size} px, batch {speed_batch(recipe, self.device)}, {precision}, "
                f"{device_name(self.device)}")

    def _speed(self) -> None:
        from mixbench.speed import measure

        self.say(f"timing {self._speed_of()}")
        self.speeds, self.speed_failures = measure(
            self.strategies, self.recipe, self.device, self.options.rounds, self.say
        )

    def _train(self) -> None:
        from mixbench.plot import mixed_grid
        from mixbench.train import estimate_seconds, train

        recipe = self.recipe
        workers = self.options.workers
        if workers is None:
            workers = 0 if self.data.name == "scenes" else min(os.cpu_count() or 1, 8)
        seconds = estimate_seconds(self.strategies, recipe, self.data, self.device) * len(self.seeds)
        self.say(f"training will take about {duration(seconds)} on this machine, without loading the images")
        if seconds > LONG:
            self.say("that is long: lower --epochs or --limit-train, take --config quick, or use a GPU (--device cuda)")
        for seed in self.seeds:
            learners = train(
                self.strategies, recipe, self.data, seed, self.device, workers=workers, out=self.out, say=self.say
            )
            self._add_rows(learners, seed)
            self._write()
            good = [learner for learner in learners if learner.status == "ok"]
            if seed == self.seeds[0] and good:
                images, labels = self._varied()
                mixed_grid(good, images, labels, self.data.classes, recipe.mean, recipe.std, self.out / "mixed.png")

    def _varied(self) -> tuple[Any, Any]:
        """Sixteen validation images spread over the classes, since the first ones of a folder are all of one."""
        import torch

        from mixbench.data import EvalSet, eval_transform

        labels = self.data.val.labels
        by_class = sorted(range(len(labels)), key=lambda i: (labels[:i].count(labels[i]) if len(labels) < 2000 else i % 97, i))
        picked = [EvalSet(self.data.val, eval_transform(self.recipe))[i] for i in by_class[:16]]
        images, chosen = zip(*picked, strict=True)
        return torch.stack(images).to(self.device), torch.tensor(chosen, device=self.device)

    def _add_rows(self, learners: list[Any], seed: int) -> None:
        by_spec = {learner.spec: learner for learner in learners}
        specs = [strategy_spec(strategy) for strategy in self.strategies]
        if not learners and "cutmix" not in specs:
            specs.insert(0, "cutmix")  # the reference is a row of its own
        for spec in specs:
            self.rows.append(self._row(spec, seed, by_spec.get(spec)))

    def _row(self, spec: str, seed: int, learner: Any) -> dict[str, Any]:
        from mixbench.registry import create_strategy
        from mixbench.report import COLUMNS, SCHEMA_VERSION

        recipe, data = self.recipe, self.data
        strategy = create_strategy(spec)
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= {
            "schema_version": SCHEMA_VERSION, "strategy": spec, "status": "ok", "seed": seed,
            "attention": strategy.needs.attention, "network": strategy.needs.network, "extra_params_m": 0.0,
            "compose": "only", "model": recipe.speed_model, "image_size": recipe.speed_image_size,
            "device": device_name(self.device), "compiled": recipe.compile, "recipe_hash": self.hash,
            "precision": "bf16" if (recipe.amp if learner else recipe.speed_amp) else "fp32",
            "versions": versions(), "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }  # fmt: skip
        if learner is not None:
            last = learner.log[-1] if learner.log and learner.status == "ok" else {}
            ema = recipe.headline == "ema"
            row |= {
                "compose": recipe.compose, "status": learner.status, "dataset": data.name, "train_images": len(data.train.labels),
                "num_classes": len(data.classes), "model": recipe.model, "params_m": self.params,
                "image_size": recipe.image_size, "batch_size": recipe.batch_size, "epochs": recipe.total_epochs,
                "headline": recipe.headline, "top1": last.get("top1_ema" if ema else "top1"),
                "top5": last.get("top5_ema" if ema else "top5"), "top1_ema": last.get("top1_ema"),
                "train_seconds": learner.seconds,
            }  # fmt: skip
        if spec in self.speeds:
            speed = dataclasses.asdict(self.speeds[spec])
            row |= {key: value for key, value in speed.items() if key in COLUMNS}
        if spec in self.speed_failures and row["status"] == "ok":
            row["status"] = self.speed_failures[spec]
        return row

    def _write(self) -> None:
        from mixbench.report import write_csv, write_markdown

        for path in filter(None, (self.out / "comparison.csv", self.options.csv)):
            write_csv(self.rows, path)
        write_markdown(self.rows, self.out / "comparison.md", self.command, self._speed_of())


def duration(seconds: float) -> str:
    """A time as a person says it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"


def choose_device(name: str) -> Any:
    """The torch device of a name; ValueError where it is not there."""
    import torch

    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        raise ValueError(f"--device must be auto, cpu, cuda, cuda:<number> or mps, not {name!r}") from None
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name}: this machine has {torch.cuda.device_count()} CUDA devices; use --device cpu")
    if device.type == "mps" and not torch.backends.mps.is_available():
        raise ValueError("--device mps: not available on this machine; use --device cpu")
    if device.type not in ("cpu", "cuda", "mps"):
        raise ValueError(f"--device must be auto, cpu, cuda, cuda:<number> or mps, not {name!r}")
    return device


def device_name(device: Any) -> str:
    """The product's name."""
    import platform

    import torch

    if device.type == "cuda":
        return torch.cuda.get_device_name(device)
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    model = next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), platform.machine())
    return f"{model}, {torch.get_num_threads()} threads"


def versions() -> str:
    """The versions that decide a run's numbers."""
    from importlib.metadata import version

    from mixbench import __version__

    parts = [f"mixbench {__version__}", f"python {sys.version.split()[0]}"]
    return "; ".join([*parts, *(f"{name} {version(name)}" for name in ("torch", "torchvision", "timm", "numpy"))])


def environment(device: Any) -> dict[str, Any]:
    """What a reader needs to repeat a run."""
    import platform

    import torch

    return {
        "device": device_name(device), "threads": torch.get_num_threads(), "platform": platform.platform(),
        "versions": versions(), "cuda": torch.version.cuda, "date": datetime.now(UTC).isoformat(timespec="seconds"),
    }  # fmt: skip
