"""The commands that lead to a run or a comparison, from describing on, as far as records tell them."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path

from gpt4image.artifacts.label_evidence import LabelEvidence
from gpt4image.artifacts.run_records import Run
from gpt4image.reporting.extras import Descriptions

WHOLE = re.compile(r"gpt4image (demo|distill)\b")
"""Commands that go through all stages."""


def commands(known: Descriptions | None, runs: Sequence[Run], last: Sequence[str]) -> list[str]:
    """Return one command per stage: describe, encode and label where texts took part, then ``last``, those recorded.

    A stage without a record is left out, and so are labels whose file does not tell what they were made from. Texts
    that were imported have the command that imports them.
    """
    if any(WHOLE.match(command) for command in last):
        return list(dict.fromkeys(last))
    return list(dict.fromkeys([*_of_texts(known, runs), *last]))


def _of_texts(known: Descriptions | None, runs: Sequence[Run]) -> Iterator[str]:
    options = [run.config for run in runs]
    table = next((str(found) for config in options if (found := config.get("embeddings"))), "")
    labels = next((str(found) for config in options if (found := config.get("text_labels"))), "")
    data = next((str(found) for config in options if (found := config.get("data"))), "")
    if known is not None and known.store:
        for by in known.describers:
            spec = by.describer.partition(" (")[0]  # in brackets: in what describers of one name differ
            described = ["describe", "--data", data, "--store", known.store, "--describer", spec, "--prompt", by.prompt]
            yield _shell(*(described if ":" in spec else ("descriptions", "import", "FILE", "--store", known.store)))
        if table:
            long = [] if known.encoding.length_policy == "pool" else ["--long", "cut"]
            yield _shell("encode", "--store", known.store, "--encoder", known.encoding.encoder, *long, "--out", table)
    if labels and (made_from := LabelEvidence.of(Path(labels))):
        yield _shell("label", "--data", data, *_evidence(made_from, table), "--out", labels)


def _evidence(made_from: LabelEvidence, table: str) -> Iterator[str]:
    """Yield the options by which labels were made; their embedding table as the run calls it, if it is the same."""
    if made_from.answers:
        yield from ("--answers", made_from.answers)
    for path in made_from.embeddings[:1]:
        yield from ("--embeddings", table if table and str(Path(table).absolute()) == path else path)
    if made_from.task != "classification":
        yield from ("--task", made_from.task)
    if made_from.evidence != "fused":
        yield from ("--evidence", made_from.evidence)
    if made_from.seed:
        yield from ("--seed", str(made_from.seed))


def _shell(*words: str) -> str:
    return shlex.join(["gpt4image", *words])
