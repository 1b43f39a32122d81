"""Measure the machine this runs on: `python -m mixbench.results`, in a plain checkout too; writes results/<device>-<date>.csv and .md."""
from __future__ import annotations

import argparse
import re
import subprocess
import sys
import tempfile
from datetime import UTC, datetime
from pathlib import Path

from mixbench.registry import list_strategies


def main() -> int:
    """Time every strategy; with --data and --minutes train them all side by side within that budget; run the GPU tests on a GPU."""
    parser = argparse.ArgumentParser(prog="mixbench.results", description=__doc__, allow_abbrev=False)
    parser.add_argument("--data", help="an image folder to train on")
    parser.add_argument("--minutes", type=float, default=10, help="training time in all (default: %(default)s)")
    parser.add_argument("--rounds", default="40", help="timed rounds (default: %(default)s)")
    options = parser.parse_args()
    import torch

    from mixbench.cli import main as bench
    from mixbench.environment import choose_device, device_name

    device = choose_device("auto")
    name = re.sub(r"[^a-z0-9]+", "-", device_name(device).lower()).strip("-")
    stem = Path("results") / f"{name}-{datetime.now(UTC):%Y-%m-%d}"
    strategies = ",".join(list_strategies())
    failed = 0
    with tempfile.TemporaryDirectory() as folder:
        common = ["--strategies", strategies]
        failed |= bench([*common, "--mode", "speed", "--rounds", options.rounds, "--out", f"{folder}/speed", "--csv", f"{stem}.csv"])
        pages = [Path(folder, "speed/comparison.md").read_text(encoding="utf-8")]
        if options.data:
            epochs = _epochs_within(options.data, options.minutes * 60, strategies, device)
            common += ["--mode", "accuracy", "--data", options.data, "--config", "quick", "--epochs", str(epochs), "--hflip", "0.5"]
            failed |= bench([*common, "--out", f"{folder}/top1", "--csv", f"{stem}-top1.csv"])
            pages.append(Path(folder, "top1/comparison.md").read_text(encoding="utf-8"))
    stem.with_suffix(".md").write_text("\n".join(pages), encoding="utf-8")
    print(f"wrote {stem}.csv and {stem}.md")
    if torch.cuda.is_available():
        failed |= subprocess.run([sys.executable, "-m", "pytest", "-m", "gpu", "-o", "addopts="]).returncode
    return failed


def _epochs_within(data: str, seconds: float, strategies: str, device: object) -> int:
    """How many epochs of the quick recipe fit in the budget here, at least one; half of it is left for loading."""
    from mixbench.data import open_data
    from mixbench.recipe import load_recipe
    from mixbench.registry import create_strategies
    from mixbench.train import estimate_seconds

    recipe = load_recipe("quick")
    opened = open_data(data=Path(data))
    whole = estimate_seconds(create_strategies(strategies), recipe, opened, device)  # type: ignore[arg-type]
    return max(1, int(0.5 * seconds / whole * recipe.total_epochs))


if __name__ == "__main__":
    sys.exit(main())
