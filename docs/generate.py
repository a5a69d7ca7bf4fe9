"""Fill the generated parts of README.md and docs/: results from docs/results, the file tree from docstrings.

python docs/generate.py          rewrites them
python docs/generate.py --check  exits with 1 where one is not up to date
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path
from typing import Any

from gpt4image.reporting.findings import markdown_table, percent

ROOT = Path(__file__).resolve().parents[1]
RECORDS = {
    "openmoji": "1,007 OpenMoji pictograms, 18 categories (`make demo`, 3 seeds)",
    "cifar10": "2,000 CIFAR-10 photographs, 10 classes, 5 seeds",
}
PACKAGE = ROOT / "src" / "gpt4image"


SUMMARY = ("baseline", "aligned", "zero-shot", "self-training", "fixmatch", "text-labels", "oracle")
"""Arms of the short table; the full tables hold all."""


def records() -> dict[str, dict[str, Any]]:
    """Return the records of all comparisons by title."""
    folder = ROOT / "docs" / "results"
    return {title: json.loads((folder / f"{name}.json").read_text("utf-8")) for name, title in RECORDS.items()}


def full_tables() -> str:
    """Return the tables of every record, with its title and command."""
    return "\n\n".join(
        f"## {title}\n\n{markdown_table(record)}\n`{record['command']}`" for title, record in records().items()
    )


def short_table() -> str:
    """Return one row per comparison in which labels were scarce or wrong: mean accuracy of the arms that matter."""
    lines = [
        "| training set | labels | labels only | aligned (the paper) | nearest class name | self-training | FixMatch "
        "| **text labels** | all labels | recovered |",
        "| --- | --- | " + " | ".join(["---:"] * (len(SUMMARY) + 1)) + " |",
    ]
    for title, record in records().items():
        for comparison in record.get("comparisons", {"": record}).values():
            arms, data = comparison["arms"], comparison["data"]
            if not {"text-labels", "oracle"} <= arms.keys():
                continue
            mean = {arm: arms[arm]["mean"] if arm in arms else None for arm in SUMMARY}
            gap = mean["oracle"] - mean["baseline"]
            kept, noise = data["labels_per_class"], data["label_noise"]
            cells = [title.partition(", ")[0], f"{kept} a class" if kept else f"{100 * noise:.0f} % wrong"]
            cells += [percent(mean[arm]) for arm in SUMMARY]
            cells.append(f"{100 * (mean['text-labels'] - mean['baseline']) / gap:.0f} %")
            lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def about(module: Path) -> str:
    """Return the first line of a module's docstring."""
    sentence = ast.get_docstring(ast.parse(module.read_text(encoding="utf-8"))) or ""
    return sentence.partition("\n")[0].replace("`", "").removesuffix(".")


def tree(folder: Path = PACKAGE, depth: int = 1) -> str:
    """Return every module below a folder with the first line of its docstring: modules first, then packages."""
    lines = ["```text", "src/gpt4image/"] if folder == PACKAGE else []
    for module in sorted(folder.glob("*.py")):
        if folder == PACKAGE or module.name != "__init__.py":
            lines.append(f"{'  ' * depth + module.name:30} {about(module)}")
    for package in sorted(path.parent for path in folder.glob("*/__init__.py")):
        lines.append(f"{'  ' * depth + package.name + '/':30} {about(package / '__init__.py')}")
        lines.append(tree(package, depth + 1))
    return "\n".join([*filter(None, lines), *(["```"] if folder == PACKAGE else [])])


def filled(text: str) -> str:
    """Return a page with its generated parts renewed."""
    for name, content in (("results", short_table), ("full-results", full_tables), ("tree", tree)):
        if f"<!-- {name} -->" in text:
            pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
            new = content()
            text = re.sub(pattern, lambda found, new=new: f"{found[1]}{new}\n{found[2]}", text, flags=re.DOTALL)
    return text


def main() -> int:
    """Rewrite or check the pages."""
    stale = []
    for path in (ROOT / "README.md", ROOT / "docs" / "results.md", ROOT / "docs" / "design.md"):
        before = path.read_text(encoding="utf-8")
        after = filled(before)
        if before == after:
            continue
        stale.append(path.name)
        if "--check" not in sys.argv:
            path.write_text(after, encoding="utf-8")
    if stale and "--check" in sys.argv:
        print(f"{', '.join(stale)} not up to date: run `make docs`.")
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
