"""From finished runs to the record of a comparison: means, intervals, paired differences, cost."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from gpt4image.artifacts import runs
from gpt4image.artifacts.comparisons import Gap, OtherImages, Pair
from gpt4image.artifacts.environment import command
from gpt4image.base.errors import first_few
from gpt4image.base.files import read_json, read_parquet
from gpt4image.base.intervals import RESAMPLES, resamples
from gpt4image.comparing.planning import Member, Regime
from gpt4image.config import CompareConfig
from gpt4image.config.arms import ARMS
from gpt4image.data import annotation
from gpt4image.data.splits import wrong_copies
from gpt4image.reporting.findings import condition
from gpt4image.tasks.base import Labels, Task
from gpt4image.training.training_data import TrainingData

EQUAL = 1e-6
"""Differences of accuracies closer than this are equal: they are float32, and one of a million images is more."""


def mean_ci(values: Sequence[float]) -> tuple[float, list[float] | None]:
    """Return the mean of one value at least and the ends of its 95 % t-interval, None for a single value."""
    sample = np.asarray(values, dtype=np.float64)
    mean = float(sample.mean())
    if len(sample) == 1:
        return mean, None
    half = float(stats.t.ppf(0.975, len(sample) - 1) * stats.sem(sample))
    return mean, [mean - half, mean + half]


def paired(a: Sequence[float], b: Sequence[float]) -> Gap:
    """Return the mean of ``a - b``, its 95 % t-interval and the two-sided p-value of the paired t-test.

    Interval and p are None for a single pair, and where all differences are equal and not zero: a coincidence of few
    seeds or images that has no variance to test. If all are zero the interval has no width, and p is 1.
    """
    differences = np.asarray(a, dtype=np.float64) - np.asarray(b, dtype=np.float64)
    n, mean = len(differences), float(differences.mean())
    if n == 1:
        return Gap(difference=mean, n=n)
    error = 0.0 if np.ptp(differences) < EQUAL else float(stats.sem(differences))
    return _judged(mean, error, n - 1, n)


def crossed(a: NDArray[Any], b: NDArray[Any], *, averaged: bool = True) -> Gap:
    """Return the paired difference ``a - b`` where other seeds *and* other test images could have been drawn.

    Both are crossed random factors, as readers and cases in studies of diagnosis; variance components below zero count
    as zero. Degrees of freedom after Hillis (2007), "A comparison of denominator degrees of freedom methods for
    multiple observer ROC analysis": conservative where seeds are few.

    ``a`` and ``b`` are (S, I) scores of I test images by S seeds of each arm, of which the metric is the mean. Of a
    metric that is no mean, not ``averaged``, they are its values in I resamples of the images: the variance over these
    is what other images would change. To resample the seeds too would be far too sure of few.
    """
    differences = a.astype(np.float64) - b
    n, columns = differences.shape
    mean = float(differences.mean())
    if n == 1 or columns == 1:
        return Gap(difference=mean, n=n)
    scores = columns if averaged else 1
    of_seed, of_column = differences.mean(axis=1) - mean, differences.mean(axis=0) - mean
    rest = differences - mean - of_seed[:, None] - of_column[None, :]
    seeds_square = scores * float(of_seed @ of_seed) / (n - 1)
    columns_square = n * float(of_column @ of_column) / (columns - 1)
    rest_square = float((rest**2).sum()) / ((n - 1) * (columns - 1))
    seeds_square = max(seeds_square, rest_square)
    variance = seeds_square + max(columns_square - rest_square, 0.0)
    seeds_differ = seeds_square > 1e-12  # less is rounding noise: a single hit that differs is more
    # Hillis' formula considers only the readers (seeds); with few images their own freedom is the smaller one.
    freedom = min((n - 1) * (variance / seeds_square) ** 2, columns - 1) if seeds_differ else columns - 1
    return _judged(mean, float(np.sqrt(variance / (n * scores))), freedom, n)


def _judged(mean: float, error: float, freedom: float, n: int) -> Gap:
    if error == 0.0 and mean != 0.0:
        return Gap(difference=mean, n=n)
    half = float(stats.t.ppf(0.975, freedom) * error)
    p = 1.0 if error == 0.0 else float(2.0 * stats.t.sf(abs(mean) / error, freedom))
    return Gap(difference=mean, ci95=(mean - half, mean + half), p=p, n=n)


PREDICTIONS = "predictions-test.parquet"


def summarise(
    config: CompareConfig, members: Mapping[str, Member], data: TrainingData, plan_notes: Sequence[str] = ()
) -> dict[str, Any]:
    """Return the record of one comparison, as comparison.json holds it."""
    left = Regime.of(config).apply(data, config.first_seed)
    folders = {name: member.folders for name, member in members.items()}
    tests = {name: [read_json(run / "evaluation-test.json") for run in folders[name]] for name in members}
    primary = data.task.primary
    values = {name: [test[primary.name] for test in tests[name]] for name in members}
    scores = {name: np.stack(list(map(scores_of, folders[name]))) for name in members}
    resampled = {name: found for name in members if (found := resampled_of(data, folders[name])) is not None}
    facts = {name: [read_json(run / runs.RUN) for run in folders[name]] for name in members}
    arms = [ARMS[member.arm] for member in members.values()]
    asked = "an LLM's answers" if any(arm.predicts_targets and arm.answers for arm in arms) else "descriptions"
    reference = reference_of(members)
    first = folders[reference][0]
    known = {
        **facts[reference][0]["data"],
        "test_labelled": scores[reference].shape[-1],
        "described": 0 if left.text is None else int(left.text.described[left.indices("train")].sum()),
        **asdict(Regime.of(config)),
        "only_described": config.only_described,
    }
    return {
        "metric": primary.name,
        "titles": {metric.name: metric.title for metric in (primary, *data.task.metrics)},
        "higher_is_better": primary.higher_is_better,
        "image_score": data.task.image_score,
        "question": f"{condition(known)}, what do {asked} add?",
        "arms": {
            name: {
                **_arm(config, member, tests[name], facts[name], data.task),
                "metrics": _metrics(data.task, tests[name], tests[reference] if name != reference else None),
                "absent": {metric: why for test in tests[name] for metric, why in test["absent"].items()},
            }
            for name, member in members.items()
        },
        "pairs": [pair(arm, rival, values, scores, resampled) for arm, rival in pairs_of(members)],
        "data": known,
        "doubtful": _doubtful(folders, config.seed_range),
        "chosen": read_json(first / runs.CONFIG)["chosen"],
        "environment": read_json(first / runs.ENVIRONMENT),
        "command": command(),
        "method": method(config, members, data.task),
        "notes": [
            *wrong_copies(data.image_set),
            *small_classes(data.labels[left.indices("train")], data.classes, config.labels_per_class),
            *uninformative_texts(members, facts),
            *plan_notes,
        ],
    }


def small_classes(labels: Labels, classes: Sequence[str], k: int | None) -> list[str]:
    """Return a note that names the classes with fewer labels than the k that each was to keep; nothing if none is."""
    counts = annotation.counts(labels, len(classes))
    small = np.flatnonzero((counts > 0) & (counts < (k or 0))).tolist()
    named = first_few((classes[label] for label in small), limit=10)
    return [f"Classes with fewer than {k} labels in train keep all that they have: {named}."] if small else []


def uninformative_texts(members: Mapping[str, Member], facts: Mapping[str, Sequence[Mapping[str, Any]]]) -> list[str]:
    """Return a note for each arm whose texts gave no image without a label a target; ``facts`` are records of runs."""
    notes: list[str] = []
    for name, member in members.items():
        data = [fact["data"] for fact in facts[name] if ARMS[member.arm].predicts_targets]
        none = sum(one["with_target"] == one["labelled"] < one["train"] for one in data)
        if none:
            notes.append(
                f"{name}: no text or answer gave an image without a label a target in {none} of {len(data)} runs; they "
                "are uninformative for the classes, or there are none. There it learned from labels alone."
            )
    return notes


def _doubtful(folders: Mapping[str, Sequence[Path]], seeds: range) -> list[dict[str, Any]]:
    """Return, per seed, how well the first arm with text labels found the labels that were flipped."""
    for runs_of_arm in folders.values():
        found = [run / runs.DOUBTFUL for run in runs_of_arm]
        if all(path.is_file() for path in found):
            return [{"seed": seed, **read_json(path)} for seed, path in zip(seeds, found, strict=True)]
    return []


def pairs_of(members: Mapping[str, Member]) -> list[tuple[str, str]]:
    """Return what is compared: all with the reference, variants with their arm, arms with rivals of equal options."""
    reference = reference_of(members)
    pairs = [(name, reference) for name in members if name != reference]
    pairs += [(name, member.arm) for name, member in members.items() if member.options and member.arm in members]
    pairs += [
        (ours, theirs)
        for ours, our in members.items()
        if our.arm != "baseline"
        for rival in ("baseline", *ARMS[our.arm].against)
        for theirs, their in members.items()
        if their.arm == rival and our.options in ({}, their.options)
    ]
    return list(dict.fromkeys(pairs))


def reference_of(members: Mapping[str, Member]) -> str:
    """Return the member that all others are compared with: labels only, or the first one where there is no label."""
    return "baseline" if "baseline" in members else next(iter(members))


def method(config: CompareConfig, members: Mapping[str, Member], task: Task) -> list[str]:
    """Return how the numbers were measured, a paragraph each."""
    weights = {"last": "the weights of the last step", "best": "the best weights on validation"}
    others = [name for name, member in members.items() if member.options.get("select", config.select) != config.select]
    kept = weights.pop(config.select)
    kept += f" ({first_few(others)}: {weights.popitem()[1]})" if others else ""
    return [
        "Every arm trains on the same images, in batches of the same size, for the same number of steps. Kept are "
        f"{kept}. The test split is read once per run.",
        "A seed decides the weights, the order of the data, and which labels, descriptions or images are taken away or "
        "flipped. The interval of a mean is a 95 % t-interval over seeds; of one seed, it counts only the test images.",
        "The interval and the p-value of a difference count two choices: of the seeds, and of the test images. "
        + (
            f"They need a score per image: {task.image_score}. "
            if type(task).resampled is Task.resampled
            else f"What other images would change is found by {RESAMPLES:,} bootstrap samples of them. "
        )
        + "Paired t-tests over seeds count only the first choice.",
        "No p-value is corrected for the number of comparisons: of twenty arms without an effect, about one falls "
        "below 0.05.",
    ]


def _arm(
    config: CompareConfig, member: Member, tests: Sequence[Any], facts: Sequence[dict[str, Any]], task: Task
) -> dict[str, Any]:
    metric = task.primary.name
    mean, interval = mean_ci(values := [test[metric] for test in tests])
    interval = interval or tests[0].get("ci95", {}).get(metric)
    about = ARMS[member.arm].boxes if task.boxes else ARMS[member.arm].about
    options = json.loads(json.dumps(member.options, default=str))  # paths as text
    if options:
        about = f"{member.arm} with " + ", ".join(f"{key} {value}" for key, value in options.items())
    return {
        "description": about,
        "arm": member.arm,
        "options": options,
        "seeds": list(config.seed_range),
        "test": values,
        "mean": mean,
        "ci95": interval,
        "seconds": float(np.mean([fact["seconds"] for fact in facts])),
        "peak_memory_bytes": max(fact["peak_memory_bytes"] for fact in facts),
        "runs": [os.path.relpath(folder, config.out) for folder in member.folders],
    }


def _metrics(task: Task, ours: Sequence[dict[str, Any]], baseline: Sequence[dict[str, Any]] | None) -> dict[str, Any]:
    """Return the other metrics that all runs of an arm have, with their paired differences to the reference."""

    def by_metric(evaluations: Sequence[dict[str, Any]]) -> dict[str, list[float]]:
        own = [metric.name for metric in task.metrics]
        measured = [{name: run[name] for name in own if run.get(name) is not None} for run in evaluations]
        every = [one | run["metrics"] for one, run in zip(measured, evaluations, strict=True)]
        common = [name for name in every[0] if all(name in run for run in every)] if every else []
        return {name: [run[name] for run in every] for name in common}

    found: dict[str, Any] = {}
    values, others = by_metric(ours), by_metric(baseline or [])
    for metric, test in values.items():
        mean, interval = mean_ci(test)
        found[metric] = {"test": test, "mean": mean, "ci95": interval}
        if metric in others:
            found[metric]["against_baseline"] = paired(test, others[metric]).model_dump()
    return found


def scores_of(run: Path) -> NDArray[np.float64]:
    """Return the score of each labelled test image by a run, (n,)."""
    scores = read_parquet(run / PREDICTIONS, columns=["score"])["score"].to_numpy()
    return scores[~np.isnan(scores)]


def resampled_of(data: TrainingData, folders: Sequence[Path]) -> NDArray[np.float64] | None:
    """Return (S, RESAMPLES) the primary metric of each run of S seeds, where it is no mean of scores; else None."""
    task, keys = data.task, data.image_set.keys
    if type(task).resampled is Task.resampled:
        return None
    row_of = {key: row for row, key in enumerate(keys)}
    found: list[NDArray[np.float64]] = []
    for folder in folders:
        rows = [row for row in read_parquet(folder / PREDICTIONS).to_pylist() if not np.isnan(row["score"])]
        labels = data.all_labels[[row_of[row["key"]] for row in rows]]
        columns = {name: [row[name] for row in rows] for name in rows[0]}
        times = resamples([row["digest"] for row in rows])
        found.append(task.resampled(columns, labels, len(data.classes), times))
    return np.stack(found)


def pair(
    arm: str,
    against: str,
    values: Mapping[str, Sequence[float]],
    scores: Mapping[str, NDArray[np.float64]],
    resampled: Mapping[str, NDArray[np.float64]] = MappingProxyType({}),
) -> dict[str, Any]:
    """Return the paired difference of two arms: over test images too, no surer than over seeds."""
    by_bootstrap = arm in resampled and against in resampled
    found = resampled if by_bootstrap else scores
    images = crossed(found[arm], found[against], averaged=not by_bootstrap)
    other = OtherImages(ci95=images.ci95, p=images.p)
    seeds = paired(values[arm], values[against]).model_dump()
    return Pair(arm=arm, against=against, **seeds, other_images=other).model_dump()
