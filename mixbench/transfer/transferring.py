"""The transfer of trained models to a task: one recipe, the same batches, a row a figure."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any, Protocol

from torch import nn

from mixbench.evaluations.evaluation import Result
from mixbench.recipe import Recipe
from mixbench.report.numbers import cell
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import (
    MeasuredOn,
    data_hash,
    is_measured,
    keep,
    result_file,
    write_evaluations,
)
from mixbench.runs.rows import EvaluationRow
from mixbench.runtime import Runtime, explain
from mixbench.transfer.candidates import Candidate, Start
from mixbench.transfer.tasks import TASKS, TITLES
from mixbench.transfer.training import Training, train_network


class Transfer(Protocol):
    """A task with its recipe: its network, how that is trained, and what is measured of it."""

    @property
    def name(self) -> str:
        """The task's name."""

    @property
    def text(self) -> str:
        """The options as text, which tell its rows and files from another's."""

    @property
    def of_training(self) -> Transfer:
        """The training alone: one serves every way to measure."""

    def network(self, start: Start, data: Any, seed: int) -> nn.Module:
        """The network as its training begins; its new parts are the same for the same seed."""

    def training(
        self, network: Any, data: Any, model: Recipe, seed: int, runtime: Runtime
    ) -> Training:
        """The batches, the loss, the optimizer and the rate."""

    def measure(self, network: Any, data: Any, model: Recipe, runtime: Runtime) -> Result:
        """The figures of the validation images, with a picture of the first."""


def transfer_all(
    run: RunDirectory,
    candidates: Sequence[Candidate],
    transfer: Transfer,
    data: MeasuredOn,
    runtime: Runtime,
) -> tuple[list[EvaluationRow], bool]:
    """Transfer what the directory does not hold; the rows of this transfer, and any failure.

    evaluations.csv is written anew. What fails is named, and the others go on.
    """
    failed = False
    for candidate in candidates:
        spec, seed = candidate.spec, candidate.seed
        file = result_file(run, spec, seed, transfer, data)
        if is_measured(file):
            continue
        try:
            weights = result_file(run, spec, seed, transfer.of_training, data).with_suffix(".pt")
            result = _transferred(candidate, transfer, data, weights, runtime)
        except Exception as error:  # the others go on
            failed = True
            runtime.say(f"no {transfer.name} of {spec}, seed {seed}: {explain(error).reason}")
            continue
        keep(file, spec, seed, transfer, data, result)
        runtime.say(
            f"measured {transfer.name} of {spec}, seed {seed}: {_headline(result, transfer)}"
        )
    order = list(dict.fromkeys(each.spec for each in candidates))
    key = transfer.name, transfer.text, data_hash(data)
    rows = write_evaluations(run, order)
    return [row for row in rows if (row.evaluation, row.options, row.data_hash) == key], failed


def _transferred(
    candidate: Candidate, transfer: Transfer, data: MeasuredOn, weights: Path, runtime: Runtime
) -> Result:
    """What is measured of a candidate's network once it is trained, and `weights` written."""
    start, seed = candidate.load(), candidate.seed
    network = transfer.network(start, data, seed).to(runtime.device)
    training = transfer.training(network, data, start.model, seed, runtime)
    train_network(network, training, seed, weights, runtime, candidate.spec)
    return transfer.measure(network, data, start.model, runtime)


def _headline(result: Result, transfer: Transfer) -> str:
    """The figure that strategies are compared by, with its name."""
    setting, metric, _ = TASKS[transfer.name].headline
    [value] = [
        each.value for each in result.figures if (each.setting, each.metric) == (setting, metric)
    ]
    return f"{TITLES[metric]} {cell(value, 1)}"
