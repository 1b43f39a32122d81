"""The answer: its numbers are comparison.csv's, and its sentence claims what the tests claim."""

import io
import re

import pytest
from rich.console import Console

from mixbench.report.answer import answer_of
from mixbench.report.page import report_runs
from mixbench.report.summary import compare_runs, summarise
from mixbench.report.tables import print_tables, write_markdown
from mixbench.runs.merge import Tables
from tests.support.html_pages import Page
from tests.support.rows import full_tables, run_row, speed_row, write_run

GAINS = (0.9, 1.0, 1.2, 0.8, 1.1, 1.0, 0.9, 1.3)


def answer(tables):
    return answer_of(tables, compare_runs(tables.runs))


def runs_of(gains, seeds=8):
    """CutMix, and strategies that are better by about so many times GAINS."""
    runs = [run_row("cutmix", seed, 70 + seed / 10) for seed in range(seeds)]
    return runs + [
        run_row(name, seed, 70 + seed / 10 + factor * GAINS[seed] + noise * (-1) ** seed)
        for name, (factor, noise) in gains.items()
        for seed in range(seeds)
    ]


def test_the_cells_are_those_of_the_comparison():
    tables = full_tables()
    shown = answer(tables)
    assert shown.header == [
        "strategy",
        "top-1 (%)",
        "difference to cutmix [95 %]",
        "verdict",
        "speed, ratio to CutMix [95 %]",
        "verdict on speed",
    ]
    assert (shown.of_training, shown.of_timing) == (3, 2)
    for cells, row in zip(shown.rows, summarise(tables), strict=True):
        change = "-"
        if row.difference is not None:
            low, high = row.difference_lo, row.difference_hi
            change = f"{row.difference:+.2f} [{low:+.2f}, {high:+.2f}]"
        decides = "" if row.p_corrected is None else f" (p {row.p_corrected:.3f})"
        assert cells == (
            row.strategy,
            f"{row.top1:.2f} ± {row.top1_sd:.2f}",
            change,
            row.verdict + decides,
            f"{row.ratio_to_cutmix:.3f} [{row.ratio_lo:.3f}, {row.ratio_hi:.3f}]",
            row.speed_verdict,
        )
    assert shown.trained == (
        "deit_small_patch16_224 (22.05M parameters) at 224 px on photos, 1,000 images, 3 epochs, "
        "3 seeds"
    )
    assert shown.timed == (
        "deit_small (22.05M parameters) at 224 px, batch 8, fp32, Abacus, 2 threads"
    )


def test_screen_markdown_and_page_say_the_same_first(tmp_path):
    """Every cell of the answer, and its sentence, stands in each before anything else."""
    runs = runs_of({"transmix": (0.0, 0.001), "puzzlemix": (1.0, 0.0)})
    tables = Tables(runs, full_tables().speed)
    shown = answer(tables)
    assert shown.rows[1][2].startswith("+0.00 [")
    write_run(tmp_path, tables.runs, tables.speed)
    write_markdown(tables, tmp_path / "page.md", "python bench.py")
    console = Console(file=io.StringIO(), width=250)
    print_tables(tables, console)
    markdown = (tmp_path / "page.md").read_text()
    screen = console.file.getvalue()
    source = report_runs([tmp_path]).read_text()
    page = Page(source[source.index("<main>") : source.index("</section>") + 10] + "</main>").text
    for text in (markdown, screen, page):
        words = re.sub(r"[|│\s]+", " ", text)
        begin = 0
        for cells in shown.rows:
            for cell in cells:
                place = words.find(" ".join(cell.split()), begin)
                assert begin <= place, (cell, words[begin : begin + 200])
                begin = place
        assert words.index(shown.sentence) > begin
        assert "-0.00" not in words[: words.index(shown.sentence)]
    assert markdown.index(shown.sentence) < markdown.index("## What was trained")
    assert screen.index(shown.sentence) < screen.index("What was trained")


@pytest.mark.parametrize(
    ("gains", "seeds", "sentence"),
    [
        (
            {"transmix": (1.0, 0.0), "none": (-1.0, 0.0), "mixup": (0.0, 1.0)},
            8,
            "8 seeds show transmix to be more accurate than cutmix, and none less; mixup could not "
            "be told from it",
        ),
        (
            {"none": (-1.0, 0.0), "mixup": (-2.0, 0.0)},
            8,
            "8 seeds show none and mixup to be less accurate than cutmix",
        ),
        ({"mixup": (0.0, 1.0)}, 8, "With 8 seeds mixup could not be told from cutmix by accuracy"),
        (
            {f"s{i}": (0.0, 1.0) for i in range(5)},
            8,
            "With 8 seeds 5 strategies could not be told from cutmix by accuracy",
        ),
        (
            {"transmix": (1.0, 0.0), "mixup": (1.0, 0.0)},
            3,
            "3 seeds are too few to tell transmix and mixup from cutmix by accuracy (it takes 7)",
        ),
        (
            {"transmix": (1.0, 0.0)},
            1,
            "1 seed is too few to tell transmix from cutmix by accuracy (it takes 6)",
        ),
        ({}, 2, "There are no two strategies whose accuracy could be compared"),
    ],
)
def test_the_sentence_says_what_was_shown_and_what_not(gains, seeds, sentence):
    shown = answer(Tables(runs_of(gains, seeds), []))
    assert shown.sentence == f"{sentence}; speed was not measured."
    assert shown.of_timing == 0 and shown.timed == ""


def test_the_sentence_counts_the_seeds_of_what_it_names():
    few = [row for row in runs_of({"transmix": (1, 0), "mixup": (0, 0.2)}) if row.seed < 7]
    runs = [*runs_of({"mixup": (0, 0.2)}), *(row for row in few if row.strategy == "transmix")]
    shown = answer(Tables(runs, []))
    assert shown.sentence.startswith("7 seeds show transmix to be more accurate than cutmix")
    assert shown.trained.endswith("7 to 8 seeds")
    unclear = [row for row in runs if row.strategy != "transmix" or row.seed < 2]
    assert answer(Tables(unclear, [])).sentence.startswith("With 2 to 8 seeds mixup and transmix")


def test_the_sentence_on_speed():
    quick = speed_row("mixup", ratio_to_cutmix=1.2, ratio_lo=1.1, ratio_hi=1.3)
    slow = speed_row("puzzlemix", ratio_to_cutmix=0.5, ratio_lo=0.49, ratio_hi=0.51)
    shown = answer(Tables([], [speed_row(), quick, slow, speed_row("none")]))
    assert shown.sentence == (
        "Nothing was trained; mixup is faster than CutMix; puzzlemix is slower than CutMix; "
        "no difference of speed was shown for none."
    )
    assert (shown.of_training, shown.of_timing, shown.trained) == (0, 2, "")
    assert answer(Tables([], [speed_row()])).sentence == (
        "Nothing was trained; of speed there is nothing to compare."
    )


def test_seeds_are_counted_where_strategies_have_more_or_fewer():
    runs = [run_row("cutmix", seed, 70.0 + seed) for seed in range(3)]
    runs += [run_row("transmix", seed, 71.0 + seed) for seed in range(2)]
    cutmix, transmix = answer(Tables(runs, [])).rows
    assert cutmix[1] == "71.00 ± 1.00 (3 seeds)" and transmix[1] == "71.50 ± 0.71 (2 seeds)"
    assert transmix[2].startswith("+1.00")


def test_what_is_missing_or_failed_is_said_in_its_cell():
    runs = [run_row("cutmix", seed, 70.0 + seed) for seed in range(3)]
    runs += [run_row("transmix", 0, 71.0), run_row("transmix", 1, None, status="diverged")]
    runs += [run_row("mixup", 0, None, status="out of memory")]
    speed = [
        speed_row(),
        speed_row("transmix", status="failed: no", im_per_sec=None, ratio_to_cutmix=None),
        speed_row("mixup"),
        speed_row("mixup", device="Loom"),
    ]
    cutmix, transmix, mixup = answer(Tables(runs, speed)).rows
    assert cutmix[1] == "71.00 ± 1.00" and transmix[1] == "71.00 (1 of 2 seeds)"
    assert mixup[1:4] == ("out of memory", "-", "nothing to compare")
    assert transmix[4:] == ("failed: no", "-") and mixup[4:] == ("several, below", "-")
    assert "several models or machines" in answer(Tables(runs, speed)).sentence
