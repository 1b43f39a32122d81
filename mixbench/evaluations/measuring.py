"""Several evaluations of several models: each is measured once, and its rows are written."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from functools import cache, partial

import numpy as np

from mixbench.evaluations.evaluation import EvalImages, Evaluation, Given, Result, Subject
from mixbench.evaluations.per_image import bootstrap_interval, paired_sentences
from mixbench.evaluations.subjects import Candidate
from mixbench.runs.directory import RunDirectory
from mixbench.runs.evaluated import (
    data_hash,
    is_measured,
    keep,
    read_each,
    result_file,
    write_evaluations,
)
from mixbench.runs.rows import EvaluationRow
from mixbench.runtime import Runtime, explain
from mixbench.training.trial import slow_bfloat16


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
    failed, tell = False, cache(partial(_tell_of_bfloat16, runtime))
    for candidate in candidates:
        subject = None
        for evaluation, images in opened:
            named = f"{evaluation.name} of {candidate.spec}, seed {candidate.seed}"
            file = result_file(run, candidate.spec, candidate.seed, evaluation, images)
            if is_measured(file):
                continue
            try:
                subject = subject or candidate.load()
                if subject.recipe.amp:
                    tell()  # once
                _check(evaluation, subject)
                result = evaluation.measure(subject, images, runtime)
            except Exception as error:  # a plug-in may raise anything; the others go on
                failed = True
                runtime.say(f"no {named}: {explain(error).reason}")
                continue
            result = _with_interval(evaluation, result)
            keep(file, candidate.spec, candidate.seed, evaluation, images, result)
            runtime.say(f"measured {named}")
    if len({candidate.seed for candidate in candidates}) == 1:
        for evaluation, images in opened:
            for sentence in _of_one_seed(run, candidates, evaluation, images):
                runtime.say(sentence)
    order = list(dict.fromkeys(each.spec for each in candidates))
    keys = {_key(evaluation, images) for evaluation, images in opened}
    rows = write_evaluations(run, order)
    return [row for row in rows if (row.evaluation, row.options, row.data_hash) in keys], failed


def _tell_of_bfloat16(runtime: Runtime) -> None:
    """Say so where it is slow: a model is measured in the precision that it was trained in."""
    slow = slow_bfloat16(runtime.device)
    if slow:
        runtime.say(f"{slow}, and these models were trained in it: measuring them may take long")


def _check(evaluation: Evaluation, subject: Subject) -> None:
    if evaluation.classifies and subject.headless:
        raise ValueError(
            f"{evaluation.name} asks for classes, and {subject.spec} has no classifier: take "
            "fine-tuned weights"
        )


def _with_interval(evaluation: Evaluation, result: Result) -> Result:
    """A result whose headline has its interval over the images, where they have a value each."""
    headline = evaluation.headline
    if headline is None or result.each is None or np.isfinite(result.each).sum() < 2:
        return result
    try:
        low, high = bootstrap_interval(result.each, result.groups)
    except ValueError:  # all had one draw in common
        return result
    place = headline.setting, headline.metric
    figures = tuple(
        dataclasses.replace(figure, low=low, high=high)
        if (figure.setting, figure.metric) == place
        else figure
        for figure in result.figures
    )
    return dataclasses.replace(result, figures=figures)


def _of_one_seed(
    run: RunDirectory,
    candidates: Sequence[Candidate],
    evaluation: Evaluation,
    images: EvalImages,
) -> list[str]:
    """What one seed's images say of the differences, which seeds cannot."""
    if evaluation.headline is None:
        return []
    values, groups = {}, None
    for candidate in candidates:
        file = result_file(run, candidate.spec, candidate.seed, evaluation, images)
        each, of_each = read_each(file)
        if each is not None:
            values[candidate.spec], groups = each, of_each
    words = f"{evaluation.name}'s {evaluation.headline.metric.replace('_', ' ')}"
    order = [candidate.spec for candidate in candidates]
    return paired_sentences(values, order, words, groups)


def _key(evaluation: Evaluation, images: EvalImages) -> tuple[str, str, str]:
    return evaluation.name, evaluation.text, data_hash(images)
