"""Every strategy and seed as a job of its own, on Slurm or on this machine, through submitit; what is finished is not done again."""

from __future__ import annotations

import argparse
import fcntl
import getpass
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit

from mixbench.comparison.plan import Plan
from mixbench.files import replace_file
from mixbench.report.tables import print_table, speeds, write_markdown
from mixbench.runs.directory import check_out, claimed
from mixbench.runs.merge import merge_runs
from mixbench.runs.rows import COLUMNS, Rows, write_csv
from mixbench.spec import strategy_spec

POLL = {"slurm": 15.0, "local": 0.2}  # seconds between two looks at the jobs


TIME_OUTS = (
    100  # how often a job may reach its time limit; each time it goes on from its last epoch
)


SUBMISSIONS = 1000  # jobs an array: Slurm's default MaxArraySize is 1001


ENDED = {
    "COMPLETED",
    "FAILED",
    "CANCELLED",
    "TIMEOUT",
    "NODE_FAIL",
    "OUT_OF_MEMORY",
    "BOOT_FAIL",
    "DEADLINE",
    "PREEMPTED",
    "REVOKED",
}


def add_options(group: Any) -> None:
    """The options of a sweep that its jobs do not have."""
    add = group.add_argument
    add(
        "--cluster",
        choices=("auto", "slurm", "local"),
        default="auto",
        help="where jobs run (default: slurm where srun is found)",
    )
    add(
        "--together",
        action="store_true",
        help="one job a seed, all strategies side by side on one loader",
    )
    add(
        "--parallel",
        type=_positive,
        metavar="N",
        help="jobs that run at once (default: what Slurm allows; 1 with --cluster local)",
    )
    add(
        "--no-wait",
        action="store_true",
        help="submit and return; the same command later waits and collects",
    )
    add(
        "--gpus",
        type=int,
        default=1,
        metavar="N",
        help="GPUs a job, one process each (default: %(default)s; 0: CPU)",
    )
    add(
        "--cpus",
        type=_positive,
        default=8,
        metavar="N",
        help="CPU cores a process, on Slurm (default: %(default)s)",
    )
    add(
        "--hours",
        type=float,
        default=24.0,
        metavar="H",
        help="time limit of a job; it is queued again and goes on (default: %(default)g)",
    )
    add("--partition", help="Slurm's partition")
    add("--account", help="Slurm's account")
    add(
        "--sbatch",
        action="append",
        default=[],
        metavar="KEY=VALUE",
        help="another option of sbatch, such as qos=high or mem=64G",
    )


def _positive(text: str) -> int:
    if not text.isdecimal() or int(text) < 1:
        raise argparse.ArgumentTypeError(f"must be a whole number above 0, not {text!r}")
    return int(text)


class Command(submitit.helpers.Checkpointable):
    """The ordinary command inside a job; a job that was stopped is sent again as it was, and --resume goes on."""

    def __call__(self, argv: list[str]) -> None:
        from mixbench.cli import main

        # the signal of a time-out or preemption reaches loader workers too: they must not queue the job again themselves
        stop = submitit.JobEnvironment._usr_sig()
        os.register_at_fork(after_in_child=lambda: signal.signal(stop, signal.SIG_IGN))
        submitit.helpers.TorchDistributedEnvironment().export(
            set_cuda_visible_devices=False, overwrite=True
        )
        status = main(argv)
        if status:
            raise SystemExit(status)  # for Slurm the job has failed


@dataclass(frozen=True)
class Job:
    """One run of the command: strategies, a seed, and a directory of its own."""

    specs: tuple[str, ...]
    seed: int
    folder: Path

    @property
    def finished(self) -> bool:
        """Whether all its figures are written."""
        files = self.folder.glob(f"*/seed{self.seed}/result.json")
        return {json.loads(file.read_text(encoding="utf-8"))["strategy"] for file in files} >= set(
            self.specs
        )

    @property
    def running(self) -> bool:
        """Whether a process holds its directory."""
        lock = self.folder / ".lock"
        if not lock.is_file():
            return False
        with lock.open() as file:
            try:
                fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
            except BlockingIOError:
                return True
        return False


class Sweep:
    """The jobs of a plan, and what submitit knows of those that were sent."""

    def __init__(self, plan: Plan, options: argparse.Namespace, argv: list[str]):
        self.plan, self.options, self.argv, self.out = plan, options, argv, plan.out
        self.cluster = options.cluster
        if self.cluster == "auto":
            self.cluster = "slurm" if submitit.SlurmExecutor.affinity() > 0 else "local"
        self.parallel = options.parallel or (SUBMISSIONS if self.cluster == "slurm" else 1)
        self._check()
        self.jobs = list(self._jobs())
        self.record = self.out / "jobs.json"  # folder's name -> submitit's number of its last job
        self.sent: dict[str, str] = {}
        self.here: dict[str, submitit.Job[None]] = {}  # local jobs that this process started
        self.slots: dict[str, int] = {}  # which share of this machine's GPUs each of them has
        # a job starts Python anew: in a checkout that is not installed it finds this package all the same
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [str(Path(__file__).parents[2]), os.environ.get("PYTHONPATH")])
        )

    def _check(self) -> None:
        options = self.options
        if self.plan.mode == "speed":
            raise ValueError(
                "speeds are compared within one process: use `mixbench speed`, or --mode both for a speed in every job"
            )
        if options.gpus < 0:
            raise ValueError(f"--gpus must be 0 or more, not {options.gpus}")
        if not options.hours >= 0.1:  # a job is told to stop 90 seconds before its time limit
            raise ValueError(
                f"--hours must be 0.1 or more, and longer than an epoch takes, not {options.hours}"
            )
        if any("=" not in pair for pair in options.sbatch):
            raise ValueError(
                f"--sbatch takes KEY=VALUE such as qos=high, not {' '.join(options.sbatch)}"
            )
        if self.cluster == "local":
            if options.no_wait:
                raise ValueError(
                    "--no-wait needs Slurm: on this machine the sweep itself starts each job when another ends"
                )
            if options.partition or options.account or options.sbatch:
                raise ValueError(
                    "--partition, --account and --sbatch need Slurm, and srun is not found or --cluster local is given"
                )
            if self.parallel * options.gpus > 1:
                import torch

                if 0 < torch.cuda.device_count() < self.parallel * options.gpus:
                    raise ValueError(
                        f"--parallel {self.parallel} --gpus {options.gpus}: this machine has {torch.cuda.device_count()} GPUs"
                    )
        elif submitit.SlurmExecutor.affinity() < 0:
            raise ValueError(
                "--cluster slurm: srun is not found; run this on a machine of the cluster, or take --cluster local"
            )

    def _jobs(self) -> Iterator[Job]:
        specs = tuple(strategy_spec(strategy) for strategy in self.plan.strategies)
        for seed in self.plan.seeds:
            for part in [specs] if self.options.together else [(spec,) for spec in specs]:
                name = (
                    "together"
                    if self.options.together
                    else "".join(c if c.isalnum() or c in "._-" else "_" for c in part[0])
                )
                yield Job(part, seed, self.out / "jobs" / f"{name}-seed{seed}")

    def run(self) -> int:
        """Send what is missing, wait and collect; the exit status, 1 where a job failed."""
        if self.options.dry_run:
            for job in self.jobs:
                print(
                    f"{'finished' if job.finished else 'would run':<10}  {shlex.join(['mixbench', *self._argv(job)])}"
                )
            return 0
        with claimed(self.out, self.plan.stamp, resume=True):
            if self.record.is_file():
                self.sent = json.loads(self.record.read_text(encoding="utf-8"))
            for job in self.jobs:
                check_out(job.folder, self.plan.stamp, resume=True)
            left = [job for job in self.jobs if not job.finished]
            going = self._going(left)
            missing = [job for job in left if job not in going]
            self._say(
                f"{len(self.jobs)} jobs on {self.cluster}: {len(self.jobs) - len(left)} finished, {len(going)} queued or running, "
                f"{len(missing)} to submit; logs in {self.out / 'submitit'}"
            )
            try:
                if self.cluster == "slurm":
                    for begin in range(0, len(missing), SUBMISSIONS):
                        self._submit_array(missing[begin : begin + SUBMISSIONS])
                    going, missing = going + missing, []
                if not self.options.no_wait:
                    going = self._wait(going, missing)
            except KeyboardInterrupt:
                going = self._interrupted(left)
                self._collect(going)
                return 130
            return self._collect(going)

    def _wait(self, going: list[Job], missing: list[Job]) -> list[Job]:
        """Wait for the jobs, starting the missing ones here as others end; those that still run, which is none of them."""
        while going or missing:
            while missing and len(going) < self.parallel:
                self._submit_here(missing[0], going)
                going.append(missing.pop(0))
            time.sleep(POLL[self.cluster])
            still = self._going(going)
            for job in going:
                if job not in still:
                    self._say(
                        f"{job.folder.name}: {'finished' if job.finished else self._reason(job)}"
                    )
            going = still
        return going

    def _going(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that are queued or running."""
        if self.cluster == "local":
            return [
                job
                for job in jobs
                if (
                    not self.here[job.folder.name].done()
                    if job.folder.name in self.here
                    else job.running
                )
            ]
        if not any(job.folder.name in self.sent for job in jobs):
            return []
        # squeue and not submitit's state: that asks sacct, which needs an accounting database, and answers from up to ten minutes ago
        asked = [
            "squeue",
            "--noheader",
            "--array",
            "--states=all",
            f"--user={getpass.getuser()}",
            "--format=%i %T",
        ]
        answer = subprocess.run(asked, capture_output=True, text=True)
        if answer.returncode:  # a controller that is away does not mean that the jobs are
            self._say(f"squeue: {' '.join(answer.stderr.split())}; taking the jobs for running")
            return [job for job in jobs if job.folder.name in self.sent]
        states = dict(line.split() for line in answer.stdout.splitlines())
        known = {
            job.folder.name: states.get(self.sent.get(job.folder.name, ""), "COMPLETED")
            for job in jobs
        }
        return [job for job in jobs if known[job.folder.name] not in ENDED]

    def _argv(self, job: Job) -> list[str]:
        """The command of a job; of an option that is given twice the last counts."""
        device = (
            ["--device", "cuda"]
            if self.cluster == "slurm" and self.options.gpus and self.plan.device == "auto"
            else []
        )
        own = [
            "--strategies",
            ",".join(job.specs),
            "--seeds",
            str(job.seed),
            "--resume",
            "--out",
            str(job.folder),
        ]
        return [*self.argv, *device, *own]

    def _submit_array(self, jobs: list[Job]) -> None:
        if not jobs:
            return
        options = self.options
        executor = submitit.SlurmExecutor(self.out / "submitit", max_num_timeout=TIME_OUTS)
        asked = {
            "partition": options.partition,
            "account": options.account,
            "gpus_per_node": options.gpus or None,
            "additional_parameters": {"requeue": True}
            | dict(pair.split("=", 1) for pair in options.sbatch),
        }
        executor.update_parameters(
            job_name="mixbench",
            time=round(60 * options.hours),
            ntasks_per_node=max(options.gpus, 1),
            cpus_per_task=options.cpus,
            array_parallelism=self.parallel,
            stderr_to_stdout=True,
            **{key: value for key, value in asked.items() if value is not None},
        )
        try:
            sent = executor.map_array(Command(), [self._argv(job) for job in jobs])
        except (
            submitit.core.utils.FailedJobError,
            submitit.core.utils.FailedSubmissionError,
        ) as error:
            said = " ".join(str(error).split())
            raise ValueError(
                f"sbatch refused the jobs ({said}): see --gpus, --cpus, --partition, --sbatch"
            ) from None
        self._remember(
            {job.folder.name: handle.job_id for job, handle in zip(jobs, sent, strict=True)}
        )

    def _submit_here(self, job: Job, going: list[Job]) -> None:
        gpus = self.options.gpus
        used = {self.slots.get(other.folder.name) for other in going}
        slot = self.slots[job.folder.name] = next(
            number for number in range(self.parallel) if number not in used
        )
        executor = submitit.LocalExecutor(self.out / "submitit", max_num_timeout=TIME_OUTS)
        executor.update_parameters(
            timeout_min=60 * self.options.hours,
            tasks_per_node=max(gpus, 1),
            gpus_per_node=gpus,
            visible_gpus=range(slot * gpus, (slot + 1) * gpus),
            stderr_to_stdout=True,
        )
        self.here[job.folder.name] = executor.submit(Command(), self._argv(job))
        self._remember({job.folder.name: self.here[job.folder.name].job_id})

    def _remember(self, sent: dict[str, str]) -> None:
        self.sent |= sent
        replace_file(self.record, json.dumps(self.sent, indent=1))

    def _reason(self, job: Job) -> str:
        """What a job's row says where it has no figures: the last line of its log, and where that lies."""
        if job.folder.name not in self.sent:
            return "not started"
        log = submitit.core.utils.JobPaths(self.out / "submitit", self.sent[job.folder.name]).stdout
        if not log.is_file():
            return f"failed: it ended without a log, as jobs do that are cancelled before they start; {log} is not there"
        lines = [
            line.strip() for line in log.read_text(encoding="utf-8", errors="replace").split("\n")
        ]
        last = next(
            (line for line in reversed(lines) if line and not line.startswith("srun: ")), ""
        )  # srun only counts the dead
        return f"failed; its log ends: {last}; see {log}"

    def _interrupted(self, left: list[Job]) -> list[Job]:
        """Stop waiting; the jobs that still run: all on Slurm, none on this machine."""
        if self.cluster == "slurm":
            going = self._going(left)
            numbers = " ".join(
                sorted({self.sent[job.folder.name].partition("_")[0] for job in going})
            )
            self._say(
                f"interrupted: the jobs go on. The same command waits for them and collects; scancel {numbers} ends them"
            )
            return going
        for handle in self.here.values():
            handle.cancel()
        while not all(handle.done() for handle in self.here.values()):
            time.sleep(POLL["local"])
        self._say(
            "interrupted: the jobs are stopped; the same command goes on from their last epoch"
        )
        return []

    def _collect(self, going: list[Job]) -> int:
        """Write and print the rows that are there; the exit status."""
        from rich.console import Console

        rows: Rows = merge_runs(
            [job.folder for job in self.jobs if (job.folder / "comparison.csv").is_file()],
            mixed_machines=True,
        )
        have = {(row["strategy"], row["seed"]): row for row in rows}
        for job in self.jobs:
            if job.finished:
                continue
            for spec in job.specs:
                status = "queued or running" if job in going else self._reason(job)
                row = have.get((spec, job.seed))
                if row is None:
                    rows.append(
                        dict.fromkeys(COLUMNS)
                        | {"strategy": spec, "seed": job.seed, "status": status}
                    )
                elif row["status"] != "ok":
                    row["status"] += f"; {status.rpartition('; ')[2]}"
        for path in filter(None, (self.out / "comparison.csv", self.plan.csv)):
            write_csv(rows, path)
        if have:
            timed = "; ".join(dict.fromkeys(row["timed"] or row["device"] for row in speeds(rows)))
            write_markdown(rows, self.out / "comparison.md", self.plan.command, timed)
            print_table(rows, timed, Console(width=None if sys.stdout.isatty() else 150))
        self._say(f"wrote {self.out / 'comparison.csv'}")
        if going:
            self._say(
                f"{len(going)} of {len(self.jobs)} jobs are queued or running: the same command waits for them and collects"
            )
        return 0 if all(row["status"] in ("ok", "queued or running") for row in rows) else 1

    def _say(self, line: str) -> None:
        print(line, flush=True)
