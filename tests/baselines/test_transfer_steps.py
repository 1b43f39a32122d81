"""The page on what a step of each task costs: counts by hand, hours by the ratios."""

import pytest

from baselines import transfer_steps
from baselines.transfer_steps import CONTROL, Timed, costs, page, windows
from mixbench.transfer.inference import RATIOS


def test_windows_of_a_photograph_are_counted():
    """520 x 693 has 2 x 2; 0.5 and 0.75 are enlarged to 480 x 640; 910 x 1213 has 3 x 4."""
    assert windows([1.0]) == 4
    assert windows(RATIOS) == 2 + 2 + 4 + 2 * 3 + 2 * 3 + 3 * 4


def test_hours_follow_from_ratios_images_and_the_papers_rate():
    name = "DeiT-S and linear, a crop of 480 px"
    lines = costs({"DeiT-S, 224 px": 1.0, name: 5.0, f"{name}, forward alone": 2.0})
    work = 256 * 4992 * 5.0 + 5105 * (4 + 2 * 32) * 2.0
    cells = [cell.strip() for cell in lines[-1].strip("|").split("|")]
    assert cells == [
        "Table 2: DeiT-S and linear", "1,277,952", "347,140 windows (single and multi-scale)",
        f"{work / 322 / 3600:.0f}", f"{work / 322 / 3600 / 8:.1f}",
    ]  # fmt: skip


def test_figures_are_medians_and_ratios_of_rounds():
    """Ratios 2/1, 9/3 and 8/2: their median is 3, not 8/2."""
    timed = [
        Timed("DeiT-S, 224 px", 10.0, [1.0, 3.0, 2.0]),
        Timed(CONTROL, 10.0, [2.0, 9.0, 8.0]),
    ]
    text = page(timed, "python x.py", "2026-01-01")
    assert f"| {CONTROL} | 10.0 | 1.00 | 8 | 3.00 [2.00, 4.00] |" in text


@pytest.mark.fuzz  # a minute
def test_every_part_is_measured(tmp_path, capsys):
    (tmp_path / "results").mkdir()
    transfer_steps.main(["--rounds", "1", "--batch", "1"], results=tmp_path / "results")
    [file] = (tmp_path / "results").iterdir()
    assert "Table 3: Mask R-CNN and PVT-S" in file.read_text() == capsys.readouterr().out[:-1]
