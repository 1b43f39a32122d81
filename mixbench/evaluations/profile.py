"""The dearest operators of each strategy's step."""

from __future__ import annotations

from collections.abc import Sequence

from torch.profiler import ProfilerActivity
from torch.profiler import profile as record

from mixbench.evaluations.speed import WARM_UP, ResidentBatch, timed_strategies
from mixbench.files import replacing
from mixbench.mix import MixStrategy
from mixbench.recipe import Recipe
from mixbench.runs.directory import RunDirectory
from mixbench.runtime import Runtime
from mixbench.spec import strategy_spec

LISTED = 10  # operators of each strategy


def profile(
    strategies: Sequence[MixStrategy], recipe: Recipe, runtime: Runtime, num_classes: int
) -> str:
    """The dearest operators of a warm step of each strategy, as text.

    The directory's trace-<number>.json is the whole step, for a trace viewer.
    """
    assert runtime.out is not None
    device = runtime.device
    activities, key = [ProfilerActivity.CPU], "self_cpu_time_total"
    if device.type == "cuda":
        activities, key = [*activities, ProfilerActivity.CUDA], "self_cuda_time_total"
    batch, texts = ResidentBatch(recipe, device, num_classes), []
    named = {strategy_spec(strategy): strategy for strategy in strategies}
    with timed_strategies(named, recipe, device, num_classes) as timed:
        for number, (name, strategy) in enumerate(timed.items()):
            for step in range(WARM_UP):
                strategy.step(batch.micro(step))
            with record(activities=activities) as recorded:
                strategy.step(batch.micro(WARM_UP))
            trace = RunDirectory(runtime.out).trace(number)
            with replacing(trace) as partial:
                recorded.export_chrome_trace(str(partial))
            operators = recorded.key_averages()
            table = operators.table(sort_by=key, row_limit=LISTED, max_name_column_width=40)
            texts.append(f"{name}: {trace}\n{table}")
    return "\n".join(texts)
