"""The tables of evaluations: the headline compared, a metric by setting."""

import pytest

from mixbench.report.evaluated import evaluated
from mixbench.report.page import report_runs
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import EvaluationRow, plain
from tests.support.rows import run_row, write_run


def row(strategy, seed, setting, metric, value, **more):
    fields = {"evaluation": "shuffle", "options": "draw=0", "n": 100} | more
    return EvaluationRow(
        strategy=strategy, seed=seed, setting=setting, metric=metric, value=value, **fields
    )


ROWS = [
    row(name, seed, setting, metric, value + seed)
    for name, value in (("transmix", 20.0), ("cutmix", 10.0))
    for seed in range(3)
    for setting, metric in (("", "mean_drop"), ("2x2", "drop"), ("4x4", "drop"), ("2x2", "top1"))
]


def test_the_headline_is_compared_and_the_rest_stands_by_setting():
    [table] = evaluated(ROWS, ["cutmix", "transmix"])
    assert table.title == "shuffle (draw=0): mean_drop, lower is better, corrected for 1"
    assert table.header[2] == "mean mean_drop" and table.header[4] == "difference to cutmix"
    assert [cells[0] for cells in table.headline] == ["cutmix", "transmix"]
    assert table.headline[1][2:5] == ("21.00", "1.00", "+10.00")
    assert table.settings_header == ["strategy", "2x2", "4x4"]
    assert table.settings == [
        ("cutmix", "11.00 ± 1.00", "11.00 ± 1.00"),
        ("transmix", "21.00 ± 1.00", "21.00 ± 1.00"),
    ]


def test_other_options_have_a_table_of_their_own_and_unknown_ones_none():
    others = [row("cutmix", 0, "", "mean_drop", 5.0, options="draw=1")]
    later = [row("cutmix", 0, "", "speed", 5.0, evaluation="later")]
    assert len(evaluated([*ROWS, *others, *later], ["cutmix"])) == 2
    assert evaluated(later, ["cutmix"]) == evaluated([], []) == []


@pytest.mark.parametrize("measured", [True, False])
def test_the_page_has_a_section_where_something_was_measured(tmp_path, measured):
    import json

    write_run(tmp_path, [run_row(name, seed) for name in ("cutmix", "transmix") for seed in (0, 1)])
    if measured:
        for each in ("cutmix", "transmix"):
            folder = RunDirectory(tmp_path).seed(each, 0).path
            folder.mkdir(parents=True, exist_ok=True)
            rows = [plain(one) for one in ROWS if one.strategy == each]
            (folder / "eval-shuffle-1.json").write_text(json.dumps(rows))
    page = report_runs([tmp_path]).read_text()
    assert ("<h2>Evaluations</h2>" in page) == measured
    assert ("shuffle (draw=0): mean_drop, lower is better" in page) == measured
