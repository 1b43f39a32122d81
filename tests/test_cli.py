"""The command as a user meets it."""

import csv
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mixbench import results
from mixbench.cli import main
from mixbench.report.tables import published_table8
from mixbench.results import SPEEDS
from mixbench.runs.rows import COLUMNS, write_csv

TINY = [
    "--embed-dim",
    "24",
    "--depth",
    "1",
    "--epochs",
    "1",
    "--batch_size",
    "8",
    "--micro-batch",
    "8",
    "--speed-model",
    "deit_tiny_patch16_224",
    "--speed-batch-size",
    "2",
    "--speed-image-size",
    "64",
    "--no-speed-amp",
    "--rounds",
    "2",
    "--limit-train",
    "20",
    "--limit-val",
    "20",
]


@pytest.fixture
def photos(tmp_path):
    rng = np.random.default_rng(0)
    for split in ("train", "val"):
        for name in ("cat", "dog"):
            (tmp_path / "photos" / split / name).mkdir(parents=True)
            for i in range(10):
                pixels = rng.integers(0, 255, (40, 50, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "photos" / split / name / f"{i}.png")
    return tmp_path / "photos"


def rows(path):
    with path.open(newline="") as file:
        return list(csv.DictReader(file))


def test_default_data_end_to_end(tmp_path, capsys):
    out = tmp_path / "run"
    assert (
        main(
            [
                "--strategies",
                "none,transmix",
                "--out",
                str(out),
                "--csv",
                str(tmp_path / "c.csv"),
                *TINY,
            ]
        )
        == 0
    )
    written = rows(out / "comparison.csv")
    assert tuple(written[0]) == COLUMNS and [row["strategy"] for row in written] == [
        "none",
        "transmix",
    ]
    assert written == rows(tmp_path / "c.csv")
    for row in written:
        assert row["status"] == "ok" and 0 <= float(row["top1"]) <= float(row["top5"]) <= 100
        assert (
            float(row["im_per_sec_lo"]) <= float(row["im_per_sec"]) <= float(row["im_per_sec_hi"])
        )
        assert float(row["ratio_lo"]) <= float(row["ratio_to_cutmix"]) <= float(row["ratio_hi"])
    assert "no evidence about ImageNet" in (out / "comparison.md").read_text()
    assert Image.open(out / "mixed.png").size[0] > 400
    assert "top-1" in capsys.readouterr().out


def test_photographs_end_to_end(tmp_path, photos):
    out = tmp_path / "run"
    assert (
        main(
            [
                "--data",
                str(photos),
                "--config",
                "quick",
                "--strategies",
                "cutmix",
                "--mode",
                "accuracy",
                "--workers",
                "0",
                "--out",
                str(out),
                *TINY,
            ]
        )
        == 0
    )
    [row] = rows(out / "comparison.csv")
    assert (row["dataset"], row["num_classes"], row["train_images"], row["im_per_sec"]) == (
        "photos",
        "2",
        "20",
        "",
    )


def test_epochs_go_to_tensorboard_too(tmp_path):
    event_accumulator = pytest.importorskip(
        "tensorboard.backend.event_processing.event_accumulator"
    )
    out = tmp_path / "run"
    assert (
        main(
            [
                "--strategies",
                "cutmix",
                "--mode",
                "accuracy",
                "--log",
                "tensorboard",
                "--out",
                str(out),
                *TINY,
                "--epochs",
                "2",
            ]
        )
        == 0
    )
    events = event_accumulator.EventAccumulator(str(out / "tensorboard" / "cutmix" / "seed0"))
    events.Reload()
    logged = rows(out / "cutmix" / "seed0" / "log.csv")
    assert [round(event.value, 4) for event in events.Scalars("top1")] == [
        round(float(row["top1"]), 4) for row in logged
    ]


def test_speed_alone_adds_the_reference(tmp_path):
    assert (
        main(["--strategies", "mixup", "--mode", "speed", "--out", str(tmp_path / "run"), *TINY])
        == 0
    )
    written = rows(tmp_path / "run" / "comparison.csv")
    assert [row["strategy"] for row in written] == ["cutmix", "mixup"]
    assert written[0]["ratio_to_cutmix"] == "1.0" and written[0]["top1"] == ""


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strategies", "cutmx"], "did you mean 'cutmix'"),
        (["--stratgies", "x"], "did you mean '--strategies'"),
        (["--lr", "abc"], "lr must be a number"),
        (["--data", "/nowhere"], "not found: /nowhere"),
        (["--config", "deit_smal"], "did you mean 'deit_small'"),
        (["--device", "cuda:99"], "use --device cpu"),
        (["--device", "tpu"], "auto, cpu"),
        (["--seeds", "1,1"], "different whole numbers"),
        (["--rounds", "0"], "above 0"),
        (["--plugin", "/nowhere.py"], "not found"),
        (["--batch-size", "4000", "--micro-batch", "8"], "larger than the 3000"),
        (
            ["--model", "resnet18", "--strategies", "transmix", "--mode", "accuracy"],
            "resnet18 has no class token",
        ),
        (
            ["--model", "resnet18", "--depth", "3", "--mode", "accuracy"],
            "resnet18 does not take all of",
        ),
        (
            [
                "--model",
                "vit_base_patch16_gap_224",
                "--strategies",
                "transmix",
                "--mode",
                "accuracy",
            ],
            "no class token",
        ),
    ],
)
def test_mistakes_exit_with_2(argv, message, capsys, tmp_path):
    import re

    assert main([*argv, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and re.search(message, error), (
        error
    )


def test_bad_folders(photos, tmp_path, capsys):
    common = ["--config", "quick", "--mode", "accuracy", "--workers", "0", *TINY]
    (photos / "val" / "dog").rename(photos / "val" / "wolf")
    assert main(["--data", str(photos), "--out", str(tmp_path / "a"), *common]) == 2
    assert "different classes" in capsys.readouterr().err
    (photos / "val" / "wolf").rename(photos / "val" / "dog")
    bad = photos / "train" / "cat" / "0.png"
    bad.write_bytes(b"not a picture")
    assert main(["--data", str(photos), "--out", str(tmp_path / "b"), *common]) == 2
    assert str(bad) in capsys.readouterr().err


def test_another_recipes_folder_is_refused(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("lr: 1\n")
    assert main(["--out", str(tmp_path)]) == 2
    assert (
        "another recipe" in capsys.readouterr().err
        and (tmp_path / "recipe.yaml").read_text() == "lr: 1\n"
    )


def test_information_only(capsys, tmp_path):
    assert main(["--list"]) == 0 and "transmix(base=cutmix" in capsys.readouterr().out
    assert (
        main(["--print-recipe", "--warmup_epochs", "3"]) == 0
        and "warmup_epochs: 3.0" in capsys.readouterr().out
    )
    assert (
        main(["--dry-run", "--out", str(tmp_path / "x")]) == 0
        and "would run   cutmix, transmix" in capsys.readouterr().out
    )
    assert not (tmp_path / "x").exists()


def test_published_figures():
    table = published_table8()
    assert (
        table["mixup"]["top1"] == "78.6"
        and table["transmix"]["top1"] == "80.7"
        and table["puzzlemix"]["im_per_sec"] == "139"
    )


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize(
    "spec", ["none", "mixup", "cutmix", "cutmix(per_sample=True)", "alternate"]
)
def test_mixing_on_a_gpu_equals_the_cpu_without_a_wait(spec):
    from mixbench import create_strategy, make_context

    strategy, images, labels = create_strategy(spec), torch.randn(6, 3, 32, 48), torch.arange(6)
    results = []
    for device in ("cpu", "cuda"):
        x, y = images.to(device), labels.to(device)
        ctx = make_context(
            strategy, torch.nn.Identity(), x, seed=0, step=0, mean=(0.5,) * 3, std=(0.5,) * 3
        )
        torch.cuda.set_sync_debug_mode("error" if device == "cuda" else "default")
        try:
            results.append(strategy.mix(x, y, ctx))
        finally:
            torch.cuda.set_sync_debug_mode("default")
    torch.testing.assert_close(results[1].images.cpu(), results[0].images)


def test_results_are_not_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["--strategies", "none", "--mode", "accuracy", *TINY]
    assert main([*command, "--out", "run"]) == 0 and main(command) == 0 and main(command) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    capsys.readouterr()
    assert main([*command, "--out", "run"]) == 2
    assert "add --resume" in capsys.readouterr().err
    before = rows(tmp_path / "run" / "comparison.csv")
    assert (
        main(["--strategies", "mixup", "--mode", "accuracy", "--resume", "--out", "run", *TINY])
        == 0
    )
    after = rows(tmp_path / "run" / "comparison.csv")
    assert [row["strategy"] for row in after] == ["mixup", "none"] and after[1]["top1"] == before[
        0
    ]["top1"]


@pytest.mark.parametrize(
    "options",
    [{}, *SPEEDS["cpu"].values(), *SPEEDS["gpu"].values()],
    ids=lambda options: " ".join(results._command(options)),
)
def test_tables_of_make_results_are_commands(options, capsys):
    command = results._command(
        {"--strategies": "cutmix,transmix", "--mode": "speed", "--rounds": "40"} | options
    )
    assert (
        main([*command, "--print-recipe"]) == 0
        and command.count("--rounds") == command.count("--strategies") == 1
    )  # the page says what was run


@pytest.mark.parametrize("failure", [RuntimeError("out of memory"), 2], ids=["raises", "refused"])
def test_a_failed_table_does_not_lose_the_others(failure, tmp_path, monkeypatch):
    """Nor is what there is measured again: only the failed one."""
    tried, failing = [], True

    def bench(argv):
        csv, out = (Path(argv[argv.index(name) + 1]) for name in ("--csv", "--out"))
        tried.append(csv.name)
        if failing and not csv.stem.endswith("saliency"):
            if isinstance(failure, Exception):
                raise failure
            return failure
        out.mkdir()
        (out / "comparison.md").write_text(f"`bench.py --rounds 1 --out {out} --csv {csv}`\n")
        return 0

    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("mixbench.cli.main", bench)
    monkeypatch.setattr(results, "_timed_strategies", lambda: ["cutmix"])
    monkeypatch.setattr("mixbench.runtime.choose_device", lambda name: torch.device("cpu"))
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)  # no GPU tests from within a test
    assert results.main(["--rounds", "1"]) != 0
    [page] = (tmp_path / "results").glob("*.md")
    assert [name.partition("-bf16")[1] for name in tried] == [
        "",
        "-bf16",
    ] and page.read_text() == "`bench.py --rounds 1`\n"
    failing = False
    assert results.main(["--rounds", "1"]) == 0
    assert tried[2:] == tried[:1] and len(list((tmp_path / "results").glob("*.md"))) == 2


def test_share_of_the_matrix_rate():
    """2,000 images a second of 27.8 GFLOP are 55.6 of 556 TFLOP/s."""
    page = results._shares(556e12, {"bf16": 2000.0, "bf16-compiled": None})
    assert "556 TFLOP/s" in page and "27.8 GFLOP an image, reaches of it: bf16 10.0 %." in page


def test_the_readme_shows_the_newest_figures(tmp_path, monkeypatch):
    """Two seeds of two strategies: 2 points apart in one and 3 in the other; the older and the smaller comparison are not shown."""

    def write(name, date, rows):
        columns = {
            "status": "ok",
            "dataset": "photos",
            "train_images": 1000,
            "model": "vit",
            "params_m": 0.5,
            "image_size": 32,
            "epochs": 40,
            "device": "a CPU",
            "date": date,
        }
        common = dict.fromkeys(COLUMNS) | columns
        write_csv(
            [common | {"strategy": spec, "seed": seed, "top1": top1} for spec, seed, top1 in rows],
            tmp_path / "results" / name,
        )

    monkeypatch.chdir(tmp_path)
    (tmp_path / "results").mkdir()
    write("old-top1.csv", "2026-01-01", [("cutmix", seed, 1.0) for seed in range(9)])
    write("one-top1.csv", "2026-02-01", [("cutmix", 0, 1.0)])
    write(
        "new-top1.csv",
        "2026-02-01",
        [("cutmix", 0, 40.0), ("mixup", 0, 42.0), ("cutmix", 1, 50.0), ("mixup", 1, 53.0)],
    )
    (tmp_path / "README.md").write_text(
        "a\n<!-- top-1: x -->\nstale\n<!-- /top-1 -->\nb\n<!-- speed: y -->\nstale\n<!-- /speed -->\nc\n"
    )
    assert results.main(["--readme"]) == 0
    text = (tmp_path / "README.md").read_text()
    assert (
        "| cutmix | 45.00 | 7.07 | - | - | the baseline | 79.8 |" in text
        and "| mixup | 47.50 | 7.78 | +2.50" in text
    )
    assert (
        "1,000 images of photos, 40 epochs, 2 seeds, a CPU, 2026-02-01 ([new-top1.md](results/new-top1.md)"
        in text
    )
    assert (
        "stale" not in text
        and text.startswith("a\n<!-- top-1: x -->\n")
        and text.endswith("<!-- speed: y -->\n<!-- /speed -->\nc\n")
    )
    assert results.main(["--readme"]) == 0 and (tmp_path / "README.md").read_text() == text
