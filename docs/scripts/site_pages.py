"""A hook of MkDocs: pages of the site that do not lie in docs/, and links that lead to or from them.

Pages are written for GitHub, where links go by paths of the repository. On the site texts from elsewhere in the
repository get a page of their own, the API reference is made of docstrings, and a link to what is no page (source, a
folder) becomes plain text.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from pathlib import Path
from posixpath import dirname, join, normpath, relpath
from typing import Any

from mkdocs.structure.files import File, Files

import gpt4image
from gpt4image.commands import COMMANDS

ROOT = Path(__file__).resolve().parents[2]
ELSEWHERE = {
    "CHANGELOG.md": "changelog.md",
    "CONTRIBUTING.md": "contributing.md",
    "THIRD_PARTY_NOTICES.md": "notices.md",
    "recipes/README.md": "recipes.md",
}
"""Texts outside docs/ and their pages on the site."""


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
    """Return the pages of the API reference: the public names, the losses among them, and the stages."""
    modules = gpt4image._MODULE_OF
    losses = [name for name, module in modules.items() if module == "models.alignment_losses"]
    names = [name for name, module in modules.items() if module != "commands" and name not in losses]
    return {
        "api/names.md": _page("Public names", NAMES, map(_public, names)),
        "api/losses.md": _page("Losses", ALIGN, map(_public, losses)),
        "api/stages.md": _page("Stages", STAGES, (_stage(name) for name in COMMANDS)),
    }


NAMES = "All of them are imported from `gpt4image`. For a training loop of your own see [the guide](../own-loop.md)."
ALIGN = (
    "::: gpt4image.models.alignment_losses\n"
    "    options: {members: false, show_root_heading: false, show_root_toc_entry: false}"
)
STAGES = (
    "Every command except `descriptions` is a function with its options as keywords, "
    "`gpt4image.train(data=..., out=...)`: see [commands as functions](../own-loop.md#commands-as-functions) and the "
    "[options](../reference/cli.md). Behind each stands a stage, a function of its configuration, "
    "`train(TrainConfig(data=..., out=...))`, which returns an [Outcome](names.md#gpt4image.base.outcome.Outcome)."
)


def _page(title: str, about: str, entries: Iterable[str]) -> str:
    return "\n\n".join([f"# {title}", about, *entries])


def _public(name: str) -> str:
    return f"::: gpt4image.{gpt4image._MODULE_OF[name]}.{name}\n    options: {{heading_level: 2}}"


def _stage(name: str) -> str:
    command = COMMANDS[name]
    stage = command.stage.replace(":", ".")
    return f"## {name}\n\n::: gpt4image.{stage}\n\n::: {command.options.__module__}.{command.options.__name__}"
