"""Pages are consistent: links, names, commands, options, marked numbers. tests/test_docs.py runs them."""

import ast
import importlib
import json
import re

import pytest

from gpt4image import cli
from repository import DOCS, PAGES, ROOT, anchors, blocks, parse_commands

OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md", "THIRD_PARTY_NOTICES.md", "recipes/README.md")
ALL_TEXTS = [*PAGES, *(ROOT / name for name in OTHERS)]


def test_blocks_that_are_not_run_are_at_least_right_in_form(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)  # recipes are named from here
    for page, block in ((each, block) for each in PAGES for block in blocks(each) if block.not_run):
        if block.language == "bash":
            parse_commands(block, page, monkeypatch)
        else:
            compile(block.text, f"{page.name}, line {block.line}", "exec")


def test_the_index_of_the_log_has_every_entry() -> None:
    index, nav = ((ROOT / name).read_text("utf-8") for name in ("docs/research/log.md", "mkdocs.yml"))
    for page in (DOCS / "research" / "log").glob("*.md"):
        missing = [
            name for name in anchors(page) if name.startswith("2026") and f"(log/{page.name}#{name})" not in index
        ]
        assert f"log/{page.name}\n" in nav and missing == [], page


def test_the_docs_have_every_command_and_all_its_options() -> None:
    text = "\n".join(page.read_text(encoding="utf-8") for page in PAGES)
    named = set(re.findall(r"--(?:no-)?([a-z][a-z-]*[a-z])", text)) | {"as-json"}
    for name, command in cli.COMMANDS.items():
        fields = command.options.model_fields
        given = (each for each, field in fields.items() if "positional" not in field.metadata and not field.exclude)
        options = {each.replace("_", "-") for each in given}
        assert f"gpt4image {name}" in text and options - named == set(), name


def test_marked_numbers_are_those_of_the_records_and_guides_state_none_without_evidence(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.syspath_prepend(DOCS / "scripts")
    marks = importlib.import_module("records")
    for stale, right in {
        "9.9 %<!-- clothes/demo: no label: asked -->": "84.8 %",
        "9 of<!-- x -->, 1<!-- clothes/demo: no label: data/test -->": "9 of<!-- x -->, 372",
        "$9.99<!-- clothes/demo: demo/live_cost_usd -->": "$0.16",
        "+9.9 to +9.9<!-- clothes/expected-a-4: fused - asked interval -->": "−0.5 to +0.2",
        "9.9 %<!-- zeromatch/pictograms: zeromatch -->": "58.9 %",
        "9.9<!-- where-it-ends/weak: weak lite0 2000 true: accuracy -->": "72.0",
    }.items():
        assert marks.renewed(stale).rpartition("<!--")[0] == right
    for damaged in ("9 %<!-- clothes/demo: no label: nobody -->", "number<!-- clothes/demo: no label: asked -->"):
        with pytest.raises((KeyError, ValueError)):
            marks.renewed(damaged)
    free = "It reached 71.5 % at once."
    evident = ["See [log](research/log.md): 71.5 %.", "9.9 %<!-- clothes/demo: no label: asked -->", "```\n71.5 %\n```"]
    assert marks.without_evidence("\n\n".join([free, *evident])) == [free]
    rows = [f"| `openmoji-asked-0`, ten seeds | {mean} % |" for mean in (65.7, 65.8)]
    assert marks.false_rows("\n".join(rows)) == rows[1:]


def test_links_and_the_tests_and_files_that_pages_name_are_there() -> None:
    wrong: list[str] = []
    for page in ALL_TEXTS:
        text = page.read_text(encoding="utf-8")
        for target in re.findall(r"\]\((?![a-z]+:)([^)\s]+)\)", text):
            name, _, anchor = target.partition("#")
            linked = page.parent / name if name else page
            if not linked.exists() or (anchor and anchor not in anchors(linked)):
                wrong.append(f"{page.relative_to(ROOT).as_posix()} links to {target}")
        named = re.findall(r"`((?:tests|recipes|src)/[\w/.-]+)(?:::(\w+))?`", text)
        for name, test in named if page.parent.name != "log" else ():
            is_there = "NAME" in name or (ROOT / name).exists()
            if not is_there or (test and f"def {test}(" not in (ROOT / name).read_text(encoding="utf-8")):
                wrong.append(f"{page.relative_to(ROOT).as_posix()} names {name} {test}")
    assert wrong == []


def test_the_walk_of_the_design_page_names_what_its_files_define() -> None:
    walk = (DOCS / "design.md").read_text("utf-8").partition("## One photograph")[2].partition("\n## ")[0]
    named = re.findall(r"\[`(\w+)`\]\(\.\./([\w/.]+)\)", walk)
    assert len({file for _, file in named}) >= 10
    assert [
        one for one in named if not re.search(rf"^(def|class) {one[0]}\b", (ROOT / one[1]).read_text("utf-8"), re.M)
    ] == []


def test_the_messages_of_the_troubleshooting_page_are_those_of_the_package() -> None:
    page = (ROOT / "docs" / "troubleshooting.md").read_text(encoding="utf-8")
    messages = [m for m in re.findall(r"^\| `([^`]+)` \|", page, re.MULTILINE) if not m.startswith("gpt4image:")]
    said: list[str] = []  # {} stands for what is filled in
    for node in (
        node for file in (ROOT / "src").rglob("*.py") for node in ast.walk(ast.parse(file.read_text("utf-8")))
    ):
        parts = node.values if isinstance(node, ast.JoinedStr) else [node]
        said.append("".join(str(part.value) if isinstance(part, ast.Constant) else "{}" for part in parts))
    whole = "\n".join(said)
    assert len(messages) > 15 and [message for message in messages if message not in whole] == []


def test_the_notebook_keeps_the_outputs_of_a_whole_run_and_its_first_cell_installs_the_package() -> None:
    notebook = json.loads((ROOT / "examples" / "first_hour.ipynb").read_text(encoding="utf-8"))
    cells = [cell for cell in notebook["cells"] if cell["cell_type"] == "code"]
    assert [cell["execution_count"] for cell in cells] == list(range(1, len(cells) + 1))
    assert sum("image/png" in output.get("data", {}) for cell in cells for output in cell["outputs"]) == 3
    assert 'find_spec("gpt4image")' in "".join(cells[0]["source"])
