"""A sweep: every strategy and seed in a job, stopped and resumed.

On this machine, and on a Slurm of three shell scripts.
"""

import argparse
import json
import sys
from dataclasses import dataclass
from pathlib import Path

import pytest

from mixbench.cli import main
from mixbench.commands import jobs
from mixbench.runs.directory import RunDirectory, folder_name
from mixbench.runs.rows import RunRow, write_table
from tests.support import kills
from tests.support.command import cells
from tests.support.faults import KILLERS, PLUGIN
from tests.support.rows import run_row, write_run

COMMAND = ["sweep", "--strategies", "cutmix,transmix", "--seeds", "0", *kills.TINY]
CUTMIX, TRANSMIX = (f"{folder_name(name)}-seed0" for name in ("cutmix", "transmix"))


def rows(out):
    return {row["strategy"]: row for row in cells(RunDirectory(out).runs)}


def numbers(out):
    """What each job was sent as."""
    return json.loads(RunDirectory(out).jobs.read_text())


def test_jobs_here_go_on_after_one_was_killed(tmp_path, monkeypatch, capfd):
    # as kills.run has it: figures depend on the threads in their last bits
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    counted = "calls.extend([1] if learner.spec == 'transmix' else [])"
    killer = KILLERS["in a step"].replace("calls.append(1)", counted).replace("50", "30")
    indented = killer.replace("\n", "\n    ")
    plugin, out = tmp_path / "killer.py", tmp_path / "sweep"
    plugin.write_text(f"{PLUGIN}if 'SUBMITIT_EXECUTOR' in os.environ:{indented}")
    command = [*COMMAND, "--cluster", "local", "--parallel", "2", "--gpus", "0"]
    command += ["--out", str(out), "--plugin", str(plugin)]
    assert main(command) == 1
    states = {name: row["status"] for name, row in rows(out).items()}
    assert states["cutmix"] == "ok"
    assert states["transmix"].startswith("failed; its log ends: seed 0  epoch 2/4  transmix")
    logs = RunDirectory(out).job_logs
    log = logs / f"{numbers(out)[TRANSMIX]}_0_log.out"
    assert log.is_file() and states["transmix"].endswith(f"see {log}")
    plugin.write_text(PLUGIN)
    assert main(command) == 0
    assert "2 jobs on local: 1 finished, 0 queued or running, 1 to submit" in capfd.readouterr().out
    [last] = [file for file in logs.glob("*.out") if "resuming after epoch 2" in file.read_text()]
    assert last != log
    assert kills.run(tmp_path / "whole", "cutmix,transmix", "0")
    of_fewer_scenes = {"label_error": None}
    expected = [row | of_fewer_scenes for row in kills.figures(tmp_path / "whole")]
    assert [row | of_fewer_scenes for row in kills.figures(out)] == expected


def test_a_logger_that_is_none_is_refused_before_a_job_is_sent(tmp_path, capsys):
    command = [*COMMAND, "--log", "tensorbord", "--out", str(tmp_path / "sweep")]
    assert main(command) == 2
    assert "--log must be one of tensorboard, wandb" in capsys.readouterr().err
    assert not (tmp_path / "sweep").exists()


@dataclass
class Cluster:
    """sbatch keeps what it is given and counts; squeue says what a file says."""

    folder: Path

    @property
    def queue(self):
        """What squeue answers; it fails where there is no such file."""
        return self.folder / "queue"

    @property
    def out(self):
        return self.folder / "sweep"

    def sent(self):
        return sorted(path.name for path in self.folder.glob("sent*"))

    def run(self, *extra):
        return main([*COMMAND, "--out", str(self.out), *extra])


@pytest.fixture
def cluster(tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    scripts = {
        "srun": "exit 1",
        "sbatch": (
            f"cd {tmp_path}; echo x >> count; n=$((11 + $(wc -l < count))); cp $1 sent$n; "
            "echo Submitted batch job $n"
        ),
        "squeue": f"cat {tmp_path}/queue",
    }
    for name, text in scripts.items():
        (programs / name).write_text(f"#!/bin/sh\n{text}\n")
        (programs / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(programs), prepend=":")
    monkeypatch.setitem(jobs.POLL, "slurm", 0)
    return Cluster(tmp_path)


def test_what_slurm_is_asked_for(cluster):
    options = [
        *("--no-wait", "--partition", "gpu", "--account", "us", "--gpus", "2", "--cpus", "4"),
        *("--hours", "1.5", "--parallel", "1", "--sbatch", "qos=high", "--sbatch", "mem=64G"),
        *("--val-interval", "3"),
    ]
    assert cluster.run(*options) == 0
    script = (cluster.folder / "sent12").read_text()
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
        assert f"#SBATCH --{line}\n" in script
    assert numbers(cluster.out) == {CUTMIX: "12_0", TRANSMIX: "12_1"}
    logs = RunDirectory(cluster.out).job_logs
    [argv] = jobs.submitit.SlurmJob(logs, "12_1").submission().args
    names = ("strategies", "seeds", "out", "mode", "device")
    options = argparse.Namespace(
        **{name: argv[len(argv) - argv[::-1].index(f"--{name}")] for name in names}
    )
    assert (options.strategies, options.seeds) == ("transmix", "0")
    assert (options.mode, options.device) == ("accuracy", "cuda")
    assert "--resume" in argv and argv[argv.index("--val-interval") + 1] == "3"
    assert options.out == str(cluster.out / "jobs" / TRANSMIX)
    assert not {"--partition", "--no-wait", "--sbatch"} & set(argv)
    assert len([part for part in argv if part in ("--strategies", "--seeds", "--mode")]) == 3


def test_only_what_is_missing_is_sent_again(cluster, capsys):
    cluster.run("--no-wait", "--csv", str(cluster.out / "copy.csv"))
    cluster.queue.write_text("12_0 RUNNING\n12_1 PENDING\n")
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12"]
    assert "0 finished, 2 queued or running, 0 to submit" in capsys.readouterr().out
    cluster.queue.unlink()  # the controller does not answer
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12"]
    cluster.queue.write_text("12_0 RUNNING\n12_1 CANCELLED\n7 RUNNING\n")
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12", "sent13"]
    assert numbers(cluster.out) == {CUTMIX: "12_0", TRANSMIX: "13"}
    job = RunDirectory(cluster.out).job(CUTMIX)
    job.keep(run_row("cutmix", 0))
    cluster.queue.write_text("13 COMPLETING\n")
    capsys.readouterr()
    assert cluster.run("--no-wait") == 0 and cluster.sent() == ["sent12", "sent13"]
    assert "1 finished, 1 queued or running, 0 to submit" in capsys.readouterr().out
    assert rows(cluster.out)["transmix"]["status"] == "queued or running"
    assert not (job.path / "copy.csv").exists() and (cluster.out / "copy.csv").is_file()


def finish(cluster, spec, seed, top1):
    """A job as it ends well."""
    directory = RunDirectory(cluster.out).job(f"{folder_name(spec)}-seed{seed}")
    write_run(directory.path, [run_row(spec, seed, top1)])
    directory.keep(run_row(spec, seed, top1))
    directory.comparison.write_text("schema_version\n")


def test_seeds_and_strategies_of_an_earlier_sweep_stay_in_the_tables(cluster):
    def swept(*more):
        argv = ["sweep", *kills.TINY, "--no-wait", *more, "--out", str(cluster.out)]
        status = main(argv)
        found = cells(RunDirectory(cluster.out).runs)
        return status, sorted((row["strategy"], row["seed"], row["status"]) for row in found)

    cluster.queue.write_text("")
    swept("--strategies", "cutmix,transmix", "--seeds", "0")
    finish(cluster, "cutmix", 0, 70.0)
    finish(cluster, "transmix", 0, 71.0)
    ok = [("cutmix", "0", "ok"), ("transmix", "0", "ok")]
    assert swept("--strategies", "cutmix,transmix", "--seeds", "0") == (0, ok)
    _, found = swept("--strategies", "mixup", "--seeds", "1")
    assert found[:1] == ok[:1] and found[2:] == ok[1:] and found[1][:2] == ("mixup", "1")
    finish(cluster, "mixup", 1, 69.0)
    ok.insert(1, ("mixup", "1", "ok"))
    assert swept("--strategies", "mixup", "--seeds", "1") == (0, ok)
    failed = run_row("transmix", 0, None, status="failed")  # of the earlier sweep, not of this
    write_table(RunDirectory(cluster.out).job(TRANSMIX).runs, RunRow, [failed])
    ok[2] = ("transmix", "0", "failed")
    assert swept("--strategies", "mixup", "--seeds", "1") == (0, ok)


def test_a_run_and_a_sweep_do_not_write_each_others_tables(cluster, capsys):
    cluster.run("--no-wait")
    for more in ([], ["--resume"]):
        assert main(["bench", *kills.TINY, "--out", str(cluster.out), *more]) == 2
        assert "holds the jobs of a sweep, whose tables would be lost" in capsys.readouterr().err
    run = RunDirectory(cluster.folder / "run")
    write_run(run.path, [run_row()])
    run.keep(run_row())
    assert main([*COMMAND, "--no-wait", "--out", str(run.path)]) == 2
    assert "holds results of a run that is no sweep" in capsys.readouterr().err


def test_jobs_that_end_without_figures_are_failures(cluster):
    cluster.queue.write_text("")
    assert cluster.run("--together") == 1
    states = {name: row["status"].split(",")[0] for name, row in rows(cluster.out).items()}
    assert states == dict.fromkeys(("cutmix", "transmix"), "failed: it ended without a log")
    assert numbers(cluster.out) == {"together-seed0": "12"}


def test_a_failed_strategy_says_where_to_look(cluster):
    """Its row keeps what the job wrote: then comes where the log should be, of the last try."""
    job = RunDirectory(cluster.out).job(CUTMIX)
    write_run(job.path, [run_row("cutmix", 0, None, status="failed: ValueError: a; b")])
    job.comparison.write_text("strategy\n")
    cluster.queue.write_text("12_0 RUNNING\n12_1 RUNNING\n")
    assert cluster.run("--no-wait") == 1
    assert rows(cluster.out)["cutmix"]["status"] == "failed: ValueError: a; b; queued or running"
    cluster.queue.write_text("")
    assert cluster.run() == 1
    log = RunDirectory(cluster.out).job_logs / f"{numbers(cluster.out)[CUTMIX]}_0_log.out"
    assert rows(cluster.out)["cutmix"]["status"] == f"failed: ValueError: a; b; {log} is not there"


def test_an_interrupt_leaves_the_jobs_and_says_how_to_go_on(cluster, monkeypatch, capsys):
    def interrupted(seconds):
        raise KeyboardInterrupt

    cluster.queue.write_text("12_0 RUNNING\n12_1 PENDING\n")
    monkeypatch.setattr(jobs.time, "sleep", interrupted)
    assert cluster.run() == 130
    sentence = "The same command waits for them and collects; scancel 12 ends them"
    assert sentence in capsys.readouterr().out
    assert {row["status"] for row in rows(cluster.out).values()} == {"queued or running"}


def test_strategies_with_alike_names_have_jobs_of_their_own(cluster):
    """Sixty characters of a name are readable: these two differ after them."""
    base = "alternate(first=transmix(base=saliencymix(alpha=0.5)),second=cutmix(alpha={}))"
    specs = ",".join(base.format(alpha) for alpha in (0.5, 0.25))
    assert cluster.run("--no-wait", "--strategies", specs) == 0
    assert len(numbers(cluster.out)) == 2


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
    assert main([*COMMAND, "--dry-run", "--out", str(tmp_path / "out")]) == 0
    text = capsys.readouterr().out
    assert text.count("would run") == 2 and text.startswith("1 seed and 1 comparison: no diff")
    assert not (tmp_path / "out").exists()
    monkeypatch.setitem(sys.modules, "submitit", None)
    assert main(COMMAND) == 2 and "pip install 'mixbench[slurm]'" in capsys.readouterr().err
