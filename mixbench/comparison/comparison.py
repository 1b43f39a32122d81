"""One comparison: speed and training of the strategies asked for, gathered into rows and written as they come."""

from __future__ import annotations

import dataclasses
import json
import os
import sys
import time
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from functools import cache, cached_property, partial
from pathlib import Path
from typing import Any

import torch

from mixbench import distributed
from mixbench.comparison.plan import Plan
from mixbench.data.datasets import open_data
from mixbench.data.loaders import EvalSet, check_batch
from mixbench.data.memory import keep_in_memory
from mixbench.data.scenes import Scene, draw_scene
from mixbench.data.sources import Data
from mixbench.data.transforms import eval_transform
from mixbench.evaluations.label_error import label_error
from mixbench.evaluations.speed import Speed, measure, profile, speed_batch
from mixbench.files import replace_file
from mixbench.mix import MixStrategy, hashed_seed
from mixbench.recipe import recipe_hash
from mixbench.report.page import report_runs
from mixbench.report.tables import print_table, write_markdown
from mixbench.runs.directory import claimed
from mixbench.runs.environment import device_name, environment, versions
from mixbench.runs.rows import COLUMNS, SCHEMA_VERSION, write_csv
from mixbench.runs.samples import read_correct, write_correct, write_lam
from mixbench.runtime import choose_device, explain
from mixbench.services.attention import attention_tap
from mixbench.spec import create_strategy, strategy_spec
from mixbench.training.estimate import estimate_seconds
from mixbench.training.evaluate import calibration_error
from mixbench.training.learner import LAMS, Learner
from mixbench.training.loop import train
from mixbench.training.optim import recipe_model
from mixbench.training.state import LOG_COLUMNS, clear_state, run_folder

LONG = 3600  # seconds after which a run deserves a warning


SCENES = 500  # drawn to measure the label error


QUIET = 60  # seconds without a line after which a log gets one


class Bench:
    """A running comparison: its plan, and the rows it gathers."""

    def __init__(self, plan: Plan):
        from rich.console import Console
        from rich.progress import (
            BarColumn,
            MofNCompleteColumn,
            Progress,
            TextColumn,
            TimeRemainingColumn,
        )

        self.plan, self.recipe, self.out = plan, plan.recipe, plan.out
        self.device = choose_device(plan.device)
        self.world = distributed.join(self.device.type)
        self.first = self.world.rank == 0
        if self.device.type == "cuda":
            if self.world.size > 1:
                self.device = torch.device("cuda", torch.cuda.current_device())
            torch.cuda.set_device(self.device.index or 0)  # events are of the current device
            # torch itself allows TF32 in convolutions but not in matrix products, which would favour Attentive-CutMix's network
            torch.set_float32_matmul_precision("high" if self.recipe.tf32 else "highest")
            torch.backends.cudnn.allow_tf32 = self.recipe.tf32
        self.console = Console(width=None if sys.stdout.isatty() else 150)
        self.progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(),
            MofNCompleteColumn(),
            TimeRemainingColumn(),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal or not self.first,
        )
        self.said = time.monotonic()
        self.speeds: dict[str, Speed] = {}
        self.speed_failures: dict[str, str] = {}
        self.params: float | None = None
        self.rows: list[dict[str, Any]] = []

    def say(self, line: str) -> None:
        if self.first:
            self.said = time.monotonic()
            self.console.print(line, highlight=False, markup=False, soft_wrap=True)

    def run(self) -> int:
        """Measure, train and write; the exit status, 1 where a strategy failed."""
        try:
            with (
                claimed(self.out, self.plan.stamp, self.plan.resume)
                if self.first
                else nullcontext(),
                self.progress,
            ):
                return self._run()
        finally:
            distributed.leave(self.world)

    def _run(self) -> int:
        plan, recipe = self.plan, self.recipe
        if not self.first:
            self.world.agree(None)  # the first process may have to fetch the data
        self.data = data = plan_data(plan)
        if self.first:
            self.world.agree(None)
        if plan.mode != "speed":
            check_batch(recipe, data)
        self.hash = recipe_hash(recipe, train=data.train.fingerprint, val=data.val.fingerprint)
        # a model without class attention is refused here, before anything is trained
        if plan.mode != "speed":
            model = recipe_model(recipe, len(data.classes), 0).to(self.device)
            for needs in (strategy.needs for strategy in plan.strategies):
                if needs.attention:
                    attention_tap(model, needs.attention)
            self.params = sum(p.numel() for p in model.parameters()) / 1e6
            del model
            if plan.cache == "ram":
                self.data = data = keep_in_memory(
                    data, self.say, int(os.environ.get("LOCAL_WORLD_SIZE", self.world.size))
                )
        if self.first:
            about = environment(self.device) | {
                "command": plan.command,
                "processes": self.world.size,
            }
            replace_file(self.out / "environment.json", json.dumps(about, indent=1))
        try:
            if plan.mode != "accuracy":
                self._speed()
            if plan.mode == "speed":
                self._add_rows({}, plan.seeds[0])
            else:
                self._train()
        finally:
            if (
                self.first and self.rows
            ):  # what an earlier run wrote is not lost where this one wrote nothing
                self._write()
        if self.first:
            print_table(self.rows, self._speed_of(), self.console, self._correct())
            report = report_runs([self.out])
            self.say(f"wrote {self.out / 'comparison.csv'}, comparison.md and {report.name}")
        return 0 if all(row["status"] == "ok" for row in self.rows) else 1

    def _precision(self, amp: bool) -> str:
        return (
            "bf16" if amp else "tf32" if self.recipe.tf32 and self.device.type == "cuda" else "fp32"
        )

    def _speed_of(self) -> str:
        recipe = self.recipe
        return (
            f"{recipe.speed_model} at {recipe.speed_image_size} px, batch {speed_batch(recipe, self.device)}, "
            f"{self._precision(recipe.speed_amp)}, {device_name(self.device)}"
        )

    def _speed(self) -> None:
        """Time every strategy, in the first process alone; a resumed run takes what it measured before."""
        plan, file = self.plan, self.out / "speed.json"
        specs = [strategy_spec(strategy) for strategy in plan.strategies]
        asked = {"strategies": specs, "rounds": plan.rounds, "of": self._speed_of()}
        kept = json.loads(file.read_text()) if plan.resume and file.is_file() else {}
        if kept.get("asked") == asked:
            self.speeds = {spec: Speed(**figures) for spec, figures in kept["speeds"].items()}
            self.speed_failures = kept["failures"]
        elif self.first:
            self.say(f"timing {self._speed_of()}")
            task = self.progress.add_task("timing, rounds")
            self.speeds, self.speed_failures = measure(
                plan.strategies,
                self.recipe,
                self.device,
                plan.rounds,
                partial(self._tick, task, "round"),
            )
            figures = {spec: dataclasses.asdict(speed) for spec, speed in self.speeds.items()}
            replace_file(
                file,
                json.dumps(
                    {"asked": asked, "speeds": figures, "failures": self.speed_failures}, indent=1
                ),
            )
            self.progress.remove_task(task)
        if self.first and plan.profile:
            good = [
                strategy
                for strategy in plan.strategies
                if strategy_spec(strategy) not in self.speed_failures
            ]
            text = profile(good, self.recipe, self.device, self.out)
            replace_file(self.out / "profile.txt", text)
            self.say(text)
        if self.first and plan.peers:
            text = peers(plan.rounds)
            replace_file(self.out / "peers.md", text)
            self.say(text)
        self.world.agree(None)

    def _tick(self, task: Any, what: str, done: int, total: int) -> None:
        self.progress.update(task, completed=done, total=total)
        if not self.console.is_terminal and time.monotonic() - self.said > QUIET:
            self.say(f"{what} {done}/{total}")

    def _train(self) -> None:
        plan, recipe = self.plan, self.recipe
        workers = plan.workers
        if workers is None:
            cores = (
                len(os.sched_getaffinity(0))
                if hasattr(os, "sched_getaffinity")
                else os.cpu_count() or 1
            )
            here = int(os.environ.get("LOCAL_WORLD_SIZE", "1"))
            workers = 0 if self.data.name == "scenes" else min(max(cores // here, 1), 8)
        told = False
        for seed in plan.seeds:
            asked = [strategy_spec(strategy) for strategy in plan.strategies]
            finished = {
                spec: figures
                for (spec, of), figures in self._results().items()
                if of == seed and spec in asked
            }
            open_strategies = [
                strategy for strategy in plan.strategies if strategy_spec(strategy) not in finished
            ]
            if open_strategies and not told:
                self._tell_time(open_strategies, workers)
                told = True
            results: dict[str, dict[str, Any]] = dict(finished)
            if open_strategies:
                task = self.progress.add_task(f"training, seed {seed}, steps")
                learners = train(
                    open_strategies,
                    recipe,
                    self.data,
                    seed,
                    self.device,
                    workers=workers,
                    out=self.out,
                    resume=plan.resume,
                    world=self.world,
                    say=self.say,
                    tick=partial(self._tick, task, f"seed {seed}  step"),
                    **({"record": tensorboard(self.out, seed)} if plan.log and self.first else {}),
                )
                self.progress.remove_task(task)
                results |= {learner.spec: self._figures(learner, seed) for learner in learners}
                if self.first:
                    self._keep(learners, results, seed)
                    if seed == plan.seeds[0] and not finished:
                        self._draw(learners)
            if self.first:
                clear_state(self.out, seed)
            self._add_rows(results, seed)
            if self.first:
                self._write()

    def _tell_time(self, strategies: list[MixStrategy], workers: int) -> None:
        one = estimate_seconds(strategies, self.recipe, self.data, self.device, workers, self.world)
        seconds = one * len(self.plan.seeds)
        self.say(f"training will take about {duration(seconds)} on this machine")
        if seconds > LONG:
            self.say(
                "that is long: lower --epochs or --limit-train, take --config quick, or use a GPU (--device cuda)"
            )

    def _results(self) -> dict[tuple[str, int], dict[str, Any]]:
        """The figures by strategy and seed that this run, or one that it resumes, has finished for this recipe and data."""
        files = sorted(self.out.glob("*/seed*/result.json"))
        found = [json.loads(file.read_text(encoding="utf-8")) for file in files]
        return {
            (figures["strategy"], figures["seed"]): figures
            for figures in found
            if figures["recipe_hash"] == self.hash
        }

    def _keep(self, learners: list[Learner], results: dict[str, dict[str, Any]], seed: int) -> None:
        for learner in learners:
            if learner.status == "ok":
                file = run_folder(self.out, learner.spec, seed) / "result.json"
                replace_file(file, json.dumps(results[learner.spec], indent=1))

    def _draw(self, learners: list[Learner]) -> None:
        """Pictures of what the strategies make of some images; one that cannot be drawn costs no figure."""
        from mixbench.report.gallery import draw_gallery, mixed_grid

        good = [learner for learner in learners if learner.status == "ok"]
        if good:
            images, labels = self._varied()
            shown = good, images, labels, self.data.classes, self.recipe.mean, self.recipe.std
            try:
                mixed_grid(*shown, self.out / "mixed.png")
                draw_gallery(*shown, self.out / "gallery")
            except Exception as error:  # a plug-in may raise anything
                self.say(f"no picture of the mixed images: {explain(error)}")

    def _varied(self) -> tuple[Any, Any]:
        """Sixteen validation images spread over the classes, since the first ones of a folder are all of one."""
        by_class: dict[int, list[int]] = {}
        for index, label in enumerate(self.data.val.labels):
            by_class.setdefault(label, []).append(index)
        deepest = max(map(len, by_class.values()))
        order = [
            indices[turn]
            for turn in range(deepest)
            for _, indices in sorted(by_class.items())
            if turn < len(indices)
        ]
        dataset = EvalSet(self.data.val, eval_transform(self.recipe))
        images, chosen = zip(*(dataset[i] for i in order[:16]), strict=True)
        return torch.stack(images).to(self.device), torch.tensor(chosen, device=self.device)

    def _add_rows(self, results: dict[str, dict[str, Any]], seed: int) -> None:
        specs = [strategy_spec(strategy) for strategy in self.plan.strategies]
        if not results and "cutmix" not in specs:
            specs.insert(0, "cutmix")  # the reference is a row of its own
        for spec in specs:
            self.rows.append(self._row(spec, seed, results.get(spec)))

    def _provenance(self, spec: str, seed: int, amp: bool) -> dict[str, Any]:
        strategy = create_strategy(spec)
        return {
            "schema_version": SCHEMA_VERSION,
            "strategy": spec,
            "status": "ok",
            "seed": seed,
            "attention": strategy.needs.attention,
            "network": strategy.needs.network,
            "device": device_name(self.device),
            "compiled": self.recipe.compile,
            "recipe_hash": self.hash,
            "precision": self._precision(amp),
            "versions": versions(),
            "date": datetime.now(UTC).strftime("%Y-%m-%d"),
        }

    def _figures(self, learner: Learner, seed: int) -> dict[str, Any]:
        """The row of a strategy that was trained, without its speed."""
        recipe, data = self.recipe, self.data
        last = learner.log[-1] if learner.log and learner.status == "ok" else {}
        ema = recipe.headline == "ema"
        return self._provenance(learner.spec, seed, recipe.amp) | {
            "compose": recipe.compose,
            "status": learner.status,
            "dataset": data.name,
            "train_images": len(data.train.labels),
            "num_classes": len(data.classes),
            "model": recipe.model,
            "params_m": self.params,
            "image_size": recipe.image_size,
            "batch_size": recipe.batch_size,
            "epochs": recipe.total_epochs,
            "extra_params_m": learner.extra_params_m if learner.status == "ok" else None,
            "headline": recipe.headline,
            "top1": last.get("top1_ema" if ema else "top1"),
            "top5": last.get("top5_ema" if ema else "top5"),
            "top1_ema": last.get("top1_ema"),
            "train_seconds": learner.seconds,
            "loading_share": learner.loading_share,
            "train_im_per_sec": learner.train_im_per_sec,
            **self._beyond_top1(learner, seed),
        }

    def _beyond_top1(self, learner: Learner, seed: int) -> dict[str, Any]:
        """Likelihood and calibration of the headline weights; which images were right, and a sample of lam, go into files."""
        found = learner.evaluation
        if learner.status != "ok" or found is None:
            return {}
        correct = (found.rank == 0).numpy()
        if self.first:
            folder = run_folder(self.out, learner.spec, seed)
            write_correct(folder / "correct.npz", correct)
            if learner.lams:  # not where a run was resumed after its last epoch
                area, used = (
                    torch.cat(parts)[:LAMS].cpu().numpy()
                    for parts in zip(*learner.lams, strict=True)
                )
                write_lam(folder / "lam.csv", area, used)
        visible = self._label_error(learner) if self.data.name == "scenes" else None
        calibration = calibration_error(found.confidence.double().numpy(), correct)
        return {"label_error": visible, "nll": float(found.nll.mean()), "ece": calibration}

    @cached_property
    def _scenes(self) -> list[Scene]:
        return [
            draw_scene(hashed_seed("label error"), index, self.recipe.image_size)
            for index in range(SCENES)
        ]

    def _label_error(self, learner: Learner) -> float | None:
        try:
            return label_error(
                learner,
                self._scenes,
                mean=self.recipe.mean,
                std=self.recipe.std,
                device=self.device,
            )
        except Exception as error:  # a plug-in may raise anything, and its other figures stand
            self.say(f"no label error of {learner.spec}: {explain(error)}")
            return None

    def _row(self, spec: str, seed: int, figures: dict[str, Any] | None) -> dict[str, Any]:
        recipe = self.recipe
        row: dict[str, Any] = dict.fromkeys(COLUMNS)
        row |= figures or self._provenance(spec, seed, recipe.speed_amp) | {
            "compose": "only",
            "model": recipe.speed_model,
            "image_size": recipe.speed_image_size,
        }
        if spec in self.speeds:
            speed = dataclasses.asdict(self.speeds[spec])
            row |= {key: value for key, value in speed.items() if key in COLUMNS} | {
                "timed": self._speed_of()
            }
        if spec in self.speed_failures and row["status"] == "ok":
            row["status"] = self.speed_failures[spec]
        return row

    def _write(self) -> None:
        here = {(row["strategy"], row["seed"]) for row in self.rows}
        # what was finished stays, also where this run was not asked for it or has not come to it
        rows = self.rows + [
            self._row(*key, figures) for key, figures in self._results().items() if key not in here
        ]
        write_csv(rows, self.out / "comparison.csv")
        write_markdown(
            rows, self.out / "comparison.md", self.plan.command, self._speed_of(), self._correct()
        )
        if self.plan.csv:
            write_csv(rows, self.plan.csv)

    def _correct(self) -> dict[tuple[str, int], Any]:
        """Which validation images each trained row had right."""
        files = {
            (row["strategy"], row["seed"]): run_folder(self.out, row["strategy"], row["seed"])
            / "correct.npz"
            for row in self.rows
        }
        return {key: read_correct(file) for key, file in files.items() if file.is_file()}


def tensorboard(out: Path, seed: int) -> Callable[[str, dict[str, Any]], None]:
    """Writes the rows of a strategy's log as curves under out/tensorboard."""
    from torch.utils.tensorboard import SummaryWriter

    writer_of = cache(
        lambda spec: SummaryWriter(str(out / "tensorboard" / run_folder(Path(), spec, seed)))
    )

    def record(spec: str, row: dict[str, Any]) -> None:
        for name in LOG_COLUMNS[1:]:
            if row[name] is not None:
                writer_of(spec).add_scalar(name, row[name], row["epoch"])
        writer_of(spec).flush()

    return record


def peers(rounds: int) -> str:
    """Other packages' mixing beside ours, as a Markdown table; in a checkout alone."""
    from baselines.peers import compare, report

    return report(compare(rounds))


def duration(seconds: float) -> str:
    """A time as a person says it."""
    for unit, size in (("days", 86400), ("hours", 3600), ("minutes", 60)):
        if seconds >= 1.5 * size:
            return f"{seconds / size:,.1f} {unit}"
    return f"{seconds:.0f} seconds"


def plan_data(plan: Plan) -> Data:
    """The data that a plan names."""
    return open_data(
        data=plan.data,
        dataset=plan.dataset,
        download=plan.download,
        image_size=plan.recipe.image_size,
        limit_train=plan.limit_train,
        limit_val=plan.limit_val,
    )


def training_cost(plan: Plan) -> str:
    """What is known of the cost before anything is measured: images, and the network's own arithmetic."""
    from mixbench.models.zoo import count

    data, recipe = plan_data(plan), plan.recipe
    with torch.device("meta"):
        params, macs = count(recipe_model(recipe, len(data.classes), 0), recipe.image_size)
    images = len(data.train.labels) // recipe.batch_size * recipe.batch_size * recipe.total_epochs
    flops = (
        6 * macs * images * len(plan.strategies) * len(plan.seeds)
    )  # forward and twice that backward, two operations each
    return (
        f"{images:,} images for each strategy and seed; {params / 1e6:.2f}M parameters; {flops / 1e15:,.3g} PFLOP in all, "
        "without what a strategy adds"
    )
