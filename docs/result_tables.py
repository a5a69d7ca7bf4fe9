"""Tables of results, made from the records in docs/research/records."""

from __future__ import annotations

import json
import tomllib
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

from gpt4image.artifacts.runs import Comparison, comparisons_in
from gpt4image.config.arms import ARMS
from gpt4image.pages.numbers import one_line, percent
from gpt4image.reporting.findings import HEADINGS, few_seeds_note, recovered, table_rows

FOLDER = Path(__file__).parent / "research" / "records"
REMOVED_AFTER = {
    "db2ec23b": {
        *("text-labels-aligned", "asked-self-training", "fused-self-training", "shuffled-within-class"),
        *("fused-class-name", "text-labels-shuffled", "text-labels-class-mean", "fused-shuffled", "boxes-shuffled"),
        *("fused-class-mean", "asked-shuffled", "tags", "boxes"),
    }
}
"""Arms that records have, by the last commit that has them; of others it is e326164."""
CLASSIFIER_V2 = {
    "cifar10-by-class",
    "cifar10-fine-tuned-4",
    "cifar10-vit-longer",
    "cifar10-vit-longer-10",
    "openmoji-demo-996",
    "openmoji-demo-answers",
    "openmoji-few-and-wrong-10-classifier",
}
"""Records whose text labels are of v2, the text classifier since b9b216b, beside those with answers; others have v1."""


@dataclass(frozen=True)
class Record:
    """A record: the page of its full tables, the dataset, model and length, and what else tells it from others."""

    page: str
    setup: str
    detail: str = ""


_INDEX = tomllib.loads((FOLDER / "index.toml").read_text("utf-8"))
PAGES: dict[str, str] = _INDEX["pages"]
"""Pages of full tables and their titles."""
RECORDS = {name: Record(*about) for name, about in _INDEX["records"].items()}
FULL = """Generated from [the records](../records/README.md) by `make docs`. Test accuracy, one value per seed.
Differences are to the baseline, in points, paired by seed. [Statistics](../statistics.md) explains the two p-values."""


@dataclass(frozen=True)
class Found:
    """One comparison on record: the name of its record, its setup and its content."""

    record: str
    setup: str
    content: dict[str, Any]

    @property
    def arms(self) -> dict[str, Any]:
        """Its arms by name."""
        return self.content["arms"]

    @property
    def seeds(self) -> int:
        """The number of its seeds."""
        return len(next(iter(self.arms.values()))["seeds"])

    @property
    def named(self) -> str:
        """Its setup and the name of its record."""
        return f"{self.setup}, `{self.record}`"

    @property
    def labels(self) -> str:
        """Which labels there are, or are right; empty where all are."""
        data = self.content["data"]
        if (kept := data["labels_per_class"]) is not None:
            return f"{kept} per class" if kept else "none"
        if noise := data["label_noise"]:
            return f"{100 * noise:.0f} % wrong" + (
                ", class-dependent" if data["noise_kind"] == "class-dependent" else ""
            )
        return ""

    def mean(self, arm: str) -> str:
        """Return the mean accuracy of an arm, or a dash; a star marks class names that were not centred."""
        if arm not in self.arms:
            return "–"
        about = self.arms[arm]["description"]
        plain = arm == "zero-shot" and "centred" not in about and "subtracted" not in about
        return percent(self.arms[arm]["mean"]) + (" *" if plain else "")


def records() -> dict[str, dict[str, Any]]:
    """Return the content of all records by name."""
    return {name: json.loads((FOLDER / f"{name}.json").read_text("utf-8")) for name in RECORDS}


@cache
def comparisons() -> list[Found]:
    """Return every comparison on record."""
    every: list[Found] = []
    for name, record in records().items():
        several = record.get("comparisons", {"": record})
        found = {part: Found(name, RECORDS[name].setup, content) for part, content in several.items()}
        labels = [comparison.labels for comparison in found.values()]
        for part, comparison in found.items():
            double = labels.count(comparison.labels) > 1
            every.append(replace(comparison, setup=f"{comparison.setup}, {part}") if double else comparison)
    return every


def table(columns: str, rows: list[list[str]]) -> str:
    """Return a Markdown table; columns are separated by bars, and those after the second are numbers."""
    head = [column.strip() for column in columns.split("|")]
    rule = ["---:" if number > 1 else "---" for number in range(len(head))]
    return "\n".join("| " + " | ".join(row).replace("<", "&lt;") + " |" for row in [head, rule, *rows])


def scarce() -> list[Found]:
    """Return the comparisons in which labels were few or wrong, by dataset and number of labels."""
    shown = [found for found in comparisons() if {"text-labels", "oracle"} <= found.arms.keys()]
    setups = list(dict.fromkeys(found.setup for found in shown))
    asked = ("label_noise", "noise_kind", "labels_per_class")
    return sorted(shown, key=lambda f: (setups.index(f.setup), *(f.content["data"][name] or 0 for name in asked)))


def nearest_names(found: Found) -> str:
    """Return the accuracy of the nearest class name, which reads no label.

    It may stand in a record of the same images, seeds and model: one whose runs of all labels are the same.
    """
    same = [other for other in [found, *comparisons()] if "zero-shot" in other.arms
            and other.arms.get("oracle", {}).get("test") == found.arms["oracle"]["test"]]  # fmt: skip
    if not same:
        return "–"
    return same[0].mean("zero-shot")


def scarce_table() -> str:
    """Return a row per comparison in which labels were few or wrong; runs that stand in two records have one row."""
    shown = {(f.setup, f.labels, *f.arms["text-labels"]["test"]): f for f in scarce()}
    rows = []
    for found in shown.values():
        is_v2 = found.record in CLASSIFIER_V2 or "-asked-" in found.record
        text_labels = found.mean("text-labels") + (" (v2)" if is_v2 else "")
        share = recovered(Comparison.model_validate(found.content), "text-labels")
        span = f"{found.mean('baseline')} to {found.mean('oracle')}"
        seeds = f"{found.labels}, {found.seeds} seeds"
        rows.append([found.named, seeds, span, nearest_names(found), text_labels, share.in_words() if share else "–"])
    columns = (
        "setup | labels, seeds | labels only to all labels | nearest class name | **text labels** | recovered (95 %)"
    )
    return table(columns, rows)


def asked_table() -> str:
    """Return a row per comparison in which a model learned from the classes that the describer answered."""
    rows = []
    for found in comparisons():
        if "asked" in found.arms:
            least, most = (found.mean(arm) for arm in ("baseline", "oracle"))
            span = " to ".join(mean for mean in (least, most) if mean != "–")
            seeds = f"{found.labels or 'all'}, {found.seeds} seeds"
            rows.append([found.named, seeds, span, *map(found.mean, ("text-labels", "asked", "fused"))])
    return table("setup | labels, seeds | labels only to all labels | texts | **answers** | answers and texts", rows)


def full_pages() -> dict[str, str]:
    """Return the pages of full tables by name: every record with its command."""
    content = records()
    pages: dict[str, str] = {}
    for page, title in PAGES.items():
        parts = [f"# {title}", FULL]
        for name, record in RECORDS.items():
            if record.page == page:
                title = ", ".join(filter(None, [record.setup, record.detail]))
                title += f": {name}"
                body = content[name]
                parts.append(f"## {title}\n\n{markdown_table(body)}\n`{body['command']}`{_where(body)}")
        pages[page] = "\n\n".join(parts) + "\n"
    return pages


def markdown_table(record: dict[str, Any]) -> str:
    """Return the tables of a comparison record (the content of comparison.json) as GitHub Markdown."""
    blocks: list[str] = []
    for name, comparison in comparisons_in(record).items():
        title, note = f"**{one_line(name)}**" if name else "", few_seeds_note(comparison).replace("*", "\\*")
        blocks += filter(None, [title, _markdown([HEADINGS, *table_rows(comparison)]), note])
    return "\n\n".join(blocks) + "\n"


def _markdown(rows: Sequence[Sequence[str]]) -> str:
    head, *others = rows
    lines = [head, ("---", *["---:"] * (len(head) - 1)), *others]
    cells = ((cell.replace("|", "\\|").replace("<", "&lt;") for cell in row) for row in lines)
    return "\n".join("| " + " | ".join(row) + " |" for row in cells)


def _where(record: dict[str, Any]) -> str:
    """Return where a command can be given whose record has arms that were removed, or whose recipes were."""
    own = {arm.get("arm", name) for each in record.get("comparisons", {"": record}).values()
           for name, arm in each["arms"].items()}  # fmt: skip
    gone = own - ARMS.keys()
    commit = next((commit for commit, arms in REMOVED_AFTER.items() if gone <= arms), "e326164")
    if gone:
        return f" (at commit {commit}, for arms that were removed)"
    recipes = (word for word in record["command"].split() if word.startswith("recipes/"))
    removed = not all((FOLDER.parents[2] / recipe).is_file() for recipe in recipes)
    return " (at commit ecad18fc, for recipes that were removed)" if removed else ""
