"""How runs were made: what they share, how arms differ, where they ran, what they cost and set aside."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from statistics import fmean
from typing import Any

from gpt4image.base.outcome import SetAside
from gpt4image.reporting.records import Run

NOT_OPTIONS = frozenset({"arm", "chosen", "out", "seed", "resume"})


@dataclass(frozen=True, kw_only=True)
class Background:
    """How the runs were made: what they share, how arms differ, where they ran, what they cost and set aside."""

    shared: dict[str, str] = field(default_factory=dict)
    chosen: dict[str, str] = field(default_factory=dict)
    differing: dict[str, dict[str, str]] = field(default_factory=dict)
    environment: dict[str, str] = field(default_factory=dict)
    data: dict[str, str] = field(default_factory=dict)
    costs: dict[str, dict[str, float | None]] = field(default_factory=dict)
    set_aside: list[SetAside] = field(default_factory=list)


def background(runs: Mapping[str, Sequence[Run]]) -> Background:
    """Return what is known of how the runs were made, by arm."""
    everything = [run for arm_runs in runs.values() for run in arm_runs]
    options = {
        arm: distinct(
            {name: value for name, value in run.config.items() if name not in NOT_OPTIONS} for run in arm_runs
        )
        for arm, arm_runs in runs.items()
        if arm_runs
    }
    names = sorted({name for values in options.values() for name in values})
    spread = {name: {arm: values.get(name, "–") for arm, values in options.items()} for name in names}
    return Background(
        shared={name: next(iter(v.values())) for name, v in spread.items() if len(set(v.values())) == 1},
        chosen=distinct(run.config.get("chosen", {}) for run in everything),
        differing={name: v for name, v in spread.items() if len(set(v.values())) > 1},
        environment=distinct(run.environment for run in everything),
        data=distinct(run.run.get("data", {}) for run in everything),
        costs={arm: _cost(arm_runs) for arm, arm_runs in runs.items() if arm_runs},
        set_aside=_set_aside(everything),
    )


def distinct(records: Iterable[Mapping[str, Any]]) -> dict[str, str]:
    """Return every key of the records with its distinct values as text, in order of appearance."""
    values: dict[str, dict[str, None]] = {}
    for record in records:
        for name, value in record.items():
            text = value if isinstance(value, str) else json.dumps(value, ensure_ascii=False)
            values.setdefault(name, {})[text] = None
    return {name: " · ".join(texts) for name, texts in values.items()}


def _cost(runs: Sequence[Run]) -> dict[str, float | None]:
    def mean(name: str) -> float | None:
        values = [value for run in runs if isinstance(value := run.run.get(name), int | float)]
        return fmean(values) if values else None

    return {name: mean(name) for name in ("seconds", "peak_memory_bytes", "steps", "images_per_second", "parameters")}


def _set_aside(runs: Sequence[Run]) -> list[SetAside]:
    items = {
        (str(item.get("name")), str(item.get("reason"))): None
        for run in runs
        for item in run.run.get("set_aside", [])
        if isinstance(item, Mapping)
    }
    return [SetAside(name=name, reason=reason) for name, reason in items]
