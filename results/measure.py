"""Measure the machine this runs on: `make results`, in a plain checkout.

Each table is a CSV file and a page in results/, written once it is measured; a page of today is not
measured again, so that a run which was cut off goes on.
"""

from __future__ import annotations

import argparse
import re
import shlex
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from functools import cache, partial
from pathlib import Path

import timm
import torch

from mixbench.cli import main as mixbench
from mixbench.comparison.timing import peers
from mixbench.data.datasets import open_data
from mixbench.files import replace_file
from mixbench.recipe import load_recipe, warmup_for
from mixbench.registry import list_strategies
from mixbench.report.tables import write_markdown
from mixbench.runs.directory import RunDirectory
from mixbench.runs.environment import device_name, today
from mixbench.runs.merge import Tables, read_runs
from mixbench.runs.rows import RunRow, SpeedRow, read_table, write_table
from mixbench.runtime import Runtime, choose_device
from mixbench.services.network import external_network
from mixbench.spec import create_strategies
from mixbench.training.estimate import estimate_seconds

RANDOM = Path("resnet50-random.pth")  # in the current folder while timed: its name is in the table
Options = dict[str, str | None]  # of bench.py; None where an option takes no value
TABLE_8: Options = {"--speed-batch-size": "128"}
BF16: Options = TABLE_8 | {"--speed-amp": None}
COMPILED: Options = {"--compile": None}
FEW: Options = {"--rounds": "10", "--strategies": "cutmix,puzzlemix,transmix"}
CPU: Options = {"--speed-batch-size": "16"}
# by device and the ending of the table's name: in place of all strategies and --rounds, or beside
SPEEDS: dict[str, dict[str, Options]] = {
    "cpu": {
        "": CPU,
        "-bf16-saliency": CPU | {"--strategies": "cutmix,puzzlemix", "--gradient-amp": "true"},
    },
    "cuda": {
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
INTERRUPTED = 130  # the command's exit status
SAFE = 0.8  # share of the time that the estimated epochs may take


def main(argv: Sequence[str] | None = None) -> int:
    """Time the peers and every strategy; with --data train too, on a GPU run the GPU tests."""
    parser = argparse.ArgumentParser(
        prog="results.measure", description=__doc__, allow_abbrev=False
    )
    add = parser.add_argument
    add("--data", help="an image folder to train on, all strategies side by side")
    add("--minutes", type=float, default=10, help="training time in all (default: %(default)s)")
    add("--rounds", type=int, default=40, help="timed rounds (default: %(default)s)")
    add("--seeds", default="0", help="seeds of the training (default: %(default)s)")
    options = parser.parse_args(argv)
    device = choose_device("auto")
    name = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    stem = f"results/{name}-{today()}"
    failed = 0
    try:
        for ending, measure in tables(options, stem, device).items():
            status = write_once(Path(f"{stem}{ending}.md"), measure)
            if status == INTERRUPTED:
                return status
            failed |= status
    finally:
        RANDOM.unlink(missing_ok=True)
    print(f"wrote {stem}*.md and the tables beside them")
    if torch.cuda.is_available():
        tests = [sys.executable, "-m", "pytest", "-m", "gpu", "-o", "addopts="]
        failed |= subprocess.run([*tests, "--import-mode=importlib"]).returncode
    return failed


def tables(
    options: argparse.Namespace, stem: str, device: torch.device
) -> dict[str, Callable[[Path], int]]:
    """What is measured, by the ending of its page's name; a call writes the page."""
    measured: dict[str, Callable[[Path], int]] = {}
    if Path("baselines/peers.py").is_file():  # first: later the heap is warm, and copies cost less
        measured["-peers"] = partial(measure_peers, min(options.rounds, 15))
    for ending, extra in SPEEDS["cuda" if device.type == "cuda" else "cpu"].items():
        measured[ending] = partial(measure_speed, options.rounds, extra)
    if device.type == "cuda":
        measured["-machine"] = partial(measure_machine, device, stem)
    if options.data:
        measured["-top1"] = partial(
            measure_top1, options.data, options.seeds, options.minutes * 60, device
        )
    return measured


def write_once(page: Path, measure: Callable[[Path], int]) -> int:
    """The exit status of a measurement that writes `page`; a page that is there is left alone."""
    if page.is_file():
        print(f"{page} is there: remove it to measure it again")
        return 0
    try:
        return measure(page)
    except Exception as error:  # out of memory before the first strategy: the other tables go on
        print(f"{page}: {type(error).__name__}: {error}", file=sys.stderr)
        return 1


def measure_peers(rounds: int, page: Path) -> int:
    """Other packages' mixing beside ours."""
    text = "# Peers\n\nOne thread, CPU seconds of the thread, interleaved."
    replace_file(page, f"{text}\n\n{peers(rounds)}\n")
    return 0


def measure_speed(rounds: int, extra: Options, page: Path) -> int:
    """The speed of every strategy."""
    strategies = ",".join(timed_strategies())
    options: Options = {"--strategies": strategies, "--mode": "speed", "--rounds": str(rounds)}
    return bench(command(options | extra), page)


def command(options: Options) -> list[str]:
    """Options as the command takes them."""
    return [part for option in options.items() for part in option if part is not None]


def measure_top1(data: str, seeds: str, seconds: float, device: torch.device, page: Path) -> int:
    """All strategies side by side for as many epochs as fit.

    DeiT-S on a GPU; on a CPU few photographs, so that there are many epochs of them.
    """
    config, limit = ("deit_small_imagenette", None) if device.type == "cuda" else ("quick", 1000)
    names = [name for name in list_strategies() if name != "attentivecutmix"]
    strategies = ",".join([*names, OFFLINE])
    epochs = epochs_within(data, config, limit, seconds / len(seeds.split(",")), strategies, device)
    options: Options = {
        "--strategies": strategies,
        "--mode": "accuracy",
        "--data": data,
        "--config": config,
        "--seeds": seeds,
        "--epochs": str(epochs),
        "--cache": "ram",
    }
    if epochs <= load_recipe(config).warmup_epochs:
        options["--warmup-epochs"] = str(warmup_for(epochs))
    if limit is not None:
        options |= {"--hflip": "0.5", "--limit-train": str(limit), "--limit-val": str(2 * limit)}
    return bench(command(options), page, hidden={data: Path(data).name})


def bench(argv: list[str], page: Path, hidden: Mapping[str, str] | None = None) -> int:
    """Run the command; its rows and page go beside `page`.

    None are written where not even CutMix ran, or where the run was interrupted. hidden says what
    stands on the page in place of an argument, such as a path of this machine.
    """
    with tempfile.TemporaryDirectory() as folder:
        directory = RunDirectory(Path(folder) / "run")
        status = mixbench([*argv, "--out", str(directory.path)])
        if status == INTERRUPTED or not directory.comparison.is_file():
            return status
        data = read_runs([directory.path])
    shown = [(hidden or {}).get(part, part) for part in argv]
    write_rows(data.tables, page.with_suffix(".csv"))
    command_line = shlex.join(["python", "bench.py", *shown])
    write_markdown(data.tables, page, command_line, data.correct)
    return status


def write_rows(measured: Tables, path: Path) -> None:
    """Write the rows of what was trained, else of what was timed."""
    if measured.runs:
        write_table(path, RunRow, measured.runs)
    else:
        write_table(path, SpeedRow, measured.speed)


def measure_machine(device: torch.device, stem: str, page: Path) -> int:
    """How much of the GPU's matrix rate DeiT-S reaches with CutMix."""
    measured = {name: cutmix_rate(Path(f"{stem}-{name}.csv")) for name in ("bf16", "bf16-compiled")}
    replace_file(page, shares(matrix_rate(device), measured))
    return 0


def matrix_rate(device: torch.device) -> float:
    """FLOP a second of this GPU in a large bfloat16 matrix product, median of 20."""
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


def cutmix_rate(file: Path) -> float | None:
    """CutMix's images per second in a table, None where it has none."""
    rows = read_table(file, SpeedRow) if file.is_file() else []
    return next((row.im_per_sec for row in rows if row.strategy == "cutmix"), None)


def shares(rate: float, measured: Mapping[str, float | None]) -> str:
    """The matrix rate, and the share that DeiT-S reaches with CutMix in each table, as a page."""
    reached = [
        f"{name} {100 * DEIT_S_FLOP * im / rate:.1f} %"
        for name, im in measured.items()
        if im is not None
    ]
    return (
        "# The machine\n\nProducts of 8192 x 8192 matrices, bfloat16: "
        f"{rate / 1e12:.0f} TFLOP/s. DeiT-S with CutMix, {DEIT_S_FLOP / 1e9:.1f} GFLOP an image, "
        f"reaches of it: {', '.join(reached) or 'not measured'}.\n"
    )


@cache
def timed_strategies() -> list[str]:
    """Every registered strategy; Attentive-CutMix's ResNet-50 has random weights where none come.

    Its speed does not depend on them.
    """
    strategies = list_strategies()
    place = strategies.index("attentivecutmix")
    try:
        external_network("resnet50", torch.device("cpu"))
    except ValueError:
        torch.save(timm.create_model("resnet50").state_dict(), RANDOM)
        strategies[place] = f"attentivecutmix(network='resnet50:{RANDOM}')"
    strategies.insert(place + 1, OFFLINE)
    return [*strategies, "saliencymix(scope=batch)"]


def epochs_within(
    data: str, config: str, limit: int | None, seconds: float, specs: str, device: torch.device
) -> int:
    """Epochs of the recipe that fit into the seconds on this machine, at least one."""
    recipe = load_recipe(config)
    opened = open_data(data=Path(data), limit_train=limit)
    whole = estimate_seconds(create_strategies(specs), recipe, opened, Runtime(device=device))
    return max(1, int(SAFE * seconds / whole * recipe.total_epochs))


if __name__ == "__main__":
    sys.exit(main())
