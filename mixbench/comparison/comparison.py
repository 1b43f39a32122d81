"""One comparison: speed and training of the strategies asked for, as rows on disk."""

from __future__ import annotations

import json
import os
from contextlib import nullcontext
from dataclasses import dataclass, field

import torch

from mixbench import distributed
from mixbench.comparison.accuracy import train_seeds
from mixbench.comparison.cost import plan_data
from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import Screen
from mixbench.comparison.timing import time_strategies
from mixbench.data.loaders import check_batch
from mixbench.data.memory import keep_in_memory
from mixbench.data.sources import Data
from mixbench.files import replace_file
from mixbench.models.build import recipe_model
from mixbench.recipe import Recipe, recipe_hash
from mixbench.report.files import write_comparison
from mixbench.report.page import report_runs
from mixbench.report.tables import document, print_tables
from mixbench.runs.directory import RunDirectory
from mixbench.runs.environment import environment
from mixbench.runs.merge import Tables
from mixbench.runs.rows import RunRow, SpeedRow, read_table
from mixbench.runs.samples import Correct, read_correct
from mixbench.runtime import Runtime, choose_device
from mixbench.services.attention import attention_tap


def run(plan: Plan) -> int:
    """Measure, train and write what a plan asks for; the exit status, 1 where a strategy failed."""
    device = choose_device(plan.device)
    world = distributed.join(device.type)
    device = prepare_device(device, plan.recipe, world)
    screen = Screen(speaks=world.rank == 0)
    runtime = Runtime(device=device, world=world, out=plan.out, resume=plan.resume, say=screen.say)
    claim = RunDirectory(plan.out).claimed(plan.identity, resume=plan.resume)
    try:
        with claim if runtime.first else nullcontext(), screen.progress:
            return compare(plan, runtime, screen)
    finally:
        distributed.leave(world)


def compare(plan: Plan, runtime: Runtime, screen: Screen) -> int:
    """The comparison itself: speed, then training seed by seed, written as it comes."""
    data = open_together(plan, runtime)
    digits = recipe_hash(plan.recipe, train=data.train.fingerprint, val=data.val.fingerprint)
    if plan.trains:
        check_batch(plan.recipe, data)
        check_attention(plan, data, runtime)
        if plan.cache == "ram":
            copies = int(os.environ.get("LOCAL_WORLD_SIZE", runtime.world.size))
            data = keep_in_memory(data, runtime.say, copies)
    results = Results(plan, digits)
    if runtime.first:
        results.describe(runtime)
    try:
        if plan.times:
            results.speed = time_strategies(plan, runtime, screen)
        if plan.trains:
            for rows in train_seeds(plan, data, digits, runtime, screen):
                results.runs += rows
                if runtime.first:
                    results.write()
    finally:
        if runtime.first and results:  # what an earlier run wrote stays where this wrote nothing
            results.write()
    if runtime.first:
        results.show(runtime, screen)
    return 0 if results.good else 1


def open_together(plan: Plan, runtime: Runtime) -> Data:
    """The plan's data; the first process opens it before the others, since it may fetch it."""
    if not runtime.first:
        runtime.world.agree(None)
    data = plan_data(plan)
    if runtime.first:
        runtime.world.agree(None)
    return data


def check_attention(plan: Plan, data: Data, runtime: Runtime) -> None:
    """NoClassAttention or ValueError where the model cannot give what a strategy asks for."""
    model = recipe_model(plan.recipe, len(data.classes), 0).to(runtime.device)
    for strategy in plan.strategies:
        if strategy.needs.attention:
            attention_tap(model, strategy.needs.attention)


def prepare_device(device: torch.device, recipe: Recipe, world: distributed.World) -> torch.device:
    """This process's device, with the recipe's precision for float32 products set."""
    if device.type != "cuda":
        return device
    if world.size > 1:
        device = torch.device("cuda", torch.cuda.current_device())
    torch.cuda.set_device(device.index or 0)  # events are of the current device
    # torch allows TF32 in convolutions but not in matrix products, which would favour
    # Attentive-CutMix's network
    torch.set_float32_matmul_precision("high" if recipe.tf32 else "highest")
    torch.backends.cudnn.allow_tf32 = recipe.tf32
    return device


@dataclass
class Results:
    """The rows of this command, and the files that they and earlier commands' rows go into."""

    plan: Plan
    recipe_hash: str
    runs: list[RunRow] = field(default_factory=list)
    speed: list[SpeedRow] = field(default_factory=list)

    def __bool__(self) -> bool:
        return bool(self.runs or self.speed)

    @property
    def good(self) -> bool:
        """Whether no strategy failed."""
        rows: list[RunRow | SpeedRow] = [*self.runs, *self.speed]
        return all(row.status == "ok" for row in rows)

    @property
    def directory(self) -> RunDirectory:
        """Where the files are."""
        return RunDirectory(self.plan.out)

    def tables(self) -> Tables:
        """These rows, and what the directory holds of other strategies and seeds."""
        trained = {(row.strategy, row.seed) for row in self.runs}
        finished = self.directory.results(self.recipe_hash)
        runs = self.runs + [row for key, row in finished.items() if key not in trained]
        timed = {row.strategy for row in self.speed}
        earlier = []
        if self.directory.speed.is_file():
            earlier = read_table(self.directory.speed, SpeedRow)
        return Tables(runs, self.speed + [row for row in earlier if row.strategy not in timed])

    def describe(self, runtime: Runtime) -> None:
        """Write what a reader needs to repeat the run."""
        about = environment(runtime.device)
        about |= {"command": self.plan.command, "processes": runtime.world.size}
        replace_file(self.directory.environment, json.dumps(about, indent=1))

    def write(self) -> None:
        """Write every table, and the files that were asked for beside them."""
        tables = self.tables()
        summary = write_comparison(
            tables,
            self.directory,
            self.plan.command,
            correct=self.correct(),
            csv=self.plan.csv,
        )
        if self.plan.json:
            about = json.loads(self.directory.environment.read_text(encoding="utf-8"))
            content = document(tables, summary, self.plan.recipe, about)
            replace_file(self.plan.json, json.dumps(content, indent=1, allow_nan=False) + "\n")

    def show(self, runtime: Runtime, screen: Screen) -> None:
        """Print the tables of this command's strategies, and write the page."""
        print_tables(Tables(self.runs, self.speed), screen.console, self.correct())
        page = report_runs([self.plan.out])
        files = (self.directory.runs, self.directory.speed, self.directory.markdown)
        names = ", ".join(file.name for file in files if file.is_file())
        runtime.say(f"wrote {self.directory.comparison}, {names} and {page.name}")

    def correct(self) -> Correct:
        """Which validation images each trained row had right."""
        files = {
            (row.strategy, row.seed): self.directory.seed(row.strategy, row.seed).correct
            for row in self.tables().runs
        }
        return {key: read_correct(file) for key, file in files.items() if file.is_file()}
