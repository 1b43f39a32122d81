"""The jobs of a sweep, on Slurm or on this machine, through submitit.

What is finished is not done again, and what still runs is waited for.
"""

from __future__ import annotations

import argparse
import dataclasses
import getpass
import json
import os
import shlex
import signal
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit

from mixbench.commands.bench import bench
from mixbench.commands.printing import print_line
from mixbench.commands.status import status_of
from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import make_console
from mixbench.comparison.seeds import seed_remark
from mixbench.files import read_json, replace_file
from mixbench.report.files import write_comparison
from mixbench.report.tables import print_tables
from mixbench.runs.directory import RunDirectory, folder_name
from mixbench.runs.identity import Identity
from mixbench.runs.merge import Tables, merge, read_tables
from mixbench.runs.rows import RunRow
from mixbench.spec import strategy_spec

POLL = {"slurm": 15.0, "local": 0.2}  # seconds between two looks at the jobs
TIME_OUTS = 100  # times a job may reach its time limit; each time it goes on from its last epoch
SUBMISSIONS = 1000  # jobs an array: Slurm's default MaxArraySize is 1001
WAITING = "queued or running"
ENDED = {
    *("COMPLETED", "FAILED", "CANCELLED", "TIMEOUT", "NODE_FAIL", "OUT_OF_MEMORY"),
    *("BOOT_FAIL", "DEADLINE", "PREEMPTED", "REVOKED"),
}


class Command(submitit.helpers.Checkpointable):
    """The ordinary command inside a job; a stopped job is sent again as it was, and resumes."""

    def __call__(self, argv: list[str]) -> None:
        """Run the command; SystemExit where it failed, so that Slurm says so."""
        # the signal of a time-out or preemption reaches loader workers too: they must not queue
        # the job again themselves
        stop = submitit.JobEnvironment._usr_sig()
        os.register_at_fork(after_in_child=lambda: signal.signal(stop, signal.SIG_IGN))
        submitit.helpers.TorchDistributedEnvironment().export(
            set_cuda_visible_devices=False, overwrite=True
        )
        status = status_of(lambda: bench(argv))
        if status:
            raise SystemExit(status)


@dataclass(frozen=True)
class Job:
    """One run of the command: strategies, a seed, and a directory of its own."""

    specs: tuple[str, ...]
    seed: int
    directory: RunDirectory

    @property
    def name(self) -> str:
        """Its folder's name."""
        return self.directory.path.name

    @property
    def finished(self) -> bool:
        """Whether all its figures are written."""
        return {(spec, self.seed) for spec in self.specs} <= set(self.directory.results())


@dataclass(frozen=True)
class Missing:
    """Why a job has no figures."""

    place: str  # where to look, or that there is nothing to see yet
    reason: str = ""

    @property
    def text(self) -> str:
        """In words for a row."""
        return f"{self.reason}; {self.place}" if self.reason else self.place


class Sweep:
    """The jobs of a plan, and what submitit knows of those that were sent."""

    def __init__(self, plan: Plan, options: argparse.Namespace, argv: list[str]):
        self.plan, self.options, self.argv = plan, options, argv
        self.directory = RunDirectory(plan.out)
        self.cluster: str = options.cluster
        if self.cluster == "auto":
            self.cluster = "slurm" if submitit.SlurmExecutor.affinity() > 0 else "local"
        self.parallel: int = options.parallel or (SUBMISSIONS if self.cluster == "slurm" else 1)
        check_options(plan, options, self.cluster, self.parallel)
        self.jobs = list(self._jobs())
        self.sent: dict[str, str] = {}  # job's name -> submitit's number of its last submission
        self.local: dict[str, submitit.Job[None]] = {}  # jobs that this process started
        self.slots: dict[str, int] = {}  # which share of this machine's GPUs each of them has
        # a job starts Python anew: in a checkout that is not installed it finds the package too
        root = str(Path(__file__).parents[2])
        os.environ["PYTHONPATH"] = os.pathsep.join(
            filter(None, [root, os.environ.get("PYTHONPATH")])
        )

    def _jobs(self) -> Iterator[Job]:
        specs = tuple(strategy_spec(strategy) for strategy in self.plan.strategies)
        for seed in self.plan.seeds:
            for part in [specs] if self.options.together else [(spec,) for spec in specs]:
                name = "together" if self.options.together else folder_name(part[0])
                yield Job(part, seed, self.directory.job(f"{name}-seed{seed}"))

    def run(self, identity: Identity) -> int:
        """Send what is missing, wait and collect; the exit status, 1 where a job failed."""
        remark = seed_remark(self.plan)
        if remark:
            print_line(remark)
        if self.options.dry_run:
            for job in self.jobs:
                state = "finished" if job.finished else "would run"
                print_line(f"{state:<10}  {shlex.join(['mixbench', *self._argv(job)])}")
            return 0
        with self.directory.claimed(identity, resume=True):
            self.sent = read_sent(self.directory.jobs)
            for job in self.jobs:
                job.directory.check(self.plan.recipe, resume=True)
                job.directory.check_data(identity)
            left = [job for job in self.jobs if not job.finished]
            going = self._going(left)
            missing = [job for job in left if job not in going]
            print_line(
                f"{len(self.jobs)} jobs on {self.cluster}: {len(self.jobs) - len(left)} finished, "
                f"{len(going)} {WAITING}, {len(missing)} to submit; logs in "
                f"{self.directory.job_logs}"
            )
            try:
                going = self._send(going, missing)
            except KeyboardInterrupt:
                self._collect(self._interrupted(left))
                return 130
            return self._collect(going)

    def _send(self, going: list[Job], missing: list[Job]) -> list[Job]:
        """Submit the missing jobs and wait, where that is asked for; the jobs that still run."""
        if self.cluster == "slurm":
            for begin in range(0, len(missing), SUBMISSIONS):
                self._submit_array(missing[begin : begin + SUBMISSIONS])
            going, missing = going + missing, []
        return going if self.options.no_wait else self._wait(going, missing)

    def _wait(self, going: list[Job], missing: list[Job]) -> list[Job]:
        """Wait until no job runs, starting the missing ones here as others end; no job."""
        while going or missing:
            while missing and len(going) < self.parallel:
                self._submit_here(missing[0], going)
                going.append(missing.pop(0))
            time.sleep(POLL[self.cluster])
            still = self._going(going)
            for job in going:
                if job not in still:
                    print_line(
                        f"{job.name}: {'finished' if job.finished else self._missing(job).text}"
                    )
            going = still
        return going

    def _going(self, jobs: list[Job]) -> list[Job]:
        """Those of the jobs that are queued or running."""
        if self.cluster == "local":
            return [job for job in jobs if self._runs_here(job)]
        if not any(job.name in self.sent for job in jobs):
            return []
        # submitit's state asks sacct, which needs an accounting database and answers from up to
        # ten minutes ago; squeue does not
        command = ["squeue", "--noheader", "--array", "--states=all", "--format=%i %T"]
        command.append(f"--user={getpass.getuser()}")
        answer = subprocess.run(command, capture_output=True, text=True)
        if answer.returncode:  # a controller that is away does not mean that the jobs are
            print_line(f"squeue: {' '.join(answer.stderr.split())}; taking the jobs for running")
            return [job for job in jobs if job.name in self.sent]
        states = dict(line.split() for line in answer.stdout.splitlines())
        return [
            job for job in jobs if states.get(self.sent.get(job.name, ""), "COMPLETED") not in ENDED
        ]

    def _runs_here(self, job: Job) -> bool:
        if job.name in self.local:
            return not self.local[job.name].done()
        return job.directory.in_use

    def _argv(self, job: Job) -> list[str]:
        """The command of a job."""
        device = []
        if self.cluster == "slurm" and self.options.gpus and self.plan.device == "auto":
            device = ["--device", "cuda"]
        what = ["--strategies", ",".join(job.specs), "--seeds", str(job.seed), "--resume"]
        return [*self.argv, *device, *what, "--out", str(job.directory.path)]

    def _submit_array(self, jobs: list[Job]) -> None:
        options = self.options
        executor = submitit.SlurmExecutor(self.directory.job_logs, max_num_timeout=TIME_OUTS)
        parameters = {
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
            **{key: value for key, value in parameters.items() if value is not None},
        )
        refusals = submitit.core.utils.FailedJobError, submitit.core.utils.FailedSubmissionError
        try:
            sent = executor.map_array(Command(), [self._argv(job) for job in jobs])
        except refusals as error:
            answer = " ".join(str(error).split())
            raise ValueError(
                f"sbatch refused the jobs ({answer}): see --gpus, --cpus, --partition, --sbatch"
            ) from None
        self._remember({job.name: handle.job_id for job, handle in zip(jobs, sent, strict=True)})

    def _submit_here(self, job: Job, going: Sequence[Job]) -> None:
        gpus = self.options.gpus
        used = {self.slots.get(other.name) for other in going}
        slot = next(number for number in range(self.parallel) if number not in used)
        self.slots[job.name] = slot
        executor = submitit.LocalExecutor(self.directory.job_logs, max_num_timeout=TIME_OUTS)
        executor.update_parameters(
            timeout_min=60 * self.options.hours,
            tasks_per_node=max(gpus, 1),
            gpus_per_node=gpus,
            visible_gpus=range(slot * gpus, (slot + 1) * gpus),
            stderr_to_stdout=True,
        )
        self.local[job.name] = executor.submit(Command(), self._argv(job))
        self._remember({job.name: self.local[job.name].job_id})

    def _remember(self, sent: dict[str, str]) -> None:
        self.sent |= sent
        replace_file(self.directory.jobs, json.dumps(self.sent, indent=1))

    def _missing(self, job: Job) -> Missing:
        """Why an ended job has no figures: the last line of its log, and where that lies."""
        if job.name not in self.sent:
            return Missing("not started")
        paths = submitit.core.utils.JobPaths(self.directory.job_logs, self.sent[job.name])
        log = paths.stdout
        if not log.is_file():
            reason = (
                "failed: it ended without a log, as jobs do that are cancelled before they start"
            )
            return Missing(f"{log} is not there", reason)
        text = log.read_text(encoding="utf-8", errors="replace")
        lines = [line.strip() for line in text.split("\n")]
        lines = [line for line in lines if line and not line.startswith("srun: ")]  # counts deaths
        return Missing(f"see {log}", f"failed; its log ends: {lines[-1] if lines else ''}")

    def _interrupted(self, left: list[Job]) -> list[Job]:
        """Stop waiting; the jobs that still run: all on Slurm, none on this machine."""
        if self.cluster == "slurm":
            going = self._going(left)
            numbers = sorted({self.sent[job.name].partition("_")[0] for job in going})
            print_line(
                "interrupted: the jobs go on. The same command waits for them and collects; "
                f"scancel {' '.join(numbers)} ends them"
            )
            return going
        for handle in self.local.values():
            handle.cancel()
        while not all(handle.done() for handle in self.local.values()):
            time.sleep(POLL["local"])
        print_line(
            "interrupted: the jobs are stopped; the same command goes on from their last epoch"
        )
        return []

    def _collect(self, going: Sequence[Job]) -> int:
        """Write and print the rows that are there; the exit status."""
        written = [job.directory.path for job in self.jobs if job.directory.comparison.exists()]
        written = [path for path in written if _readable(path)]
        own = {(spec, job.seed) for job in self.jobs for spec in job.specs}
        written += self._of_others(own)
        tables = merge(written, mixed_machines=True)
        for sentence in tables.damaged:
            print_line(sentence)
        tables = Tables(self._with_missing(tables.runs, going), tables.speed)
        write_comparison(tables, self.directory, self.plan.command, csv=self.plan.csv)
        if written:
            print_tables(tables, make_console())
        print_line(f"wrote {self.directory.comparison}")
        if going:
            print_line(
                f"{len(going)} of {len(self.jobs)} jobs are {WAITING}: the same command waits for "
                "them and collects"
            )
        specs = {spec for spec, _ in own}
        status = {row.status for row in tables.runs if (row.strategy, row.seed) in own}
        status |= {row.status for row in tables.speed if row.strategy in specs}
        return 0 if status <= {"ok", WAITING} else 1

    def _of_others(self, own: set[tuple[str, int]]) -> list[Path]:
        """Jobs of earlier sweeps into this directory, of strategies and seeds that none has yet."""
        found, keys = [], set(own)
        for path in sorted(self.directory.path.glob("jobs/*/")):
            if not RunDirectory(path).comparison.exists() or not _readable(path):
                continue
            theirs = {(row.strategy, row.seed) for row in read_tables(path).runs}
            if not theirs & keys:
                found.append(path)
                keys |= theirs
        return found

    def _with_missing(self, rows: Sequence[RunRow], going: Sequence[Job]) -> list[RunRow]:
        """The rows, and a row that says why for each strategy and seed that has none."""
        complete = {(row.strategy, row.seed): row for row in rows}
        for job in self.jobs:
            if job.finished:
                continue
            missing = Missing(WAITING) if job in going else self._missing(job)
            for spec in job.specs:
                row = complete.get((spec, job.seed))
                if row is None:
                    row = RunRow(strategy=spec, seed=job.seed, status=missing.text)
                elif row.status != "ok":
                    row = dataclasses.replace(row, status=f"{row.status}; {missing.place}")
                complete[spec, job.seed] = row
        return list(complete.values())


def _readable(directory: Path) -> bool:
    """Whether a job's tables can be read; else why not is told."""
    try:
        read_tables(directory)
    except ValueError as error:
        print_line(f"left out: {error}")
        return False
    return True


def read_sent(path: Path) -> dict[str, str]:
    """The number under which each job was sent last; ValueError where the file is damaged."""
    if not path.exists():
        return {}
    try:
        sent = read_json(path)
    except ValueError as error:
        sent = error
    if isinstance(sent, dict) and all(isinstance(number, str) for number in sent.values()):
        return sent
    raise ValueError(
        f"{path} is damaged, and says which jobs were sent: cancel those that still run, remove "
        "the file, and give the same command again"
    )


def check_options(plan: Plan, options: argparse.Namespace, cluster: str, parallel: int) -> None:
    """ValueError for a mistake in a sweep's options."""
    if plan.json is not None:
        raise ValueError("--json belongs to the commands bench, train and speed: leave it out")
    if plan.mode == "speed":
        raise ValueError(
            "speeds are compared within one process: use `mixbench speed`, or --mode both for a "
            "speed in every job"
        )
    if options.gpus < 0:
        raise ValueError(f"--gpus must be 0 or more, not {options.gpus}")
    if not options.hours >= 0.1:  # a job is warned 90 seconds before its time limit
        raise ValueError(
            f"--hours must be 0.1 or more, and longer than an epoch takes, not {options.hours}"
        )
    if any("=" not in pair for pair in options.sbatch):
        raise ValueError(
            f"--sbatch takes KEY=VALUE such as qos=high, not {' '.join(options.sbatch)}"
        )
    if cluster == "local":
        _check_local(options, parallel)
    elif submitit.SlurmExecutor.affinity() < 0:
        raise ValueError(
            "--cluster slurm: srun is not found; run this on a machine of the cluster, or take "
            "--cluster local"
        )


def _check_local(options: argparse.Namespace, parallel: int) -> None:
    if options.no_wait:
        raise ValueError(
            "--no-wait needs Slurm: on this machine the sweep itself starts each job when another "
            "ends"
        )
    if options.partition or options.account or options.sbatch:
        raise ValueError(
            "--partition, --account and --sbatch need Slurm, and srun is not found or --cluster "
            "local is given"
        )
    if parallel * options.gpus > 1:
        import torch

        devices = torch.cuda.device_count()
        if 0 < devices < parallel * options.gpus:
            raise ValueError(
                f"--parallel {parallel} --gpus {options.gpus}: this machine has {devices} GPUs"
            )
