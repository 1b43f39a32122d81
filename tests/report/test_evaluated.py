"""The tables of evaluations: the headline compared, a metric by setting."""

import json
from dataclasses import replace

import pytest

from mixbench.report.drawing import MARK, pyplot
from mixbench.report.evaluated import draw_levels, evaluated, levels_figure, published_words
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
    assert table.title == "shuffle (draw=0): mean drop, lower is better"
    assert table.header[2] == "mean drop" and table.header[4] == "difference to cutmix"
    assert [cells[0] for cells in table.headline] == ["cutmix", "transmix"]
    assert table.headline[1][2:5] == ("21.00", "1.00", "+10.00")
    assert table.settings_header == ["strategy", "2x2", "4x4"]
    assert table.settings == [
        ("cutmix", "11.00 [8.52, 13.48]", "11.00 [8.52, 13.48]"),
        ("transmix", "21.00 [18.52, 23.48]", "21.00 [18.52, 23.48]"),
    ]


def test_a_table_that_repeats_the_headline_is_left_out(monkeypatch):
    from mixbench.evaluations.shuffle import Shuffle

    rows = [each for each in ROWS if each.metric == "mean_drop"]
    monkeypatch.setattr(Shuffle, "detail", "mean_drop")
    [table] = evaluated(rows, ["cutmix", "transmix"])
    assert table.headline and table.settings == []
    other = [row("cutmix", 0, "2x2", "mean_drop", 5.0)]
    [table] = evaluated([*rows, *other], ["cutmix", "transmix"])
    assert table.settings_header == ["strategy", "all", "2x2"]


@pytest.mark.pictures
def test_two_folders_of_one_name_keep_their_figures_and_curves_apart(tmp_path):
    """Their hashes tell them apart in the titles; each table has its own curve below it."""
    places, settings = RunDirectory(tmp_path / "run"), ("", "random 0.2", "random 0.8")
    write_run(places.path, [run_row(spec, s) for spec in ("cutmix", "mixup") for s in (0, 1, 2)])
    for digits, drop in (("aaa111", 10.0), ("bbb222", 60.0)):
        common = {"evaluation": "occlusion", "dataset": "val", "data_hash": digits}
        for spec in ("cutmix", "mixup"):
            for seed in (0, 1, 2):
                made = [
                    row(spec, seed, setting, metric, drop + seed, **common)
                    for setting, metric in zip(settings, ("mean_drop", "drop", "drop"), strict=True)
                ]
                made[0] = replace(made[0], setting="random")
                file = places.seed(spec, seed).path / f"eval-occlusion-{digits}aa.json"
                file.write_text(json.dumps([plain(each) for each in made]))
    page = report_runs([places.path]).read_text()
    first, second = page.split("<h3>occlusion on val (draw=0): mean drop")[1:]
    assert "(images aaa111)</h3>" in first and "(images bbb222)</h3>" in second
    assert "11.00" in first and "61.00" not in first and "61.00" in second
    assert 'id="levels-0' in first and 'id="levels-1' in second


def test_the_correction_is_named_where_there_is_one():
    others = [row("mixup", seed, "", "mean_drop", 5.0 + seed) for seed in range(3)]
    [table] = evaluated([*ROWS, *others], ["cutmix", "transmix", "mixup"])
    assert table.title.endswith("lower is better, corrected for 2 comparisons")


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
            (folder / "eval-shuffle-12345678.json").write_text(json.dumps(rows))
    page = report_runs([tmp_path]).read_text()
    assert ("<h2>Robustness</h2>" in page) == measured
    assert ("shuffle (draw=0): mean drop, lower is better" in page) == measured
    assert ("By setting, mean with its 95 % interval (t) over the seeds, drop:" in page) == measured


@pytest.mark.pictures
def test_levels_are_curves_with_intervals():
    """What is drawn is each strategy's mean at each level, and its t interval over the seeds."""
    from scipy.stats import t

    rows = [
        row(name, seed, f"random {level}", "drop", value * level + seed, evaluation="occlusion")
        for name, value in (("cutmix", 10.0), ("transmix", 20.0))
        for seed in range(3)
        for level in (0.1, 0.2)
    ]
    rows += [
        row(name, seed, "random", "mean_drop", 1.0 + seed, evaluation="occlusion")
        for name in ("cutmix", "transmix")
        for seed in range(3)
    ]
    [table] = evaluated(rows, ["cutmix", "transmix"])
    [curve] = table.curves
    assert (table.section, curve.name, curve.levels) == ("Robustness", "random", (0.1, 0.2))
    assert [each.mean for each in curve.summaries["transmix"]] == pytest.approx([3.0, 5.0])
    first = curve.summaries["cutmix"][0]
    half = t.ppf(0.975, 2) / 3**0.5
    assert (first.low, first.high) == pytest.approx((2.0 - half, 2.0 + half))
    axis = pyplot().figure().add_subplot()
    draw_levels(axis, curve, 2.1)
    heights = [line.get_ydata().tolist() for line in axis.lines if line.get_label() != MARK]
    assert heights == [pytest.approx([2.0, 3.0]), pytest.approx([3.0, 5.0])]
    assert len(axis.collections) == 2
    assert "<svg" in levels_figure(table, "levels")
    [shuffle] = evaluated(ROWS, ["cutmix", "transmix"])
    assert not shuffle.curves and levels_figure(shuffle, "levels") == ""


def test_published_figures_stand_beside_ours():
    [table] = evaluated(ROWS, ["cutmix", "transmix"])
    assert "DeiT-S 58.4 % mean top-1 over the grids; TransMix-DeiT-S 62.8 %" in table.published
    for name, figures in (
        ("imagenet-a", "TransMix-DeiT-S 21.1 % top-1, 31.2 % calibration error, 28.8 % AURRA"),
        ("imagenet-o", "DeiT-S 20.9 % AUPR"),
        ("voc-jaccard", "DeiT-S 29.2 % Jaccard index; TransMix-DeiT-S 29.9 %"),
        ("localize", "TransMix-DeiT-S 44.4 % mean IoU"),
        ("label-error", "CutMix 21.5 points of label error, 17 % ghost labels"),
    ):
        assert figures in published_words(name)
    assert published_words("occlusion") == ""
