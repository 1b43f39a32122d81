"""A row for each strategy says what its rows say: means, differences, and its speed."""

import statistics

import numpy as np
import pytest

from mixbench.report.significance import compare
from mixbench.report.summary import speed_verdict, summarise
from mixbench.runs.merge import Tables
from mixbench.runs.rows import ComparisonRow, read_table, write_table
from mixbench.runs.samples import Bitmap
from tests.support.rows import full_tables, run_row, speed_row


def test_a_strategys_row_is_the_mean_of_its_seeds():
    tables = full_tables()
    cutmix, transmix, puzzlemix = summarise(tables)
    assert [row.strategy for row in (cutmix, transmix, puzzlemix)] == [
        "cutmix",
        "transmix",
        "puzzlemix",
    ]
    top1 = {
        name: {row.seed: row.top1 for row in tables.runs if row.strategy == name}
        for name in ("cutmix", "transmix", "puzzlemix")
    }
    values = list(top1["transmix"].values())
    assert transmix.top1 == pytest.approx(statistics.fmean(values))
    assert transmix.top1_sd == pytest.approx(statistics.stdev(values)) and transmix.seeds == 3
    [difference, _] = compare(top1).differences
    assert (transmix.difference, transmix.difference_lo, transmix.difference_hi) == (
        difference.mean,
        difference.low,
        difference.high,
    )
    assert (transmix.p, transmix.p_corrected) == (difference.p, difference.corrected)
    assert transmix.verdict == "not resolvable with 3 seeds" and transmix.baseline == "cutmix"
    assert (cutmix.verdict, cutmix.difference, cutmix.p) == ("the baseline", None, None)
    assert transmix.train_seconds == 61.0 and transmix.nll == pytest.approx(0.9)
    assert (puzzlemix.im_per_sec, puzzlemix.ratio_hi) == (50.0, 0.51)
    assert [row.speed_verdict for row in (cutmix, transmix, puzzlemix)] == [
        "the reference",
        "no difference shown",
        "slower than CutMix",
    ]
    assert (transmix.model, transmix.timed_model) == ("deit_small_patch16_224", "deit_small")


def test_a_difference_that_is_shown():
    base = [run_row("cutmix", seed, 70.0 + seed / 10) for seed in range(6)]
    gains = (0.9, 1.0, 1.2, 0.8, 1.1, 1.0)
    for sign, word in ((1, "higher"), (-1, "lower")):
        new = [
            run_row("new", seed, 70 + seed / 10 + sign * gain) for seed, gain in enumerate(gains)
        ]
        [_, row] = summarise(Tables(base + new, []))
        assert row.verdict == word and row.p == row.p_corrected == 2 / 2**6
        assert row.difference == pytest.approx(sign)


def test_one_seed_has_no_test_over_seeds():
    tables = Tables([run_row("cutmix"), run_row("transmix", top1=71.5)], [])
    right = {"cutmix": np.arange(40) < 20, "transmix": np.arange(40) < 30}
    correct = {(name, 0): Bitmap(flags) for name, flags in right.items()}
    [_, row] = summarise(tables, correct)
    assert (row.seeds, row.difference) == (1, 1.5) and row.verdict == "not resolvable with 1 seed"
    assert row.top1_sd is row.difference_lo is row.p is row.p_corrected is None


def test_rates_are_averaged_over_time():
    runs = [run_row(seed=seed, train_im_per_sec=rate) for seed, rate in enumerate((60.0, 120.0))]
    [row] = summarise(Tables(runs, []))
    assert row.train_im_per_sec == 80  # 60 images in 1 s, and as many in half a second


def test_what_was_timed_alone_has_its_speeds_status():
    failed = speed_row("transmix", status="out of memory", im_per_sec=None)
    [mixup, cutmix, transmix] = summarise(Tables([run_row("mixup")], [speed_row(), failed]))
    assert (mixup.status, mixup.im_per_sec, mixup.speed_verdict) == ("ok", None, None)
    assert (cutmix.status, cutmix.seeds, cutmix.verdict, cutmix.model) == ("ok", None, None, None)
    assert cutmix.im_per_sec == 100.0 and cutmix.timed_batch_size == 8
    assert (transmix.status, transmix.im_per_sec) == ("out of memory", None)
    assert transmix.timed_model == "deit_small" and transmix.speed_verdict is None


def test_a_failure_is_named_with_its_seed():
    runs = [
        run_row("cutmix", 0),
        run_row("transmix", 0, None, status="diverged at step 7"),
        run_row("transmix", 1, 71.0),
        run_row("mixup", 0, None, status="failed: no"),
    ]
    slow = speed_row("transmix", status="out of memory", im_per_sec=None)
    cutmix, transmix, mixup = summarise(Tables(runs, [slow]))
    assert transmix.status == "seed 0: diverged at step 7; speed: out of memory"
    assert (transmix.seeds, transmix.top1, transmix.verdict) == (1, 71.0, "nothing to compare")
    assert (mixup.status, mixup.top1, mixup.seeds) == ("failed: no", None, 0)
    assert cutmix.status == "ok"


def test_several_machines_have_no_common_speed():
    runs = [run_row(seed=0), run_row(seed=1, device="Loom", versions="mixbench 2", date="2026-02")]
    speed = [speed_row(), speed_row(device="Difference Engine", im_per_sec=7.0)]
    [row] = summarise(Tables(runs, speed))
    assert row.im_per_sec is row.timed_model is row.rounds is row.speed_verdict is None
    assert row.device == "Abacus, 2 threads; Loom; Difference Engine"
    assert row.versions == "mixbench 1; mixbench 2" and row.date == "2026-02"


def test_times_of_training_on_several_machines_are_not_averaged():
    runs = [run_row(seed=0, train_im_per_sec=980.0), run_row("mixup", 0, train_im_per_sec=990.0)]
    [cutmix, _] = summarise(Tables(runs, []))
    assert (cutmix.train_im_per_sec, cutmix.train_seconds) == (980.0, 60.0)
    runs.append(run_row(seed=1, device="Loom", train_im_per_sec=10.0))
    for row in summarise(Tables(runs, [])):  # mixup's too, which has nobody to stand beside
        assert row.train_im_per_sec is row.train_seconds is None and row.nll == 0.9


def test_times_of_training_are_of_the_seeds_that_all_have():
    """Another day's seeds of one strategy, on a busier machine, are no comparison."""
    runs = [
        run_row(spec, seed, train_im_per_sec=rate, train_seconds=seconds)
        for spec, seed, rate, seconds in (
            ("cutmix", 0, 440.0, 60.0),
            ("cutmix", 1, 400.0, 70.0),
            ("cutmix", 2, 200.0, 140.0),
            ("mixup", 0, 430.0, 61.0),
            ("mixup", 1, 410.0, 71.0),
        )
    ]
    [cutmix, mixup] = summarise(Tables(runs, []))
    assert cutmix.train_im_per_sec == pytest.approx(2 / (1 / 440 + 1 / 400))
    assert (cutmix.train_seconds, mixup.train_seconds) == (65.0, 66.0) and cutmix.seeds == 3
    runs.append(run_row("none", 3, train_im_per_sec=500.0))
    assert {row.train_im_per_sec for row in summarise(Tables(runs, []))} == {None}


def test_like_timings_are_one_speed_that_of_most_rounds():
    speed = [speed_row(rounds=5), speed_row(rounds=40, im_per_sec=90.0), speed_row(rounds=40)]
    [row] = summarise(Tables([], speed))
    assert (row.rounds, row.im_per_sec, row.timed_model) == (40, 90.0, "deit_small")
    [row] = summarise(Tables([], [*speed, speed_row(timed_image_size=32)]))
    assert row.im_per_sec is row.rounds is None


def test_rows_survive_the_disk(tmp_path):
    rows = summarise(full_tables())
    write_table(tmp_path / "comparison.csv", ComparisonRow, rows)
    again = read_table(tmp_path / "comparison.csv", ComparisonRow)
    assert [row.verdict for row in again] == [row.verdict for row in rows]
    assert again[1].top1 == round(rows[1].top1, 3) and again[1].ratio_lo == rows[1].ratio_lo


def test_speed_verdicts_respect_the_control():
    verdicts = [
        speed_verdict(speed_row("new", ratio_lo=low, ratio_hi=high))
        for low, high in ((0.9, 0.97), (0.9, 0.99), (0.97, 1.1), (1.03, 1.1), (1.01, 1.1))
    ]
    assert verdicts == [
        "slower than CutMix",
        "no difference shown",
        "no difference shown",
        "faster than CutMix",
        "no difference shown",
    ]
    assert speed_verdict(speed_row()) == "the reference"
