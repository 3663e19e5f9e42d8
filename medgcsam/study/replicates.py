"""Metrics of each run on its test cases and on bootstrap samples of patients, the same for all runs of a fold."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from medgcsam.evaluation.patients import patient_codes
from medgcsam.study.results import Result, check_paired, task_of


def fold_replicates(
    results: Sequence[Result], *, replicates: int, seed: int
) -> tuple[list[np.ndarray], np.ndarray | None]:
    """Metrics on the sample and on patient bootstrap samples, for all runs of one fold.

    Args:
        results: runs of one fold, tested on the same cases.
        replicates: number B of bootstrap samples.
        seed: of the bootstrap; folds have different patients, so each draws from a stream of its own.

    Returns:
        Per run, and for the sanity baseline (None where a run has none), an array (1 + B, metrics of the task): first
        the sample. Row by row all are about the same patients.

    Raises:
        DataError: the runs are not about the same cases.
    """
    first = results[0]
    for other in results[1:]:
        check_paired(first, other)
    task, metrics = task_of(first.metrics), first.metrics
    codes, n_patients = patient_codes(first.tested.patients)
    answers = [result.tested.answers for result in results]
    if first.baseline is not None:
        answers.append(first.baseline)
    statistics = [task.statistic(one, first.tested, metrics, codes, n_patients) for one in answers]
    stream = int(np.random.SeedSequence([seed, first.fold]).generate_state(1)[0])
    ones = np.ones((1, n_patients))
    parts = [[statistic(ones)] for statistic in statistics]
    for weights in task.draws(first.tested, metrics, codes, n_patients, replicates=replicates, seed=stream):
        for part, statistic in zip(parts, statistics, strict=True):
            part.append(statistic(weights))
    found = [np.concatenate(part) for part in parts]
    return (found[:-1], found[-1]) if first.baseline is not None else (found, None)
