"""The command as a user meets it."""

import json
import re

import pytest
import torch
from PIL import Image

from mixbench.cli import main
from mixbench.commands.options import bench_parser
from mixbench.commands.sweep import add_sweep_options
from mixbench.registry import BUILTIN
from mixbench.runs.directory import RunDirectory
from mixbench.runs.rows import ComparisonRow, RunRow, SpeedRow, column_names, plain, read_table
from tests.support.command import TINY, cells

ACCURACY = ["--mode", "accuracy", *TINY]


@pytest.mark.pictures
def test_default_data_end_to_end(tmp_path, capsys):
    directory, extra = RunDirectory(tmp_path / "run"), tmp_path / "c.csv"
    argv = ["--strategies", "none,transmix", "--out", str(directory.path), "--csv", str(extra)]
    assert main([*argv, "--json", str(tmp_path / "all.json"), *TINY]) == 0
    runs, speed = read_table(directory.runs, RunRow), read_table(directory.speed, SpeedRow)
    rows = read_table(directory.comparison, ComparisonRow)
    assert [row.strategy for row in runs] == ["none", "transmix"]
    assert [row.strategy for row in speed] == ["cutmix", "none", "transmix"]  # the reference first
    assert {row.strategy for row in rows} == {"none", "transmix", "cutmix"}
    assert extra.read_bytes() == directory.comparison.read_bytes()
    for row in runs:
        assert row.status == "ok" and 0 <= row.top1 <= row.top5 <= 100
        assert (row.model, row.image_size) == ("vit_tiny_patch16_224", 32)
    for row in speed:
        assert row.im_per_sec_lo <= row.im_per_sec <= row.im_per_sec_hi
        assert row.ratio_lo <= row.ratio_to_cutmix <= row.ratio_hi
        assert (row.timed_model, row.timed_image_size) == ("test_vit", 64)
    whole = json.loads((tmp_path / "all.json").read_text())
    assert [row["strategy"] for row in whole["runs"]] == ["none", "transmix"]
    assert whole["recipe"]["embed_dim"] == 24 and whole["command"].startswith("mixbench --")
    assert [row["top1"] for row in whole["comparison"]] == [plain(row)["top1"] for row in rows]
    assert "no evidence about ImageNet" in directory.markdown.read_text()
    assert Image.open(directory.mixed).size[0] > 400 and directory.report.is_file()
    assert "top-1" in capsys.readouterr().out


def test_photographs_end_to_end(tmp_path, photographs):
    folder = photographs(tmp_path / "photos", 10, 10, ("cat", "dog"))
    directory = RunDirectory(tmp_path / "run")
    argv = ["--data", str(folder), "--config", "quick", "--strategies", "cutmix", "--workers", "0"]
    assert main([*argv, "--out", str(directory.path), *ACCURACY]) == 0
    [row] = cells(directory.comparison)
    assert (row["dataset"], row["num_classes"], row["train_images"]) == ("photos", "2", "20")
    assert row["im_per_sec"] == "" and not directory.speed.exists()


def test_the_row_is_of_the_weights_that_the_recipe_names(tmp_path):
    """The averaged weights' top-1 and top-5 where the headline is ema; a test set of 200."""
    directory = RunDirectory(tmp_path / "run")
    argv = ["--strategies", "none", "--model-ema", "--headline", "ema", "--lr", "0.01"]
    argv += [*ACCURACY, "--epochs", "2", "--limit-val", "200", "--limit-train", "80"]
    assert main([*argv, "--model-ema-decay", "0.9", "--out", str(directory.path)]) == 0
    [row], last = cells(directory.runs), cells(directory.seed("none", 0).log)[-1]
    assert last["top1"] != last["top1_ema"]
    assert float(row["top1"]) == float(row["top1_ema"]) == float(last["top1_ema"])
    assert float(row["top5"]) == pytest.approx(float(last["top5_ema"]))
    assert row["headline"] == "ema"


def test_a_strategy_that_fails_gives_a_row_and_status_1(tmp_path):
    plugin = tmp_path / "failing.py"
    plugin.write_text(FAILING)
    directory = RunDirectory(tmp_path / "run")
    argv = ["--plugin", str(plugin), "--strategies", "failing,none", "--out", str(directory.path)]
    assert main([*argv, *TINY]) == 1
    for file in (directory.runs, directory.speed):
        status = {row["strategy"]: row["status"] for row in cells(file)}
        assert status["failing"] == "failed: RuntimeError: no luck" and status["none"] == "ok"
    [row] = [row for row in cells(directory.comparison) if row["strategy"] == "failing"]
    assert "no luck" in row["status"] and row["top1"] == row["im_per_sec"] == ""


FAILING = """
from dataclasses import dataclass
from mixbench import register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("failing")
@dataclass(frozen=True)
class Failing(CutMix):
    def mix(self, images, labels, ctx):
        raise RuntimeError("no luck")
"""


def test_speed_alone_adds_the_reference(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    argv = ["--strategies", "mixup", "--mode", "speed", "--out", str(directory.path)]
    assert main([*argv, *TINY]) == 0
    written = cells(directory.speed)
    assert [row["strategy"] for row in written] == ["cutmix", "mixup"]
    assert written[0]["ratio_to_cutmix"] == "1.0" and not directory.runs.exists()


def test_too_few_seeds_are_said_before_anything_runs(tmp_path, capsys):
    argv = ["--strategies", "none,mixup", "--out", str(tmp_path / "run"), *ACCURACY]
    assert main([*argv, "--seeds", "0-1"]) == 0
    text = capsys.readouterr().out
    words = "2 seeds and 1 comparison: no p below .05 is possible; 6 seeds are the least"
    assert -1 < text.index(words) < text.index("training will take")
    # with what is there already they are six
    assert main([*argv, "--seeds", "2-5", "--resume", "--dry-run"]) == 0
    assert "are the least" not in capsys.readouterr().out
    assert main([*argv, "--seeds", "2-4", "--resume", "--dry-run"]) == 0
    assert "seeds       5 seeds and 1 comparison" in capsys.readouterr().out


def test_train_trains_transmix_where_nothing_is_named(tmp_path):
    directory = RunDirectory(tmp_path / "run")
    assert main(["train", "--out", str(directory.path), *TINY]) == 0
    assert directory.seed("transmix", 0).weights.is_file()
    assert not directory.speed.exists()


def test_speed_times_every_strategy_in_forty_rounds(tmp_path, capsys, monkeypatch):
    from mixbench.comparison import comparison
    from mixbench.comparison.cost import Cost

    # attentivecutmix fails where its network cannot be fetched
    monkeypatch.setattr(comparison, "expected_cost", lambda *_: Cost(failures={}))
    argv = ["speed", "--dry-run", "--out", str(tmp_path / "run")]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "40 rounds" in text and "training" not in text
    assert all(name in text for name in ("none", "puzzlemix", "saliencymix", "attentivecutmix"))
    directory = RunDirectory(tmp_path / "run")
    assert main(["speed", "--strategies", "none", "--out", str(directory.path), *TINY]) == 0
    assert [row["rounds"] for row in cells(directory.speed)] == ["2", "2"]


def test_a_profile_is_printed_and_kept(tmp_path, capsys):
    directory = RunDirectory(tmp_path / "run")
    argv = ["speed", "--strategies", "none", "--profile", "--out", str(directory.path)]
    assert main([*argv, *TINY]) == 0
    text = directory.profile.read_text()
    assert text.startswith("none: ") and "aten::" in text and directory.trace(0).is_file()
    assert "aten::" in capsys.readouterr().out


def test_peers_are_timed_beside_ours(tmp_path, monkeypatch, capsys):
    from baselines import peers

    few = {"a copy": lambda: {"mixbench": lambda: None, "clone": lambda: None}}
    monkeypatch.setattr(peers, "TASKS", few)
    directory = RunDirectory(tmp_path / "run")
    argv = ["speed", "--strategies", "none", "--peers", "--out", str(directory.path)]
    assert main([*argv, *TINY]) == 0
    text = directory.peers.read_text()
    assert "a copy" in text and "clone" in text and "a copy" in capsys.readouterr().out


def test_tf32_is_of_a_gpu_and_told_in_the_row(tmp_path):
    """On a CPU the option changes neither figures nor the precision that the row names."""
    plain_run, tf32_run = RunDirectory(tmp_path / "a"), RunDirectory(tmp_path / "b")
    argv = ["--strategies", "cutmix", *ACCURACY]
    assert main([*argv, "--out", str(plain_run.path)]) == 0
    assert main([*argv, "--tf32", "--out", str(tf32_run.path)]) == 0
    [before], [after] = cells(plain_run.runs), cells(tf32_run.runs)
    assert after["precision"] == "fp32" and after["nll"] == before["nll"]
    assert after["recipe_hash"] != before["recipe_hash"]


@pytest.mark.parametrize(
    ("text", "numbers"),
    [
        ("0-7", (0, 1, 2, 3, 4, 5, 6, 7)),
        ("0-3,7", (0, 1, 2, 3, 7)),
        ("9,2-3", (9, 2, 3)),
        ("4-4", (4,)),
        (" 0 - 1 ", (0, 1)),
        ("0,1,2", (0, 1, 2)),
    ],
)
def test_seeds_may_be_a_range(text, numbers):
    assert bench_parser().parse(["--seeds", text]).seeds == numbers


def test_the_time_is_told_before_training_and_a_long_run_is_warned_of(
    tmp_path, capsys, monkeypatch
):
    from mixbench.comparison import cost

    monkeypatch.setattr(cost, "training_seconds", lambda *_: 4 * 3600.0)
    monkeypatch.setattr(cost, "first_seconds", lambda *_: 0.0)
    argv = ["--strategies", "none", "--seeds", "0,1", "--out", str(tmp_path / "run"), *ACCURACY]
    assert main(argv) == 0
    text = capsys.readouterr().out
    assert "training will take about 8.0 hours on this machine, with about" in text
    assert "that is long: lower --epochs (and with it --warmup-epochs" in text


@pytest.mark.parametrize(
    ("argv", "message"),
    [
        (["--strategies", "cutmx"], "did you mean 'cutmix'"),
        (["--stratgies", "x"], "did you mean '--strategies'"),
        (["--lr", "abc"], "lr must be a number"),
        (["--data", "nowhere"], "not found: nowhere"),
        (["--config", "deit_smal"], "did you mean 'deit_small'"),
        (["--device", "cuda:99"], "use --device cpu"),
        (["--device", "tpu"], "auto, cpu"),
        (["--seeds", "1,1"], "different whole numbers"),
        (["--rounds", "0"], "above 0"),
        (["--plugin", "nowhere.py"], "not found"),
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
            ["--model", "vit_base_patch16_gap_224", "--mode", "accuracy"],
            "no class token",
        ),
        (["--profile", "--mode", "accuracy"], "belong to the speed part"),
        (["--workers", "-1"], "workers: must be a whole number of 0 or more"),
        (["--workers", "10000000"], "workers: must be .* at most 1024"),
        (["--val-interval", "0"], "--val-interval: must be a whole number above 0, .* not '0'"),
        (["--val-interval", "-1"], "--val-interval: must be a whole number above 0, .* not '-1'"),
        (["--rounds", "\u00b2"], "--rounds: must be a whole number above 0"),
        (["--limit-train", "1e3"], "--limit-train: must be a whole number above 0"),
        (["--limit-val", "9" * 5000], "--limit-val: must be a whole number"),
        (["--seeds", "0,00"], "different whole numbers such as 0,1,2 or .* 0-7, not '0,00'"),
        (["--seeds", ","], "different whole numbers"),
        (["--seeds", "0,"], "different whole numbers"),
        (["--seeds", str(2**63)], r"below 2\*\*63, not 9223372036854775808"),
        (["--seeds", "1:30"], "different whole numbers"),
        (["--seeds", "3-1"], "a range such as 0-7, not '3-1'"),
        (["--seeds", "0,5-3"], "different whole numbers"),
        (["--seeds", "0-"], "different whole numbers"),
        (["--seeds", "-1"], "different whole numbers"),
        (["--seeds=-1-3"], "different whole numbers"),
        (["--seeds", "0-1-2"], "different whole numbers"),
        (["--seeds", "0-3,2"], "different whole numbers"),
        (["--seeds", "0-9999999"], "at most 1000 seeds in a range, not '0-9999999'"),
        (["--data="], "--data: must be a path, not ''"),
        (["--config="], "--config: must be a path, not ''"),
        (["--plugin", "a\0b"], "--plugin: must be a path"),
        (["--device="], "--device must be auto"),
        (["--epochs", "1:30"], "epochs must be a whole number, not '1:30'"),
        (["--config", "deit_small", "--epochs", "10"], "take --warmup-epochs 1$"),
        (["--config", "a/quick"], "recipe file not found: 'a/quick'"),
        (["--opt", "nonsense"], "unknown optimizer 'nonsense'"),
        (["--aa", "rand-x9"], "aa 'rand-x9' is not a policy of timm"),
        (["--model", "vit_tiny_patch16_224.dino"], "vit_tiny_patch16_224, or --pretrained$"),
        (["--model", "nonsense"], "unknown model 'nonsense'"),
        (["--speed-model", "nonsense"], "unknown model 'nonsense'"),
        (["--speed-image-size", "200"], "--speed-image-size 192 or 208"),
        (["--model", "pvt_tiny", "--image-size", "48"], "--image-size 32 or 64"),
        (["--batch-size", "1"], "mixes nothing"),
        (["--mode", "x" * 10**5], "--mode: invalid choice"),
        (["--" + "x" * 10**5], "unknown option '--xxx"),
        (["--strategies", "x" * 10**5], "unknown strategy 'xxx"),
    ],
)
def test_mistakes_exit_with_2(argv, message, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert main([*argv, "--out", str(tmp_path / "run")]) == 2
    error = capsys.readouterr().err
    assert error.startswith("error: ") and error.count("\n") == 1 and len(error) < 500, error
    assert re.search(message, error.strip()), error


@pytest.mark.parametrize(
    ("argv", "line"),
    [
        (["--epochs", "010"], "epochs: 10"),
        (["--batch-size", "064"], "batch_size: 64"),
        (["--lr", "1e-3"], "lr: 0.001"),
        (["--mean", "0.5,00,01"], "mean: [0.5, 0.0, 1.0]"),
        (["--aa", "null"], "aa: null"),
        (["--gradient-amp", "TRUE"], "gradient_amp: true"),
    ],
)
def test_values_are_what_they_look_like(argv, line, capsys):
    assert main([*argv, "--print-recipe"]) == 0
    assert line in capsys.readouterr().out.splitlines()


@pytest.mark.parametrize(
    "argv",
    [
        ["--opt", "nonsense"],
        ["--model", "nonsense"],
        ["--device", "nonsense"],
        ["--model", "pvt_tiny", "--image-size", "48"],
        ["--micro-batch", "1"],
    ],
)
def test_a_dry_run_finds_what_a_run_would(argv, capsys, tmp_path):
    assert main([*argv, "--dry-run", "--out", str(tmp_path / "run")]) == 2
    assert capsys.readouterr().out == "" and not (tmp_path / "run").exists()


def test_an_unknown_command_is_named(capsys):
    assert main(["reprot"]) == 2
    assert "unknown command 'reprot': did you mean 'report'?" in capsys.readouterr().err
    assert main(["x" * 10**5]) == 2 and len(capsys.readouterr().err) < 500


@pytest.mark.parametrize("option", ["--csv", "--json"])
def test_a_file_that_cannot_be_written_is_refused_before_anything_runs(option, tmp_path, capsys):
    assert main([option, str(tmp_path), "--out", str(tmp_path / "run"), *ACCURACY]) == 2
    assert f"{option} {tmp_path} is a directory" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_bad_folders(photographs, tmp_path, capsys):
    folder = photographs(tmp_path / "photos", 10, 10, ("cat", "dog"))
    common = ["--config", "quick", "--workers", "0", *ACCURACY]
    (folder / "val" / "dog").rename(folder / "val" / "wolf")
    assert main(["--data", str(folder), "--out", str(tmp_path / "a"), *common]) == 2
    assert "different classes" in capsys.readouterr().err
    (folder / "val" / "wolf").rename(folder / "val" / "dog")
    bad = sorted((folder / "train" / "cat").iterdir())[0]
    bad.write_bytes(b"not a picture")
    assert main(["--data", str(folder), "--out", str(tmp_path / "b"), *common]) == 2
    assert str(bad) in capsys.readouterr().err


def test_another_recipes_folder_is_refused(tmp_path, capsys):
    (tmp_path / "recipe.yaml").write_text("lr: 1\n")
    assert main(["--out", str(tmp_path)]) == 2
    assert "lr is 0.001, this run was begun with 1 (" in capsys.readouterr().err
    assert (tmp_path / "recipe.yaml").read_text() == "lr: 1\n"


def test_information_only(capsys, tmp_path):
    assert main(["--list"]) == 0
    listed = capsys.readouterr().out
    assert "transmix(base=cutmix" in listed
    assert main(["list"]) == 0 and capsys.readouterr().out == listed
    assert main(["--print-recipe", "--warmup_epochs", "3"]) == 0
    assert "warmup_epochs: 3.0" in capsys.readouterr().out
    assert main(["--dry-run", "--out", str(tmp_path / "x"), *TINY]) == 0
    text = capsys.readouterr().out
    assert "would run   cutmix, transmix" in text
    assert "seeds       1 seed and 1 comparison: no difference between strategies can" in text
    assert not (tmp_path / "x").exists()


def test_results_are_not_overwritten(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    command = ["--strategies", "none", *ACCURACY]
    assert main([*command, "--out", "run"]) == 0 and main(command) == 0 and main(command) == 0
    assert len(list((tmp_path / "runs").iterdir())) == 2
    capsys.readouterr()
    assert main([*command, "--out", "run"]) == 2
    assert "add --resume" in capsys.readouterr().err
    [before] = cells(tmp_path / "run" / "runs.csv")
    assert main(["--strategies", "mixup", "--resume", "--out", "run", *ACCURACY]) == 0
    after = cells(tmp_path / "run" / "runs.csv")
    assert [row["strategy"] for row in after] == ["mixup", "none"]
    assert after[1]["top1"] == before["top1"]


def test_what_was_timed_before_stays(tmp_path):
    """Accuracy of another strategy alone keeps the speeds that the directory holds."""
    directory = RunDirectory(tmp_path / "run")
    out = ["--out", str(directory.path)]
    assert main(["--strategies", "none", *out, *TINY]) == 0
    before = directory.speed.read_bytes()
    assert main(["--strategies", "mixup", "--resume", *out, *ACCURACY]) == 0
    assert directory.speed.read_bytes() == before
    rows = {row.strategy: row for row in read_table(directory.comparison, ComparisonRow)}
    assert rows["none"].im_per_sec > 0 and rows["none"].top1 is not None
    assert rows["mixup"].im_per_sec is None and rows["mixup"].top1 is not None


def test_two_specs_of_one_readable_name_have_folders_of_their_own(tmp_path):
    """Where only letters and digits are kept, both names are `named_label__a_b__`."""
    plugin = tmp_path / "named.py"
    plugin.write_text(NAMED)
    directory = RunDirectory(tmp_path / "run")
    long = "x" * 400
    specs = ["named(label='a/b')", "named(label='a:b')", f"named(label={long})"]
    argv = ["--plugin", str(plugin), "--strategies", ",".join(specs)]
    assert main([*argv, "--out", str(directory.path), *ACCURACY]) == 0
    folders = {directory.seed(spec, 0).path for spec in specs}
    assert len(folders) == 3 and all((folder / "last.pt").is_file() for folder in folders)
    assert all(len(folder.parent.name) <= 70 for folder in folders)
    assert [row["strategy"] for row in cells(directory.runs)] == specs


NAMED = """
from dataclasses import dataclass
from mixbench import register_strategy
from mixbench.strategies.cutmix import CutMix

@register_strategy("named")
@dataclass(frozen=True)
class Named(CutMix):
    label: str = ""
"""


def test_every_option_has_a_sentence_of_help():
    parser = bench_parser()
    add_sweep_options(parser)
    assert [action.dest for action in parser._actions if not action.help] == []


def test_columns_of_the_three_tables_do_not_contradict():
    """A name that stands in two tables means the same figure: what is timed has its own names."""
    runs, speed = set(column_names(RunRow)), set(column_names(SpeedRow))
    shared = {"strategy", "status", "attention", "network", "extra_params_m", "device", "compiled"}
    assert runs & speed == shared | {"versions", "date", "schema_version"}
    assert speed - {"status", "device"} <= set(column_names(ComparisonRow)) | {"mix_ms"} | {
        f"{part}_ms" for part in ("forward", "backward", "optimizer")
    }


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


def test_what_is_refused_leaves_no_directory(tmp_path, capsys, photographs):
    data = photographs(tmp_path / "data")
    command = ["--data", str(data), "--strategies", "none", *ACCURACY, "--config", "quick"]
    assert main([*command, "--out", str(tmp_path / "run"), "--batch-size", "100"]) == 2
    assert "batch_size 100 is larger than the 20" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()
    for place in ("train/out", "val"):
        assert main([*command, "--out", str(data / place)]) == 2
        assert "whose folders are classes: choose another --out" in capsys.readouterr().err
    assert sorted(path.name for path in (data / "train").iterdir()) == ["a", "b"]
    (tmp_path / "loop").symlink_to("loop")
    for place in ("loop", "loop/x"):
        assert main([*command, "--out", str(tmp_path / place)]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: cannot write to") and "loop" in error


@pytest.mark.parametrize(
    ("command", "defaults"),
    [
        ("bench", {"strategies": "cutmix,transmix", "mode": "both", "rounds": "5"}),
        ("train", {"strategies": "transmix", "mode": "accuracy", "rounds": "5"}),
        ("speed", {"strategies": ",".join(BUILTIN), "mode": "speed", "rounds": "40"}),
        ("sweep", {"strategies": "cutmix,transmix", "mode": "accuracy", "rounds": "5"}),
    ],
)
def test_help_is_of_the_command_and_says_its_own_defaults(command, defaults, capsys):
    with pytest.raises(SystemExit) as ended:
        main([command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert text.startswith(f"usage: mixbench {command} [options]")
    for name, value in defaults.items():
        part = re.split(r"\n  --", text.partition(f"\n  --{name} ")[2])[0]
        assert f"(default:{value})" in re.sub(r"\s", "", part), part
