"""What is said of label rules beside labels by true masks."""

import pytest

from mixbench.report.page import report_runs
from mixbench.report.reference import reference_remarks
from mixbench.report.significance import compare
from mixbench.report.tables import remarks
from mixbench.runs.merge import Tables
from tests.support.rows import run_row, write_run

SEEDS = 9  # of as many two comparisons can be shown


def figures(**gains):
    """Percent by strategy and seed, each so many points above cutmix's and a little noise."""
    names = {"rule": "transmix", "truth": "oacutmix", "other": "tlalign(base=mixup)"}
    base = {seed: 60 + seed for seed in range(SEEDS)}
    found = {"cutmix": base}
    for name, gain in gains.items():
        noise = {seed: 0.1 * (-1) ** seed for seed in base if seed}
        found[names[name]] = {seed: base[seed] + gain + noise.get(seed, 0) for seed in base}
    return found


def test_a_share_of_the_way_where_the_way_is_shown():
    [line] = reference_remarks(compare(figures(rule=1, truth=4)))
    assert line == (
        "From labels by area (cutmix) to labels by true masks (oacutmix) it is +4.00 points: "
        "transmix goes 25 % of it."
    )
    assert "transmix goes -50 %" in reference_remarks(compare(figures(rule=-2, truth=4)))[0]


def test_the_share_is_of_the_seeds_that_both_have():
    found = figures(rule=1, truth=4)
    found["cutmix"] |= {9: 70.0, 10: 70.0}
    found["transmix"] |= {9: 75.0, 10: 76.0}
    assert "transmix goes 25 % of it" in reference_remarks(compare(found))[0]


@pytest.mark.parametrize("truth", [0.01, -4])
def test_no_share_where_it_is_not(truth):
    [line] = reference_remarks(compare(figures(rule=1, truth=truth)))
    assert "is not shown here, so no share of it is given" in line and "%" not in line


def test_nothing_without_the_reference_or_of_other_pixels():
    assert reference_remarks(compare(figures(rule=1))) == []
    assert reference_remarks(compare(figures(truth=4, other=2))) == []
    unknown = figures(rule=1, truth=4) | {"nobody(x=1)": figures(truth=1)["oacutmix"]}
    assert "nobody" not in reference_remarks(compare(unknown))[0]


def test_page_and_remarks_say_it(tmp_path):
    rows = [
        run_row(spec, seed, top1)
        for spec, by_seed in figures(rule=1, truth=4).items()
        for seed, top1 in by_seed.items()
    ]
    assert any("goes 25 % of it" in line for line in remarks(Tables(rows, [])))
    write_run(tmp_path, rows)
    assert "transmix goes 25 % of it" in report_runs([tmp_path]).read_text()
