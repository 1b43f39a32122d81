"""Kill runs of the command at random moments and resume them to the same figures.

python -m tests.support.kills --kills 20
"""

import argparse
import csv
import multiprocessing
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path

from tests.support import blank

MEASURED = ("date", "train_seconds", "loading_share", "train_im_per_sec")
TINY = [
    *("--embed-dim", "24", "--depth", "1", "--batch-size", "8", "--micro-batch", "8"),
    *("--epochs", "4", "--limit-train", "96", "--limit-val", "40"),
]
PROCESSES = multiprocessing.get_context("forkserver")
PROCESSES.set_forkserver_preload(
    [
        "torch",
        "timm",
        "pandas",
        "scipy.stats",
        "jinja2",
        "matplotlib.pyplot",
        "mixbench.comparison.comparison",
        "mixbench.report.gallery",
    ]
)


def _command(argv, output):
    with Path(output).open("a") as file:
        os.dup2(file.fileno(), 1)
        os.dup2(file.fileno(), 2)
    import torch

    torch.set_num_threads(1)
    # as outside: a loader's processes come of this one, and end after it
    multiprocessing.set_start_method("fork", force=True)
    from matplotlib.figure import Figure

    from mixbench.cli import main
    from mixbench.comparison import accuracy

    Figure.savefig = blank.savefig
    accuracy.SCENES = 60  # a label error of 500 takes as long as these runs train
    sys.exit(main(argv))


def run(out, strategies, seeds, *extra, kill_after=None):
    """Run the command in its own process, killed after some seconds; whether it came to its end."""
    argv = ["--strategies", strategies, "--seeds", seeds, "--mode", "accuracy", "--resume"]
    argv += ["--out", str(out), *TINY, *extra]
    process = PROCESSES.Process(target=_command, args=(argv, f"{out}.txt"))
    process.start()
    process.join(kill_after)
    if process.is_alive():
        os.kill(process.pid, signal.SIGKILL)
        process.join()
        return False
    if process.exitcode not in (0, -signal.SIGKILL):
        raise RuntimeError(Path(f"{out}.txt").read_text())
    return process.exitcode == 0


def figures(out):
    """The rows of a run without their date and what was measured of time."""
    with (Path(out) / "runs.csv").open(newline="") as file:
        return [{k: v for k, v in row.items() if k not in MEASURED} for row in csv.DictReader(file)]


def main():
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kills", type=int, default=20)
    parser.add_argument("--strategies", default="none,mixup,cutmix,transmix")
    parser.add_argument("--seeds", default="0,1")
    options = parser.parse_args()
    moments = random.Random(0)
    with tempfile.TemporaryDirectory() as folder:
        started = time.monotonic()
        run(f"{folder}/whole", options.strategies, options.seeds)
        whole = time.monotonic() - started
        expected, kills, runs = figures(f"{folder}/whole"), 0, 0
        while kills < options.kills:
            out, runs = f"{folder}/run{runs}", runs + 1
            while kills < options.kills:
                if run(
                    out, options.strategies, options.seeds, kill_after=moments.uniform(0.2, whole)
                ):
                    break
                kills += 1
            run(out, options.strategies, options.seeds)
            assert figures(out) == expected, f"run {runs} differs after a kill"
        print(
            f"{kills} kills in {runs} runs of {len(expected)} rows, {whole:.1f} s uninterrupted: "
            "all resumed to the same figures"
        )


if __name__ == "__main__":
    main()
