"""Measure the machine this runs on: `python -m mixbench.results`, in a plain checkout too; writes results/<device>-<date>*.csv and .md."""

from __future__ import annotations

import argparse
import re
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from functools import cache, partial
from pathlib import Path
from typing import Any

from mixbench.registry import list_strategies

RANDOM = Path(
    "resnet50-random.pth"
)  # in the current folder while it is timed: its name stands in the table
Options = dict[str, str | None]  # of bench.py; None where an option takes no value
TABLE_8: Options = {"--speed-batch-size": "128"}
BF16: Options = TABLE_8 | {"--speed-amp": None}
COMPILED: Options = {"--compile": None}
FEW: Options = {"--rounds": "10", "--strategies": "cutmix,puzzlemix,transmix"}
CPU: Options = {"--speed-batch-size": "16"}
SPEEDS: dict[
    str, dict[str, Options]
] = {  # by the ending of the table's name: in place of all strategies and --rounds, or beside them
    "cpu": {
        "": CPU,
        "-bf16-saliency": CPU | {"--strategies": "cutmix,puzzlemix", "--gradient-amp": "true"},
    },
    "gpu": {
        "-bf16": BF16,
        "-bf16-compiled": BF16 | COMPILED,
        "-fp32": TABLE_8,
        "-tf32": TABLE_8 | {"--tf32": None},
        "-fp32-compiled": TABLE_8 | COMPILED,
        "-tf32-compiled": TABLE_8 | {"--tf32": None} | COMPILED,
        **{
            f"-bf16-batch-{size}": BF16 | FEW | {"--speed-batch-size": str(size)}
            for size in (32, 64, 256, 512, 1024)
        },
        **{
            f"-bf16-{side}px": BF16 | FEW | {"--speed-image-size": str(side)} for side in (160, 384)
        },
    },
}
DEIT_S_FLOP = 27.8e9  # forward and backward of one image at 224 px
OFFLINE = "attentivecutmix(network=efficientnet_lite0)"


def main(argv: Sequence[str] | None = None) -> int:
    """Time the peers and every strategy; with --data train all side by side within --minutes; on a GPU run the GPU tests.

    Each table has a page of its own, written once it is measured; a page of today is not measured again, so a run that was cut off goes on.
    """
    parser = argparse.ArgumentParser(
        prog="mixbench.results", description=__doc__, allow_abbrev=False
    )
    parser.add_argument("--data", help="an image folder to train on")
    parser.add_argument(
        "--minutes", type=float, default=10, help="training time in all (default: %(default)s)"
    )
    parser.add_argument(
        "--rounds", type=int, default=40, help="timed rounds (default: %(default)s)"
    )
    parser.add_argument("--seeds", default="0", help="seeds of the training (default: %(default)s)")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="only put the newest figures of results/ into README.md",
    )
    options = parser.parse_args(argv)
    if options.readme:
        return _write_readme()
    import torch

    from mixbench.files import replace_file
    from mixbench.runs.environment import device_name
    from mixbench.runtime import choose_device

    device = choose_device("auto")
    gpu = device.type == "cuda"
    name = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    stem = f"results/{name}-{datetime.now(UTC):%Y-%m-%d}"
    tables: dict[
        str, Callable[[], tuple[int, str]]
    ] = {}  # by the ending of their names: status, page
    if Path("baselines/peers.py").is_file():  # first: later the heap is warm, and copies cost less
        tables["-peers"] = partial(_peers, min(options.rounds, 15))
    for suffix, extra in SPEEDS["gpu" if gpu else "cpu"].items():
        tables[suffix] = partial(_speed, f"{stem}{suffix}.csv", options.rounds, extra)
    if gpu:
        tables["-machine"] = partial(_machine, device, stem)
    if options.data:
        tables["-top1"] = partial(
            _top1, f"{stem}-top1.csv", options.data, options.seeds, options.minutes * 60, device
        )
    failed = 0
    try:
        for suffix, measure in tables.items():
            page = Path(f"{stem}{suffix}.md")
            if page.is_file():
                print(f"{page} is there: remove it to measure it again")
                continue
            try:
                status, text = measure()
            except (
                Exception
            ) as error:  # out of memory before the first strategy: the other tables go on
                print(f"{page}: {type(error).__name__}: {error}", file=sys.stderr)
                status, text = 1, ""
            if status == 130:  # interrupted
                return status
            failed |= status
            if text:
                replace_file(page, text)
    finally:
        RANDOM.unlink(missing_ok=True)
    print(f"wrote {stem}*.md and the tables beside them")
    if torch.cuda.is_available():
        failed |= subprocess.run(
            [sys.executable, "-m", "pytest", "-m", "gpu", "-o", "addopts="]
        ).returncode
    return failed


def _peers(rounds: int) -> tuple[int, str]:
    from mixbench.comparison.comparison import peers

    return 0, f"# Peers\n\nOne thread, CPU seconds of the thread, interleaved.\n\n{peers(rounds)}\n"


def _speed(csv: str, rounds: int, options: Options) -> tuple[int, str]:
    everything: Options = {
        "--strategies": ",".join(_timed_strategies()),
        "--mode": "speed",
        "--rounds": str(rounds),
    }
    return _bench(_command(everything | options), csv)


def _command(options: Options) -> list[str]:
    return [part for option in options.items() for part in option if part is not None]


def _top1(csv: str, data: str, seeds: str, seconds: float, device: Any) -> tuple[int, str]:
    """All side by side for as many epochs as fit: DeiT-S on a GPU; on a CPU few photographs, so that there are many epochs of them."""
    config, limit = ("deit_small_imagenette", None) if device.type == "cuda" else ("quick", 1000)
    strategies = ",".join(
        [strategy for strategy in list_strategies() if strategy != "attentivecutmix"] + [OFFLINE]
    )
    epochs = _epochs_within(
        data, config, limit, seconds / len(seeds.split(",")), strategies, device
    )
    command = [
        "--strategies",
        strategies,
        "--mode",
        "accuracy",
        "--data",
        data,
        "--config",
        config,
        "--seeds",
        seeds,
    ]
    command += ["--epochs", str(epochs), "--cache", "ram"]
    command += (
        []
        if limit is None
        else ["--hflip", "0.5", "--limit-train", str(limit), "--limit-val", str(2 * limit)]
    )
    status, page = _bench(command, csv)
    return status, page.replace(data, Path(data).name)


def _bench(command: list[str], csv: str) -> tuple[int, str]:
    """The exit status of bench.py, and its page without the folder that it was written to; empty where not even CutMix ran."""
    from mixbench.cli import main as bench

    with tempfile.TemporaryDirectory() as folder:
        status = bench([*command, "--out", f"{folder}/run", "--csv", csv])
        page = Path(folder, "run", "comparison.md")
        return status, re.sub(
            r" --(out|csv) [^\s`]+", "", page.read_text(encoding="utf-8")
        ) if page.is_file() else ""


def _write_readme() -> int:
    """Put the newest top-1 and the newest speeds of each device and precision in results/ between the README's marks."""
    from mixbench.files import replace_file

    readme = Path("README.md")
    text = readme.read_text(encoding="utf-8")
    for mark, lines in (("top-1", _top1_lines()), ("speed", _speed_lines())):
        begin, end = (
            text.index("-->", text.index(f"<!-- {mark}")) + 3,
            text.index(f"<!-- /{mark} -->"),
        )
        text = "\n".join([text[:begin], *lines, text[end:]])
    replace_file(readme, text)
    return 0


def _top1_lines() -> list[str]:
    """The newest comparison of top-1 in results/, of those the one with most seeds, as a table; nothing where there is none."""
    from mixbench.report.tables import compare_rows, markdown_table, published, statistics_cells
    from mixbench.runs.rows import read_csv

    found = [(read_csv(file), file) for file in sorted(Path("results").glob("*-top1.csv"))]
    rows, file = max(found, key=lambda pair: (pair[0][0]["date"], len(pair[0])), default=([], None))
    comparison = compare_rows(rows)
    if file is None or comparison is None:
        return []
    first, seeds = rows[0], len({row["seed"] for row in rows})
    header = (
        "strategy",
        "top-1",
        "sd",
        f"difference to {comparison.baseline} [95 %]",
        "corrected p",
        "verdict",
        "paper: DeiT-S, ImageNet",
    )
    table = [
        (
            strategy,
            mean,
            spread,
            difference if interval == "-" else f"{difference} {interval}",
            p,
            verdict,
            published(strategy)[3],
        )
        for strategy, _, mean, spread, difference, interval, p, verdict in statistics_cells(
            comparison
        )
    ]
    return [
        f"Top-1 of {first['model']} ({first['params_m']}M parameters) at {first['image_size']} px, {first['train_images']:,} images of "
        f"{first['dataset']}, {first['epochs']} epochs, {seeds} seed{'s' * (seeds > 1)}, {first['device']}, {first['date']} "
        f"([{file.stem}.md]({file.with_suffix('.md').as_posix()}), with the command).",
        "",
        *markdown_table(header, table),
    ]


def _speed_lines() -> list[str]:
    from mixbench.report.tables import markdown_table, published, speed_verdict
    from mixbench.runs.rows import read_csv

    newest = {}
    timed = [
        (file, [row for row in read_csv(file) if row["im_per_sec"] is not None])
        for file in Path("results").glob("*.csv")
    ]
    whole = [
        (file, rows)
        for file, rows in timed
        if {"saliencymix", "puzzlemix", "transmix"} <= {row["strategy"] for row in rows}
    ]
    for file, rows in sorted(whole, key=lambda pair: pair[1][0]["date"]):
        newest[rows[0]["device"], rows[0]["precision"], rows[0]["compiled"]] = file, rows
    lines = []
    for file, rows in newest.values():
        first = rows[0]
        lines.append(
            f"{first['timed']}; {first['rounds']} interleaved rounds, {first['date']} ([{file.name}]({file.as_posix()}))."
        )
        lines += [
            f"CutMix against itself: {first['control_lo']:.3f} to {first['control_hi']:.3f}.",
            "",
        ]
        table = []
        for row in rows:
            spec = "attentivecutmix" if str(RANDOM) in row["strategy"] else row["strategy"]
            ratio = f"{row['ratio_to_cutmix']:.3f} [{row['ratio_lo']:.3f}, {row['ratio_hi']:.3f}]"
            table.append(
                (
                    row["strategy"],
                    f"{row['im_per_sec']:.2f}",
                    ratio,
                    published(spec)[2],
                    speed_verdict(row),
                )
            )
        lines += [
            *markdown_table(("strategy", "im/s", "ratio to CutMix [95 %]", "paper", ""), table),
            "",
        ]
    return lines[:-1]


def _matrix_rate(device: Any) -> float:
    """FLOP a second that this GPU reaches in a large bfloat16 matrix product, median of 20."""
    import torch

    size, times = 8192, []
    left, right = (torch.randn(size, size, device=device, dtype=torch.bfloat16) for _ in "AB")
    for _ in range(25):
        begin, end = (torch.cuda.Event(enable_timing=True) for _ in "be")
        begin.record()
        left @ right
        end.record()
        torch.cuda.synchronize(device)
        times.append(begin.elapsed_time(end) / 1000)
    return 2 * size**3 / statistics.median(times[5:])


def _cutmix_rate(file: Path) -> float | None:
    """CutMix's images per second in a table, None where it has none."""
    from mixbench.runs.rows import read_csv

    rows = read_csv(file) if file.is_file() else []
    return next((row["im_per_sec"] for row in rows if row["strategy"] == "cutmix"), None)


def _machine(device: Any, stem: str) -> tuple[int, str]:
    measured = {
        name: _cutmix_rate(Path(f"{stem}-{name}.csv")) for name in ("bf16", "bf16-compiled")
    }
    return 0, _shares(_matrix_rate(device), measured)


def _shares(rate: float, measured: dict[str, float | None]) -> str:
    """What the matrix rate is, and the share of it that DeiT-S reaches with CutMix in each table, as a page."""
    shares = [
        f"{name} {100 * DEIT_S_FLOP * im / rate:.1f} %"
        for name, im in measured.items()
        if im is not None
    ]
    told = f"DeiT-S with CutMix, {DEIT_S_FLOP / 1e9:.1f} GFLOP an image, reaches of it: {', '.join(shares) or 'not measured'}"
    return f"# The machine\n\nProducts of 8192 x 8192 matrices, bfloat16: {rate / 1e12:.0f} TFLOP/s. {told}.\n"


@cache
def _timed_strategies() -> list[str]:
    """Every registered strategy; without a network to fetch weights from, Attentive-CutMix's ResNet-50 has random ones."""
    import timm
    import torch

    from mixbench.services.network import external_network

    strategies = list_strategies()
    place = strategies.index("attentivecutmix")
    try:
        external_network("resnet50", torch.device("cpu"))
    except ValueError:
        torch.save(
            timm.create_model("resnet50").state_dict(), RANDOM
        )  # its speed does not depend on them
        strategies[place] = f"attentivecutmix(network='resnet50:{RANDOM}')"
    strategies.insert(place + 1, OFFLINE)
    return [*strategies, "saliencymix(scope=batch)"]


def _epochs_within(
    data: str, config: str, limit: int | None, seconds: float, strategies: str, device: object
) -> int:
    """How many epochs of the recipe fit into the seconds here, at least one."""
    from mixbench.data.datasets import open_data
    from mixbench.recipe import load_recipe
    from mixbench.spec import create_strategies
    from mixbench.training.estimate import estimate_seconds

    recipe = load_recipe(config)
    opened = open_data(data=Path(data), limit_train=limit)
    whole = estimate_seconds(create_strategies(strategies), recipe, opened, device)  # type: ignore[arg-type]
    return max(1, int(0.8 * seconds / whole * recipe.total_epochs))


if __name__ == "__main__":
    sys.exit(main())
