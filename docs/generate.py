"""Fill the generated parts of README.md: results from docs/results, the file tree from module docstrings.

python docs/generate.py          rewrites README.md
python docs/generate.py --check  exits with 1 where it is not up to date
"""

from __future__ import annotations

import ast
import json
import re
import sys
from pathlib import Path

from gpt4image.findings import markdown_table

ROOT = Path(__file__).resolve().parents[1]
RECORDS = {
    "openmoji": "1,007 OpenMoji pictograms, 18 categories (`make demo`, 3 seeds)",
    "cifar10": "2,000 CIFAR-10 photographs, 10 classes, 5 seeds",
}
PACKAGE = ROOT / "src" / "gpt4image"
FOLDERS = {
    "recipes": "one TOML per experiment: command, hardware, time, expected numbers",
    "examples": "the three lines in a plain PyTorch loop",
    "benchmarks": "speed as ratios to the physical limit",
    "tests": "mirror src/, real components",
    "docs": "guide per stage, design, log, records of results",
}


def results() -> str:
    """Return the tables of every record, with its title and command."""
    parts = []
    for name, title in RECORDS.items():
        record = json.loads((ROOT / "docs" / "results" / f"{name}.json").read_text(encoding="utf-8"))
        parts.append(f"### {title}\n\n{markdown_table(record)}\n`{record['command']}`")
    return "\n\n".join(parts)


def tree() -> str:
    """Return every module with the first line of its docstring."""
    lines = ["```", "src/gpt4image/"]
    for path in sorted(PACKAGE.rglob("*.py"), key=lambda p: (len(p.relative_to(PACKAGE).parts) > 1, p)):
        name = path.relative_to(PACKAGE).as_posix()
        about = ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""
        sentence = about.partition("\n")[0].replace("`", "").removesuffix(".")
        lines.append(f"  {name:46} {sentence}")
    lines += [f"{name + '/':48} {about}" for name, about in FOLDERS.items()]
    return "\n".join([*lines, "```"])


def filled(text: str) -> str:
    """Return the README with its generated parts renewed."""
    for name, content in (("results", results()), ("tree", tree())):
        pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
        text = re.sub(pattern, lambda found, content=content: f"{found[1]}{content}\n{found[2]}", text, flags=re.DOTALL)
    return text


def main() -> int:
    """Rewrite or check README.md."""
    path = ROOT / "README.md"
    before = path.read_text(encoding="utf-8")
    after = filled(before)
    if "--check" in sys.argv:
        if before != after:
            print("README.md is not up to date: run `make docs`.")
        return int(before != after)
    path.write_text(after, encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
