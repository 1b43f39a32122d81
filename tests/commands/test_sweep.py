"""A sweep: every strategy and seed in a job of its own, stopped and resumed, on this machine and on a Slurm of three shell scripts."""

import csv
import json
import sys
from types import SimpleNamespace

from tests.support import kills
import pytest
from test_resume import KILLERS, PLUGIN

from mixbench.cli import main
from mixbench.commands import sweep

COMMAND = ["sweep", "--strategies", "cutmix,transmix", "--seeds", "0", *kills.TINY]


def rows(out):
    with (out / "comparison.csv").open(newline="") as file:
        return {row["strategy"]: row for row in csv.DictReader(file)}


def test_jobs_here_go_on_after_one_was_killed(tmp_path, monkeypatch, capfd):
    monkeypatch.setenv(
        "OMP_NUM_THREADS", "1"
    )  # as kills.run has it: figures depend on the threads in their last bits
    killer = (
        KILLERS["in a step"]
        .replace("calls.append(1)", "calls.extend([1] if args[0].spec == 'transmix' else [])")
        .replace("50", "30")
    )
    plugin, out = tmp_path / "killer.py", tmp_path / "sweep"
    plugin.write_text(
        PLUGIN + "if 'SUBMITIT_EXECUTOR' in os.environ:" + killer.replace("\n", "\n    ")
    )
    command = [
        *COMMAND,
        "--cluster",
        "local",
        "--parallel",
        "2",
        "--gpus",
        "0",
        "--out",
        str(out),
        "--plugin",
        str(plugin),
    ]
    assert main(command) == 1
    found = rows(out)
    assert found["cutmix"]["status"] == "ok" and found["transmix"]["status"].startswith(
        "failed; its log ends: seed 0  epoch 2/4  transmix"
    )
    log = (
        out
        / "submitit"
        / f"{json.loads((out / 'jobs.json').read_text())['transmix-seed0']}_0_log.out"
    )
    assert log.is_file() and found["transmix"]["status"].endswith(f"see {log}")
    plugin.write_text(PLUGIN)
    assert main(command) == 0
    assert "2 jobs on local: 1 finished, 0 queued or running, 1 to submit" in capfd.readouterr().out
    [last] = [
        file
        for file in (out / "submitit").glob("*.out")
        if "resuming after epoch 2" in file.read_text()
    ]
    assert last != log
    assert kills.run(tmp_path / "whole", "cutmix,transmix", "0")
    assert kills.figures(out) == kills.figures(tmp_path / "whole")


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    """sbatch keeps what it is given and counts, squeue says what a file says, and the sweep's command."""
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "srun": "exit 1",
        "sbatch": f"cd {tmp_path}; echo x >> count; n=$((11 + $(wc -l < count))); cp $1 sent$n; echo Submitted batch job $n",
        "squeue": f"cat {tmp_path}/queue",  # fails where there is no such file
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setitem(sweep.POLL, "slurm", 0)
    return SimpleNamespace(
        queue=tmp_path / "queue",
        out=tmp_path / "sweep",
        sent=lambda: sorted(path.name for path in tmp_path.glob("sent*")),
        run=lambda *extra: main([*COMMAND, "--out", str(tmp_path / "sweep"), *extra]),
        text=lambda name: (tmp_path / name).read_text(),
    )


def test_what_slurm_is_asked_for(cluster):
    assert (
        cluster.run(
            "--no-wait",
            "--partition",
            "gpu",
            "--account",
            "us",
            "--gpus",
            "2",
            "--cpus",
            "4",
            "--hours",
            "1.5",
            "--parallel",
            "1",
            "--sbatch",
            "qos=high",
            "--sbatch",
            "mem=64G",
        )
        == 0
    )
    asked = cluster.text("sent12")
    for line in (
        "partition=gpu",
        "account=us",
        "gpus-per-node=2",
        "ntasks-per-node=2",
        "cpus-per-task=4",
        "time=90",
        "array=0-1%1",
        "qos=high",
        "mem=64G",
    ):
        assert f"#SBATCH --{line}\n" in asked
    assert json.loads((cluster.out / "jobs.json").read_text()) == {
        "cutmix-seed0": "12_0",
        "transmix-seed0": "12_1",
    }
    [argv] = sweep.submitit.SlurmJob(cluster.out / "submitit", "12_1").submission().args
    asked = sweep.argparse.Namespace(
        **{
            name: argv[len(argv) - argv[::-1].index(f"--{name}")]
            for name in ("strategies", "seeds", "out", "mode", "device")
        }
    )
    assert (asked.strategies, asked.seeds, asked.mode, asked.device) == (
        "transmix",
        "0",
        "accuracy",
        "cuda",
    ) and "--resume" in argv
    assert asked.out == str(cluster.out / "jobs" / "transmix-seed0") and not {
        "--partition",
        "--no-wait",
        "--sbatch",
    } & set(argv)


def test_only_what_is_missing_is_sent_again(cluster, capsys):
    cluster.run("--no-wait", "--csv", str(cluster.out / "copy.csv"))
    cluster.queue.write_text("12_0 RUNNING\n12_1 PENDING\n")
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12"]
    assert "0 finished, 2 queued or running, 0 to submit" in capsys.readouterr().out
    cluster.queue.unlink()  # the controller does not answer
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12"]
    cluster.queue.write_text("12_0 RUNNING\n12_1 CANCELLED\n7 RUNNING\n")
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12", "sent13"]
    assert json.loads((cluster.out / "jobs.json").read_text()) == {
        "cutmix-seed0": "12_0",
        "transmix-seed0": "13",
    }
    result = cluster.out / "jobs" / "cutmix-seed0" / "cutmix" / "seed0" / "result.json"
    result.parent.mkdir(parents=True)
    result.write_text(json.dumps({"strategy": "cutmix"}))
    cluster.queue.write_text("13 COMPLETING\n")
    capsys.readouterr()
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12", "sent13"]
    assert "1 finished, 1 queued or running, 0 to submit" in capsys.readouterr().out
    assert (
        rows(cluster.out)["transmix"]["status"] == "queued or running"
        and not (cluster.out / "jobs" / "cutmix-seed0" / "copy.csv").exists()
    )


def test_jobs_that_end_without_figures_are_failures(cluster):
    cluster.queue.write_text("")
    assert cluster.run("--together") == 1
    assert {
        name: row["status"].split(",")[0] for name, row in rows(cluster.out).items()
    } == dict.fromkeys(("cutmix", "transmix"), "failed: it ended without a log")
    assert json.loads((cluster.out / "jobs.json").read_text()) == {"together-seed0": "12"}


def test_an_interrupt_leaves_the_jobs_and_says_how_to_go_on(cluster, monkeypatch, capsys):
    def interrupted(seconds):
        raise KeyboardInterrupt

    cluster.queue.write_text("12_0 RUNNING\n12_1 PENDING\n")
    monkeypatch.setattr(sweep.time, "sleep", interrupted)
    assert cluster.run() == 130
    assert (
        "The same command waits for them and collects; scancel 12 ends them"
        in capsys.readouterr().out
    )
    assert {row["status"] for row in rows(cluster.out).values()} == {"queued or running"}


def test_mistakes(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("PATH", str(tmp_path))
    mistakes = {
        ("--cluster", "slurm"): "srun is not found",
        ("--no-wait",): "--no-wait needs Slurm",
        ("--partition", "gpu"): "--partition, --account",
        ("--mode", "speed"): "mixbench speed",
        ("--gpus", "-1"): "0 or more",
        ("--hours", "0"): "0.1 or more",
        ("--sbatch", "qos"): "KEY=VALUE",
        ("--partion", "x"): "did you mean '--partition'",
        ("--strategies", "cutmx"): "did you mean 'cutmix'",
        ("--parallel", "0"): "above 0",
    }
    for argv, message in mistakes.items():
        assert main([*COMMAND, "--out", str(tmp_path / "out"), *argv]) == 2
        error = capsys.readouterr().err
        assert error.startswith("error: ") and error.count("\n") == 1 and message in error, error
    assert (
        main([*COMMAND, "--dry-run", "--out", str(tmp_path / "out")]) == 0
        and capsys.readouterr().out.count("would run") == 2
    )
    assert not (tmp_path / "out").exists()
    monkeypatch.delitem(sys.modules, "mixbench.commands.sweep")
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(COMMAND) == 2 and "pip install 'mixbench[slurm]'" in capsys.readouterr().err
