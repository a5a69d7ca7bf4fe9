"""The run of a comparison that goes out: of the arm that did best on validation images, its best seed."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from statistics import mean

from gpt4image.artifacts.run_records import COMPARISON, Run, load_arm_runs, load_comparisons
from gpt4image.base.errors import RunError
from gpt4image.config.arms import ARMS


def best_run(folder: Path) -> tuple[Path, str]:
    """Return a run of a comparison, and why it was chosen; of another folder the folder itself, and nothing.

    The baseline and the arms that learn from descriptions are candidates; controls and the oracle are not. Test scores
    are not looked at: choosing by them would flatter the model.

    Raises:
        RunError: the record or a run is damaged, or no candidate has a validation score.
    """
    if not (folder / COMPARISON).is_file():
        return folder, ""
    comparison = next(iter(load_comparisons(folder).values()))
    every, unreadable = load_arm_runs(folder, comparison)
    if unreadable:
        raise RunError(
            f"{folder}: the best run cannot be chosen while runs cannot be read: {unreadable[0].name}: "
            f"{unreadable[0].reason} The same `gpt4image compare` command makes a deleted run again; or name one run."
        )
    best = max if comparison.higher_is_better else min
    candidates: dict[str, list[tuple[float, Run]]] = {}
    for name, found in every.items():
        if name == "baseline" or (name in ARMS and ARMS[name].headline):
            scored = [(score, run) for run in found if (score := _score(run, comparison.metric, best)) is not None]
            candidates |= {name: scored} if scored else {}
    if not candidates:
        raise RunError(
            f"{folder}: no run of the baseline or of an arm with descriptions has a score on validation images, so "
            f"none can be chosen; name one of the runs below {folder / 'runs'}."
        )
    arm = best(candidates, key=lambda name: mean(score for score, _ in candidates[name]))
    score, run = best(candidates[arm], key=lambda scored: scored[0])
    val = comparison.data.get("val")
    held_out = f" on {val:,} images" if val else ""
    why = (
        f"arm {arm}, seed {run.config.get('seed')}: val {comparison.metric} {score:.4f}{held_out}; by the mean over "
        f"seeds the best of {', '.join(candidates)}"
    )
    return run.folder, why


def _score(run: Run, metric: str, best: Callable[[list[float]], float]) -> float | None:
    """Return the score of the weights that a run kept; None without labelled validation images."""
    every = [epoch.val.get(metric) for epoch in run.metrics if epoch.val]
    scores = [score for score in every if score is not None]
    if not scores:
        return None
    return best(scores) if run.config.get("select") == "best" else scores[-1]
