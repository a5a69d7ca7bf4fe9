"""What was done, and at what cost, in a few lines: describer, text encoder, training."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from gpt4image.artifacts.run_records import Run
from gpt4image.pages.numbers import duration
from gpt4image.reporting.extras import Descriptions


def what_was_done(known: Descriptions | None, runs: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """Return headings and texts; what is not known is left out."""
    different = {run.folder.resolve(): run for arm_runs in runs.values() for run in arm_runs}
    return ({} if known is None else _descriptions(known)) | _training(list(different.values()))


def _descriptions(known: Descriptions) -> dict[str, str]:
    encoding = known.encoding
    some = "all described" if known.described == known.images else f"{known.described:,} of them described"
    found = {"Pictures": f"{known.images:,}, {some}"}
    conditioned = {asked.name: " (class-conditioned)" for asked in known.prompts if asked.class_conditioned}
    if known.describers:
        words = (f"{by.describer}, prompt {by.prompt}{conditioned.get(by.prompt, '')}" for by in known.describers)
        found["Described by"] = " · ".join(dict.fromkeys(words))
        found["Cost of descriptions"] = _cost(known)
    beyond = f"none longer than {encoding.max_tokens} tokens"
    if encoding.truncated:
        treated = "pooled from chunks" if encoding.length_policy == "pool" else "cut"
        beyond = f"{100 * encoding.truncated:.1f} % are longer than {encoding.max_tokens} tokens and {treated}"
    found["Text encoder"] = f"{encoding.encoder}: {encoding.width} numbers per text; {beyond}"
    return found


def _cost(known: Descriptions) -> str:
    tokens_in, tokens_out = (_sum(getattr(by, name) for by in known.describers) for name in ("tokens_in", "tokens_out"))
    cost = _sum(by.cost_usd for by in known.describers)
    priced = sum(by.cost_usd is not None for by in known.describers)
    parts = [f"{known.descriptions:,} descriptions"]
    if tokens_in is not None or tokens_out is not None:
        parts.append(f"{tokens_in or 0:,} tokens in, {tokens_out or 0:,} out")
    parts.append("cost not recorded" if cost is None else f"${cost:,.4f}" if cost < 1 else f"${cost:,.2f}")
    if 0 < priced < len(known.describers):
        parts.append(f"the cost of {priced} of {len(known.describers)} describers; the others recorded none")
    return "; ".join(parts)


def _sum(values: Iterable[Any]) -> Any:
    known = [value for value in values if value is not None]
    return sum(known) if known else None


def _training(runs: Sequence[Run]) -> dict[str, str]:
    seconds = [value for run in runs if isinstance(value := run.run.get("seconds"), int | float)]
    models = dict.fromkeys(_model(run) for run in runs if run.config.get("model"))
    found = {"Model": " · ".join(models)} if models else {}
    if seconds:
        total = duration(sum(seconds))
        together = f"{len(seconds)} runs, {total} together" if len(seconds) > 1 else total
        devices = dict.fromkeys(str(run.environment["device"]) for run in runs if run.environment.get("device"))
        found["Training"] = together + (f", on {' · '.join(devices)}" if devices else "")
    return found


def _model(run: Run) -> str:
    size, weights = run.config.get("image_size"), run.run.get("parameters")
    parts = [str(run.config["model"])]
    if isinstance(weights, int):
        parts.append(f"{weights:,} weights")
    if size:
        parts.append(f"{size} x {size} pixels")
    return ", ".join(parts)
