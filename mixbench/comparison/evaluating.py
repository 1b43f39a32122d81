"""The evaluations that follow a comparison's training."""

from __future__ import annotations

from collections.abc import Sequence

from mixbench.comparison.plan import Plan
from mixbench.comparison.screen import Screen
from mixbench.data.sources import Data
from mixbench.evaluations.evaluation import EvalImages, Evaluation, Given, evaluation_class
from mixbench.evaluations.measuring import measure_all
from mixbench.evaluations.subjects import run_candidates, run_rows
from mixbench.report.evaluated import print_evaluated
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Runtime
from mixbench.spec import strategy_spec


def evaluations_of(names: Sequence[str]) -> list[Evaluation]:
    """The evaluations of these names with their defaults.

    ValueError for an unknown one, and for one that reads images of its own.
    """
    classes = [evaluation_class(name) for name in names]
    for each in classes:
        if each.reads_data:
            raise ValueError(
                f"--evaluate {each.name} needs images of its own: measure it after training, "
                f"mixbench eval {each.name} RUN --data DIR"
            )
    return [each() for each in classes]


def evaluate_run(plan: Plan, data: Data, runtime: Runtime, screen: Screen) -> bool:
    """Measure and print what `plan.evaluate` names of the plan's finished strategies.

    Whether none failed.
    """
    run = RunDirectory(plan.out)
    asked = [strategy_spec(strategy) for strategy in plan.strategies]
    finished = {row.strategy for row in run_rows(run)}
    specs = [spec for spec in asked if spec in finished]
    if not specs:
        return True
    candidates = run_candidates(run, runtime.device, specs)
    images = EvalImages(name=data.name, source=data.val, classes=data.classes)
    given = Given(own=lambda: images, place=None, image_size=plan.recipe.image_size)
    found, failed = measure_all(run, candidates, evaluations_of(plan.evaluate), given, runtime)
    print_evaluated(found, specs, screen.console)
    return not failed
