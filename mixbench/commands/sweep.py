"""The command that sends every strategy and seed to Slurm, or runs them here, as jobs."""

from __future__ import annotations

import dataclasses
from importlib.util import find_spec

from mixbench.commands.bench import plan_of
from mixbench.commands.options import Parser, bench_parser, count, hours, load_plugins, whole
from mixbench.commands.printing import print_line
from mixbench.comparison.plan import check_early, fitted, plan_data


def sweep(argv: list[str], typed: list[str]) -> int:
    """Send what is missing, wait and collect; the same command again goes on; the exit status."""
    if not find_spec("submitit"):
        raise ValueError("mixbench sweep needs submitit: pip install 'mixbench[slurm]'")
    from mixbench.commands.jobs import Sweep

    parser = bench_parser("sweep", mode="accuracy")
    add_sweep_options(parser)
    options = parser.parse(argv)
    if options.list or options.print_recipe:
        raise ValueError(
            "--list and --print-recipe belong to another command: mixbench bench --list"
        )
    if options.evaluate:
        raise ValueError(
            "--evaluate does not go with sweep: collect first, then mixbench eval NAME RUN"
        )
    load_plugins(options)
    plan = plan_of(options, typed)
    plan = dataclasses.replace(plan, resume=True)  # the same command again goes on
    check_early(plan, sweeps=True)
    from mixbench.comparison.checks import check_job, check_plan

    check_plan(plan)
    check_job(plan, options.gpus)
    data = plan_data(plan, rehearsed=options.dry_run)
    for remark in data.remarks:
        print_line(remark)
    plan = fitted(plan, data, ending="-sweep")
    job_argv = ["--mode", options.mode, *_job_options(argv)]
    return Sweep(plan, options, job_argv).run(plan.identity(data))


def _job_options(argv: list[str]) -> list[str]:
    """The options that are each job's as they were typed.

    That is all but the sweep's, what each job has of its own, and the files and --dry-run.
    """
    parser = Parser("sweep", add_help=False)
    add_sweep_options(parser)
    for option in ("--mode", "--strategies", "--seeds", "--out", "--csv", "--json"):
        parser.add_argument(option)
    for option in ("--resume", "--dry-run"):
        parser.add_argument(option, action="store_true")
    return parser.parse_known_args(argv)[1]


def add_sweep_options(parser: Parser) -> None:
    """Add the options that a sweep has and its jobs do not."""
    add = parser.add_argument_group(
        "sweep", "what each job may use; all other options are each job's"
    ).add_argument
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
        type=count,
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
        type=whole(0, 1024),
        default=1,
        metavar="N",
        help="GPUs a job, one process each (default: %(default)s; 0: CPU)",
    )
    add(
        "--cpus",
        type=count,
        default=8,
        metavar="N",
        help="CPU cores a process, on Slurm (default: %(default)s)",
    )
    add(
        "--hours",
        type=hours,
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
