"""How runs were made, from their records: options, machine, cost, and the commands to do it again."""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from statistics import fmean
from typing import Any

from gpt4image.artifacts.run_records import Run
from gpt4image.artifacts.targets import LabelEvidence
from gpt4image.base.outcome import Skipped
from gpt4image.pages.numbers import duration
from gpt4image.reporting.extras import Descriptions

NOT_OPTIONS = frozenset({"arm", "chosen", "out", "seed", "resume"})
COSTS = ("seconds", "peak_memory_bytes", "steps", "images_per_second", "parameters")
WHOLE = re.compile(r"gpt4image (demo|distill)\b")
"""Commands that go through all stages."""


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
        "costs": {
            arm: {name: fmean(found) if (found := _numbers(some, name)) else None for name in COSTS}
            for arm, some in runs.items()
            if some
        },
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


def _numbers(runs: Iterable[Run], name: str) -> list[float]:
    return [value for run in runs if isinstance(value := run.run.get(name), int | float)]


def what_was_done(known: Descriptions | None, runs: Mapping[str, Sequence[Run]]) -> dict[str, str]:
    """Return what was done, and at what cost, as headings and lines; what is not known is left out."""
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
    by = known.describers
    parts = [f"{known.descriptions:,} descriptions"]
    if any(one.tokens_in is not None or one.tokens_out is not None for one in by):
        tokens_in, tokens_out = sum(one.tokens_in or 0 for one in by), sum(one.tokens_out or 0 for one in by)
        parts.append(f"{tokens_in:,} tokens in, {tokens_out:,} out")
    prices = [one.cost_usd for one in by if one.cost_usd is not None]
    cost = sum(prices)
    parts.append("cost not recorded" if not prices else f"${cost:,.4f}" if cost < 1 else f"${cost:,.2f}")
    if 0 < len(prices) < len(by):
        parts.append(f"the cost of {len(prices)} of {len(by)} describers; the others recorded none")
    return "; ".join(parts)


def _training(runs: Sequence[Run]) -> dict[str, str]:
    models = dict.fromkeys(_model(run) for run in runs if run.config.get("model"))
    found = {"Model": " · ".join(models)} if models else {}
    if seconds := _numbers(runs, "seconds"):
        total = duration(sum(seconds))
        together = f"{len(seconds)} runs, {total} together" if len(seconds) > 1 else total
        devices = dict.fromkeys(str(run.environment["device"]) for run in runs if run.environment.get("device"))
        found["Training"] = together + (f", on {' · '.join(devices)}" if devices else "")
    return found


def _model(run: Run) -> str:
    size, weights = run.config.get("image_size"), run.run.get("parameters")
    parts = [str(run.config["model"])]
    parts += [f"{weights:,} weights"] if isinstance(weights, int) else []
    parts += [f"{size} x {size} pixels"] if size else []
    return ", ".join(parts)


def commands(known: Descriptions | None, runs: Sequence[Run], last: Sequence[str]) -> list[str]:
    """Return one command per stage: describe, encode and label where texts took part, then ``last``, those recorded.

    A stage without a record is left out, and so are targets whose file does not tell what they were made from. Texts
    that were imported have the command that imports them.
    """
    earlier = [] if any(WHOLE.match(command) for command in last) else _of_texts(known, runs)
    return list(dict.fromkeys([*earlier, *last]))


def _of_texts(known: Descriptions | None, runs: Sequence[Run]) -> Iterator[str]:
    table, labels, data = (
        next((str(found) for run in runs if (found := run.config.get(name))), "")
        for name in ("embeddings", "targets", "data")
    )
    if known is not None and known.store:
        for by in known.describers:
            spec = by.describer.partition(" (")[0]  # in brackets: in what describers of one name differ
            described = ["describe", "--data", data, "--store", known.store, "--describer", spec, "--prompt", by.prompt]
            yield _shell(*(described if ":" in spec else ("descriptions", "import", "FILE", "--store", known.store)))
        if table:
            long = [] if known.encoding.length_policy == "pool" else ["--long", "cut"]
            yield _shell("encode", "--store", known.store, "--encoder", known.encoding.encoder, *long, "--out", table)
    if labels and (made_from := LabelEvidence.of(Path(labels))):
        # The embedding table is called as the run calls it, if it is the same.
        tables = [table if table and str(Path(table).absolute()) == path else path for path in made_from.embeddings[:1]]
        options = {
            "--answers": made_from.answers,
            "--embeddings": "".join(tables),
            "--task": made_from.task.removeprefix("classification"),
            "--evidence": made_from.evidence.removeprefix("fused"),
            "--seed": str(made_from.seed or ""),
        }
        given = (word for name, value in options.items() if value for word in (name, value))
        yield _shell("label", "--data", data, *given, "--out", labels)


def _shell(*words: str) -> str:
    return shlex.join(["gpt4image", *words])
