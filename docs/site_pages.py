"""A hook of MkDocs: pages of the site that do not lie in docs/, and links that lead to or from them.

Pages are written for GitHub, where links go by paths of the repository. On the site texts from elsewhere in the
repository get a page of their own, the API reference is made of docstrings, and a link to what is no page (source, a
folder) becomes plain text.
"""

from __future__ import annotations

import re
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

import gpt4image
from gpt4image.cli import COMMANDS

ROOT = Path(__file__).resolve().parents[1]
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "THIRD_PARTY_NOTICES.md": "notices.md",
    "recipes/README.md": "recipes.md",
}
"""Texts outside docs/ and their pages on the site."""

LOOP = ("Aligner", "DescribedImages", "Alignment", "FurtherTexts", "gradient_ratio", "create_backbone")
DATA = ("load_image_set", "ImageSet", "DescriptionStore", "EmbeddingTable", "TextLabels", "Outcome", "Gpt4ImageError")


def on_files(files: Files, config: Any) -> Files:
    """Add the pages that do not lie in docs/."""
    pages = {page: (ROOT / path).read_text(encoding="utf-8") for path, page in ELSEWHERE.items()}
    for page, text in (pages | api_pages()).items():
        files.append(File.generated(config, page, content=text))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Turn the links of a page, which are those of the repository, into links of the site."""
    uri = page.file.src_uri
    if uri.startswith("api/"):
        return markdown
    source = next((path for path, own in ELSEWHERE.items() if own == uri), f"docs/{uri}")

    def of_site(link: re.Match[str]) -> str:
        text, target, anchor = link.groups()
        path = normpath(join(dirname(source), target))
        if path == "README.md":
            path = "docs/index.md"
        if path not in ELSEWHERE and not (path.startswith("docs/") and (ROOT / path).is_file()):
            return text
        own = ELSEWHERE.get(path) or path.removeprefix("docs/")
        return f"[{text}]({relpath(own, dirname(uri) or '.')}{anchor or ''})"

    parts = re.split(r"(^```.*?^```$)", markdown, flags=re.MULTILINE | re.DOTALL)
    link = r"\[([^\]]*)\]\((?![a-z]+:|#)([^)#\s]+)(#[^)\s]*)?\)"
    return "".join(part if part.startswith("```") else re.sub(link, of_site, part) for part in parts)


def api_pages() -> dict[str, str]:
    """Return the pages of the API reference: what is public, in the order in which people meet it."""
    losses = [name for name, module in gpt4image._MODULE_OF.items() if module == "align" and name != "LOSSES"]
    return {
        "api/loop.md": _page("In your own loop", "See [the guide](../own-loop.md).", map(_public, LOOP)),
        "api/losses.md": _page("Losses", "See [the guide](../train.md#the-alignment-losses).", _losses(losses)),
        "api/data.md": _page("Data", "What stages read and write.", map(_public, DATA)),
        "api/stages.md": _page("Stages", STAGES, (_stage(name) for name in COMMANDS)),
    }


STAGES = (
    "Every command of the command line is a function of its configuration: "
    "`train(TrainConfig(data=..., out=...))`, which returns an [Outcome](data.md#gpt4image.outcome.Outcome)."
)


def _page(title: str, about: str, entries: Any) -> str:
    return "\n\n".join([f"# {title}", about, *entries])


def _reference(path: str, **options: Any) -> str:
    lines = [f"        {name}: {str(value).lower()}" for name, value in options.items()]
    return "\n".join([f"::: {path}", *(["    options:", *lines] if lines else [])])


def _public(name: str) -> str:
    return _reference(f"gpt4image.{gpt4image._MODULE_OF[name]}.{name}", heading_level=2)


def _losses(names: list[str]) -> list[str]:
    module = _reference("gpt4image.align", members="false", show_root_heading="false", show_root_toc_entry="false")
    return [module, *map(_public, [*names, "LOSSES"])]


def _stage(command: str) -> str:
    stage = _reference(f"gpt4image.{COMMANDS[command].stage.replace(':', '.')}")
    return f"## {command}\n\n{stage}\n\n{_reference(f'gpt4image.config.{COMMANDS[command].config}')}"
