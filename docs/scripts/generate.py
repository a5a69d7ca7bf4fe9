"""Fill the generated parts of README.md and docs/: results of records, options of config/, the tree of docstrings.

python docs/scripts/generate.py          rewrites them
python docs/scripts/generate.py --check  exits with 1 where one is not up to date
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import cli_reference
import licences
import plots
import records
import tables

ROOT = Path(__file__).resolve().parents[2]
DOCS = ROOT / "docs"
PACKAGE = ROOT / "src" / "gpt4image"


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


PARTS: dict[str, Callable[[], str]] = {
    "overview": tables.overview,
    "front-table": tables.front,
    "asked": tables.asked,
    "scale": tables.scale,
    "tree": tree,
    "no-address": lambda: NO_ADDRESS if "/OWNER/" in address() else "",
}
"""Parts of pages, by the comments that they stand between."""


NO_ADDRESS = (
    "`OWNER` is a placeholder: there is no public address yet. In a copy that you have, begin with `make demo`."
)
SHOW_THE_ADDRESS = (
    "README.md",
    "SECURITY.md",
    "CITATION.cff",
    ".github/ISSUE_TEMPLATE/config.yml",
    "examples/first_hour.ipynb",
)
"""Files that name the repository, whose address stands in pyproject.toml."""


GUIDES = sorted(DOCS.glob("*.md"))


def address() -> str:
    """Return the repository's address, which stands in pyproject.toml."""
    return tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]["urls"]["Repository"]


def addressed(text: str) -> str:
    """Return a text with the repository's address of today."""
    name = address().removeprefix("https://github.com/")
    return re.sub(r"(?<=github\.com/|com/github/)[\w.-]+/gpt4image\b", name, text)


def filled(text: str) -> str:
    """Return a page with its generated parts and its marked numbers renewed."""
    for name, content in PARTS.items():
        if f"<!-- {name} -->" in text:
            pattern = rf"(<!-- {name} -->\n).*?(<!-- /{name} -->)"
            new = content()
            text = re.sub(pattern, lambda found, new=new: f"{found[1]}{new}\n{found[2]}", text, flags=re.DOTALL)
    return records.renewed(text)


def pages() -> dict[Path, str]:
    """Return all generated pages, and all pages with generated parts, as they should be."""
    partly = [
        *(ROOT / name for name in SHOW_THE_ADDRESS),
        *GUIDES,
        DOCS / "reference" / "modules.md",
        DOCS / "research" / "results.md",
        DOCS / "research" / "log" / "limits.md",
        DOCS / "research" / "log" / "scale.md",
    ]
    reference = {"cli": cli_reference.page(), "licences": licences.page()}
    full = {DOCS / "reference" / f"{name}.md": text for name, text in reference.items()}
    return {path: addressed(filled(path.read_text(encoding="utf-8"))) for path in partly} | full


def main() -> int:
    """Rewrite or check the pages and plots."""
    check = "--check" in sys.argv
    wanted = pages()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    if not check:
        for path in stale:
            path.write_text(wanted[path], encoding="utf-8")
    stale += plots.stale(renew=not check)
    if stale and check:
        print(f"{', '.join(path.relative_to(ROOT).as_posix() for path in stale)} not up to date: run `make docs`.")
        return 1
    unmarked = "states a measured number without a mark (docs/scripts/records.py) or a link to the log"
    faults = [(page, unmarked, block) for page in GUIDES for block in records.without_evidence(wanted[page])]
    rows = [(page, row) for page in wanted if page.suffix == ".md" for row in records.false_rows(wanted[page])]
    faults += [(page, "states a number that the record of its row does not have", row) for page, row in rows]
    for page, fault, text in faults:
        print(f"{page.name} {fault}: {text}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
