"""Rows as CSV: the columns follow from the dataclasses, and every figure survives the disk."""

import csv
import dataclasses
import math

import pytest

from mixbench.runs.rows import (
    SCHEMA_VERSION,
    ComparisonRow,
    EpochRow,
    RunRow,
    SpeedRow,
    column_names,
    plain,
    read_table,
    write_table,
)
from tests.support.rows import run_row, speed_row


def test_rows_survive_the_disk(tmp_path):
    rows = [
        run_row("cutmix", 0, 71.123, compiled=True),
        run_row("transmix(attention_weight=1.0)", 1, None, status="diverged at step 3, alas"),
        run_row("mixup", 0, None, dataset=None, epochs=None, train_images=None),
    ]
    write_table(tmp_path / "runs.csv", RunRow, rows)
    assert read_table(tmp_path / "runs.csv", RunRow) == rows
    [first, second, third] = csv.DictReader((tmp_path / "runs.csv").open())
    assert first["epochs"] == "3" and first["train_images"] == "1000" and first["top1"] == "71.123"
    assert second["top1"] == "" and third["epochs"] == ""
    write_table(tmp_path / "speed.csv", SpeedRow, [speed_row()])
    assert read_table(tmp_path / "speed.csv", SpeedRow) == [speed_row()]


def test_figures_are_rounded_but_for_the_log(tmp_path):
    made = run_row(top1=100 * 1132 / 1500, nll=0.123456, ece=float("nan"))
    write_table(tmp_path / "runs.csv", RunRow, [made])
    [row] = read_table(tmp_path / "runs.csv", RunRow)
    assert (row.top1, row.nll, row.ece) == (75.466666666667, 0.1235, None)  # tests need all of it
    log = EpochRow(
        epoch=0, lr=0.1 / 3, train_loss=float("nan"), top1=100 / 3, top5=200 / 3, seconds=1 / 7
    )
    write_table(tmp_path / "log.csv", EpochRow, [log])
    [again] = read_table(tmp_path / "log.csv", EpochRow)
    assert (again.lr, again.top1, again.seconds) == (0.1 / 3, 100 / 3, 1 / 7)
    assert math.isnan(again.train_loss)  # a loss that is no number is told, not left out


def test_a_table_that_a_spreadsheet_saved_again_is_read(tmp_path):
    made = run_row("cutmix", 0, 71.123, compiled=True, dataset="caf\u00e9")
    write_table(tmp_path / "runs.csv", RunRow, [made])
    text = (tmp_path / "runs.csv").read_text().replace("True", "TRUE").replace("\n", "\r\n")
    (tmp_path / "runs.csv").write_bytes(text.encode("utf-8-sig"))
    assert read_table(tmp_path / "runs.csv", RunRow) == [made]


def test_a_name_with_a_carriage_return_leaves_the_table_whole(tmp_path):
    write_table(tmp_path / "runs.csv", RunRow, [run_row(dataset="a\rb"), run_row(seed=1)])
    [first, second] = read_table(tmp_path / "runs.csv", RunRow)
    assert (first.dataset, second.seed) == ("a\\rb", 1)


def test_an_epoch_without_evaluation_has_empty_cells(tmp_path):
    rows = [
        EpochRow(epoch=0, lr=0.1, train_loss=2.0, seconds=1.5),
        EpochRow(epoch=1, lr=0.1, train_loss=1.0, top1=40.0, top5=80.0, val_nll=1.5, seconds=3.0),
    ]
    write_table(tmp_path / "log.csv", EpochRow, rows)
    first, second = (tmp_path / "log.csv").read_text().splitlines()[1:]
    assert first == "0,0.1,2.0,,,,,,,1.5" and second == "1,0.1,1.0,40.0,80.0,,,1.5,,3.0"
    assert read_table(tmp_path / "log.csv", EpochRow) == rows


def test_every_column_has_a_meaning():
    for kind in (RunRow, SpeedRow, ComparisonRow, EpochRow):
        for field in dataclasses.fields(kind):
            assert field.metadata["meaning"], f"{kind.__name__}.{field.name}"
    assert SCHEMA_VERSION == 3 and column_names(RunRow)[:3] == ("strategy", "seed", "status")


def test_what_is_no_table_is_refused(tmp_path):
    with pytest.raises(ValueError, match="not found"):
        read_table(tmp_path / "runs.csv", RunRow)
    (tmp_path / "runs.csv").write_text("a,b\n1,2\n")
    with pytest.raises(ValueError, match="no table of mixbench: it lacks strategy, seed"):
        read_table(tmp_path / "runs.csv", RunRow)
    (tmp_path / "runs.csv").write_text("strategy,seed,top1\ncutmix,0,70\ncutmix,1,high\n")
    with pytest.raises(ValueError, match=r"runs\.csv, line 3: top1 cannot be 'high'"):
        read_table(tmp_path / "runs.csv", RunRow)


def test_a_column_of_a_later_version_is_passed_over(tmp_path):
    (tmp_path / "runs.csv").write_text("strategy,seed,colour\ncutmix,1,red\n")
    assert read_table(tmp_path / "runs.csv", RunRow) == [RunRow(strategy="cutmix", seed=1)]


def test_plain_values_are_json():
    row = plain(run_row(top1=float("nan"), nll=float("inf"), compiled=True))
    assert row["top1"] is None and row["nll"] is None and row["compiled"] is True
    assert list(row) == list(column_names(RunRow))
