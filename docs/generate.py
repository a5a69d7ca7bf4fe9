"""Fill the generated parts of README.md and docs/: results of records, options of config/, the tree of docstrings.

python docs/generate.py          rewrites them
python docs/generate.py --check  exits with 1 where one is not up to date
"""

from __future__ import annotations

import ast
import re
import sys
import tomllib
from collections.abc import Callable
from pathlib import Path

import cli_reference
import ends_plot
import front_page
import licences
import plots
import python_stub
import record_marks
import result_tables as results
import scale_plot
import weak_answers_plot

ROOT = Path(__file__).resolve().parents[1]
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
    "overview": lambda: front_page.overview(results.FOLDER),
    "front-table": lambda: front_page.table(results.FOLDER),
    "asked": results.asked_table,
    "scarce": results.scarce_table,
    "scale": scale_plot.table,
    "where-it-ends": ends_plot.table,
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
    return record_marks.renewed(text)


def pages() -> dict[Path, str]:
    """Return all generated pages, and all pages with generated parts, as they should be."""
    partly = [
        *(ROOT / name for name in SHOW_THE_ADDRESS),
        *GUIDES,
        DOCS / "reference" / "modules.md",
        DOCS / "research" / "results.md",
        DOCS / "research" / "log" / "limits.md",
        DOCS / "research" / "log" / "scale.md",
        DOCS / "research" / "log" / "2026-12-01-where-it-ends.md",
    ]
    full = {DOCS / "research" / "results" / f"{name}.md": text for name, text in results.full_pages().items()}
    reference = {"cli": cli_reference.page(), "licences": licences.page()}
    full |= {DOCS / "reference" / f"{name}.md": text for name, text in reference.items()}
    full[PACKAGE / "__init__.pyi"] = python_stub.page()
    return {path: addressed(filled(path.read_text(encoding="utf-8"))) for path in partly} | full


def main() -> int:
    """Rewrite or check the pages."""
    wanted = pages()
    stale = [path for path, text in wanted.items() if not path.exists() or path.read_text(encoding="utf-8") != text]
    drawn = {plot.PLOT: plot for plot in (front_page, scale_plot, ends_plot, weak_answers_plot)}
    stale += [path for path, plot in drawn.items() if not plots.is_current(path, plot.points(results.FOLDER))]
    if stale and "--check" in sys.argv:
        print(f"{', '.join(path.relative_to(ROOT).as_posix() for path in stale)} not up to date: run `make docs`.")
        return 1
    for path in stale:
        path.parent.mkdir(exist_ok=True)
        if path in drawn:
            drawn[path].draw(results.FOLDER)
        else:
            path.write_text(wanted[path], encoding="utf-8")
    unmarked = "states a measured number without a mark (docs/record_marks.py) or a link to the log"
    faults = [(page, unmarked, block) for page in GUIDES for block in record_marks.without_evidence(wanted[page])]
    rows = [(page, row) for page in wanted if page.suffix == ".md" for row in record_marks.false_rows(wanted[page])]
    faults += [(page, "states a number that the record of its row does not have", row) for page, row in rows]
    for page, fault, text in faults:
        print(f"{page.name} {fault}: {text}")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
