"""How runs were made: what they share, how arms differ, where they ran, what they cost and skipped."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from statistics import fmean
from typing import Any

from gpt4image.artifacts.run_records import Run
from gpt4image.base.outcome import Skipped

NOT_OPTIONS = frozenset({"arm", "chosen", "out", "seed", "resume"})
COSTS = ("seconds", "peak_memory_bytes", "steps", "images_per_second", "parameters")


def background(runs: Mapping[str, Sequence[Run]]) -> dict[str, Any]:
    """Return how the runs were made, by arm; ``differing`` is by option and arm, ``costs`` are means over runs."""
    everything = [run for arm_runs in runs.values() for run in arm_runs]
    options = {arm: distinct(run.config for run in arm_runs) for arm, arm_runs in runs.items() if arm_runs}
    names = sorted({name for values in options.values() for name in values} - NOT_OPTIONS)
    spread = {name: {arm: values.get(name, "–") for arm, values in options.items()} for name in names}
    items = [item for run in everything for item in run.run.get("set_aside", []) if isinstance(item, Mapping)]
    skipped = dict.fromkeys((str(item.get("name")), str(item.get("reason"))) for item in items)
    return {
        "shared": {name: next(iter(v.values())) for name, v in spread.items() if len(set(v.values())) == 1},
        "chosen": distinct(run.config.get("chosen", {}) for run in everything),
        "differing": {name: v for name, v in spread.items() if len(set(v.values())) > 1},
        "environment": distinct(run.environment for run in everything),
        "data": distinct(run.run.get("data", {}) for run in everything),
        "costs": {arm: {name: _mean(arm_runs, name) for name in COSTS} for arm, arm_runs in runs.items() if arm_runs},
        "skipped": [Skipped(name=name, reason=reason) for name, reason in skipped],
    }


def distinct(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return every key of the records with its distinct values as text, in order of appearance."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            values.setdefault(name, {})[text] = None
    return {name: " · ".join(texts) for name, texts in values.items()}


def _mean(runs: Sequence[Run], name: str) -> float | None:
    values = [value for run in runs if isinstance(value := run.run.get(name), int | float)]
    return fmean(values) if values else None
