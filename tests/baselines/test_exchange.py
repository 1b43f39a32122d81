"""The page on the exchange beside DistributedDataParallel: ratios by hand, two real processes."""

import os
import subprocess
import sys

import pytest

from baselines.exchange import ALONE, CONTROL, OURS, THEIRS, Timed, page
from tests.support.pages import ROOT


def test_figures_are_medians_and_ratios_of_rounds():
    """Ratios 2/1, 9/3 and 8/2: their median is 3, not 8/2."""
    timed = [Timed(THEIRS, [1.0, 3.0, 2.0]), Timed(OURS, [2.0, 9.0, 8.0])]
    text = page(timed, 2, 4, "python x.py", "2026-01-01")
    assert f"| {OURS} | 8 | 3.000 [2.000, 4.000] |" in text


@pytest.mark.fuzz  # half a minute
def test_two_processes_time_every_exchange(tmp_path):
    code = "from pathlib import Path; from baselines.exchange import main; "
    code += "main(['--rounds', '1', '--batch', '1', '--image-size', '32'], Path('.'))"
    (tmp_path / "run.py").write_text(code)
    command = [sys.executable, "-m", "torch.distributed.run", "--nproc-per-node", "2"]
    command += ["--standalone", str(tmp_path / "run.py")]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    subprocess.run(command, cwd=tmp_path, env=environment, check=True, timeout=300)
    [file] = tmp_path.glob("exchange-cpu-*.md")
    names = [line.split("|")[1].strip() for line in file.read_text().splitlines() if "|" in line]
    assert names[2:] == [THEIRS, OURS, CONTROL, ALONE]
