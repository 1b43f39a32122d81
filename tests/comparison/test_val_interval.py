"""The validation images are evaluated now and then: no figure of the last epoch changes."""

import numpy as np
import pytest
import torch
from matplotlib.figure import Figure

from mixbench import compare
from mixbench.cli import main
from mixbench.runs.directory import RunDirectory
from tests.support import blank, kills
from tests.support.command import TINY, cells
from tests.support.html_pages import Page

SPECS = ("cutmix", "transmix")
ARGV = [
    *("--strategies", ",".join(SPECS), *TINY, "--mode", "accuracy", "--epochs", "4"),
    *("--warmup-epochs", "1", "--model-ema", "--headline", "ema"),
]
VALIDATION = ("top1", "top5", "top1_ema", "top5_ema", "val_nll", "val_nll_ema")


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same run, evaluated after every epoch and after every third."""
    root = tmp_path_factory.mktemp("runs")
    places = {interval: RunDirectory(root / str(interval)) for interval in (1, 3)}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Figure, "savefig", blank.savefig)
        assert main([*ARGV, "--out", str(places[1].path)]) == 0
        assert main([*ARGV, "--val-interval", "3", "--out", str(places[3].path)]) == 0
    return places


def test_rows_weights_and_single_images_are_the_same_to_the_bit(folders):
    assert kills.figures(folders[1].path) == kills.figures(folders[3].path)
    assert folders[1].recipe.read_bytes() == folders[3].recipe.read_bytes()
    for spec in SPECS:
        every, third = (folders[interval].seed(spec, 0) for interval in (1, 3))
        one, other = (torch.load(each.weights, weights_only=True) for each in (every, third))
        for part in ("state_dict", "state_dict_ema"):
            assert one[part].keys() == other[part].keys()
            assert all(torch.equal(one[part][name], other[part][name]) for name in one[part])
        for name in ("images", "lam"):
            assert getattr(every, name).read_bytes() == getattr(third, name).read_bytes()
        with np.load(third.images) as arrays:
            assert len(arrays["nll"]) == 20


def test_a_row_an_epoch_and_figures_of_those_that_were_evaluated(folders):
    for spec in SPECS:
        every, third = (cells(folders[interval].seed(spec, 0).log) for interval in (1, 3))
        assert [row["epoch"] for row in third] == ["0", "1", "2", "3"]
        for row, sparse in zip(every, third, strict=True):
            evaluated = sparse["epoch"] in ("2", "3")
            for name in sparse.keys() - {"seconds"}:
                left_out = name in VALIDATION and not evaluated
                assert sparse[name] == ("" if left_out else row[name]), name
            assert all(row[name] for name in VALIDATION)


def test_the_page_says_which_epochs_its_curves_are_of(folders):
    pages = {interval: Page(places.report.read_text()) for interval, places in folders.items()}
    assert "validation images after each epoch" in pages[1].text
    assert "after each epoch" not in pages[3].text
    assert "Top-1 on the validation images after the epochs that were evaluated" in pages[3].text


def test_what_is_said_and_logged_of_an_epoch(tmp_path, capsys):
    heard = []

    class Hearing:
        def log(self, strategy, seed, epoch, figures):
            heard.append((epoch, "train_loss" in figures, set(VALIDATION) & figures.keys()))

        def close(self):
            pass

    small = {"embed_dim": 24, "depth": 1, "batch_size": 8, "micro_batch": 8, "epochs": 3}
    small |= {"limit_train": 16, "limit_val": 16, "warmup_epochs": 0, "config": "quick"}
    out = tmp_path / "run"
    compare("none", mode="accuracy", val_interval=2, log=Hearing(), out=out, **small)
    raw = {"top1", "top5", "val_nll"}
    assert heard == [(0, True, set()), (1, True, raw), (2, True, raw)]
    lines = [line for line in capsys.readouterr().out.splitlines() if "  epoch " in line]
    assert ["top-1" in line for line in lines] == [False, True, True]
    assert all("none  loss " in line for line in lines)


def test_a_dry_run_says_it_and_takes_less_time(tmp_path, capsys, monkeypatch):
    from mixbench.comparison import cost

    works = []
    monkeypatch.setattr(cost, "training_seconds", lambda _, __, work: works.append(work) or 1.0)
    argv = [*ARGV, "--out", str(tmp_path / "run"), "--dry-run"]
    assert main(argv) == 0 and "evaluated every" not in capsys.readouterr().out
    assert main([*argv, "--val-interval", "3"]) == 0
    assert "batch 8, evaluated every 3 epochs and at the end" in capsys.readouterr().out
    assert [work.evaluations for work in works] == [4, 2]


@pytest.mark.parametrize("value", [0, -1, 1.5, True, None, "2"])
def test_what_is_no_interval_is_refused(value, tmp_path):
    words = "val_interval must be a whole number of 1 or more, not "
    with pytest.raises(ValueError, match=words):
        compare("none", config="quick", val_interval=value, out=tmp_path / "run")
    assert not (tmp_path / "run").exists()
