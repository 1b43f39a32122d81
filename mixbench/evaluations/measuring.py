"""Several evaluations of several models: each is measured once, and its rows are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache

from mixbench.evaluations.evaluation import EvalImages, Evaluation, Given, Subject
from mixbench.evaluations.subjects import Candidate
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import data_hash, is_measured, keep, result_file, write_evaluations
from mixbench.runs.rows import EvaluationRow
from mixbench.runtime import Runtime, explain


def measure_all(
    run: RunDirectory,
    candidates: Sequence[Candidate],
    evaluations: Sequence[Evaluation],
    given: Given,
    runtime: Runtime,
) -> tuple[list[EvaluationRow], bool]:
    """Measure what the directory does not hold; the rows of these evaluations, and any failure.

    evaluations.csv is written anew. What fails is named, and the others go on. ValueError where
    images are not there.
    """
    given = dataclasses.replace(given, own=cache(given.own))
    if given.place is not None and not any(each.reads_data for each in evaluations):
        given.own()  # a mistake is said also where nothing reads them
    opened = [(evaluation, evaluation.open(given)) for evaluation in evaluations]
    failed = False
    for candidate in candidates:
        subject = None
        for evaluation, images in opened:
            named = f"{evaluation.name} of {candidate.spec}, seed {candidate.seed}"
            file = result_file(run, candidate.spec, candidate.seed, evaluation, images)
            if is_measured(file):
                continue
            try:
                subject = subject or candidate.load()
                _check(evaluation, subject)
                result = evaluation.measure(subject, images, runtime)
            except Exception as error:  # a plug-in may raise anything; the others go on
                failed = True
                runtime.say(f"no {named}: {explain(error).reason}")
                continue
            keep(file, candidate.spec, candidate.seed, evaluation, images, result)
            runtime.say(f"measured {named}")
    order = list(dict.fromkeys(each.spec for each in candidates))
    keys = {_key(evaluation, images) for evaluation, images in opened}
    rows = write_evaluations(run, order)
    return [row for row in rows if (row.evaluation, row.options, row.data_hash) in keys], failed


def _check(evaluation: Evaluation, subject: Subject) -> None:
    if evaluation.classifies and subject.headless:
        raise ValueError(
            f"{evaluation.name} asks for classes, and {subject.spec} has no classifier: take "
            "fine-tuned weights"
        )


def _key(evaluation: Evaluation, images: EvalImages) -> tuple[str, str, str]:
    return evaluation.name, evaluation.text, data_hash(images)
