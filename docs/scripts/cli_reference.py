"""The command-line reference: every command and option, from the models that the command line is made of."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import get_origin

from pydantic.fields import FieldInfo
from pydantic_core import PydanticUndefined

from gpt4image import config
from gpt4image.commands import COMMANDS, Command
from gpt4image.config import StageConfig
from gpt4image.config.types import RARE
from gpt4image.options import metavar

BEFORE = """# Command line

Every command and option. Like `gpt4image COMMAND --help`, this page is generated from the models in
`src/gpt4image/config/`. Every command takes `--json`: print the result as one JSON object on standard output. The
[functions](../own-loop.md#commands-as-functions) of the same names take the same options as keywords.

Exit codes: 0 done; 1 finished with items skipped, which are named; 2 a mistake in the command or a file; 130
interrupted, everything finished is kept; 70 a bug."""

COMPARE = """`compare` takes the options of [train](#train) too, except `--seed`, `--resume`, `--checkpoint-seconds` and
`--targets`, which it sets itself."""


def page() -> str:
    """Return the whole reference as Markdown."""
    return "\n\n".join([BEFORE, *(section(name, command) for name, command in COMMANDS.items())]) + "\n"


def section(name: str, command: Command) -> str:
    """Return what one command does, how it is called and its options."""
    model = command.options
    about, _, example = " ".join((model.__doc__ or "").split()).partition("Example: ")
    fields = model.written()
    parts = [f"## {name}", about.strip(), f"<!-- not run: an example -->\n```bash\n{example.strip()}\n```"]
    if "recipes" in command.traits:
        parts.append("Options may stand in a [recipe](../train.md#recipes), given before the options.")
    if name == "compare":
        shared = config.TrainConfig.model_fields.keys() & fields.keys() - {"out"}
        fields = {key: field for key, field in fields.items() if key not in shared}
        parts.append(COMPARE)
    rare = {key: field for key, field in fields.items() if RARE in field.metadata}
    usual = {key: field for key, field in fields.items() if key not in rare}
    tables = [*groups(model, usual), *([("Not in the help: keys of recipes, mostly", list(rare))] if rare else [])]
    for title, options in tables:
        rows = ["| option | default | meaning |", "|---|---|---|", *(row(model, key, fields[key]) for key in options)]
        parts += [f"**{title}**"] if title else []
        parts.append("\n".join(rows))
    return "\n\n".join(parts)


def groups(model: type[StageConfig], fields: dict[str, FieldInfo]) -> Iterator[tuple[str, list[str]]]:
    """Yield options by the class that defines them, its own first; a single group has no title."""
    bases = [base for base in model.__mro__ if issubclass(base, StageConfig)]
    own = {base: [key for key in fields if key in base.__annotations__] for base in bases}
    found = [(base, keys) for base, keys in own.items() if keys]
    for base, keys in found:
        title = "Its own" if base is model else " ".join((base.__doc__ or "").split()).rstrip(".")
        yield ("" if len(found) == 1 else title), keys


def row(model: type[StageConfig], name: str, field: FieldInfo) -> str:
    """Return one option as a row of a table."""
    flag, several = model.option(name), "..." if get_origin(field.annotation) is tuple else ""
    if flag.isupper():
        shown = flag + several
    elif field.annotation is bool:
        shown = f"{flag}`, `--no-{flag[2:]}" if field.default is True else flag
    else:
        shown = f"{flag} {metavar(model, name)}{several}"
    meaning = " ".join((field.description or "").split())
    cells = [f"`{shown}`", default_of(field), meaning]
    return (
        "| " + " | ".join(cell.replace("|", "\\|").replace("<", "&lt;").replace("*.", "\\*.") for cell in cells) + " |"
    )


def default_of(field: FieldInfo) -> str:
    """Return a default as it would be given; a required option says so, and one without a value has none."""
    default = field.get_default(call_default_factory=True)
    if default is PydanticUndefined:
        return "required"
    if default is None or default in ("", (), {}):
        return ""
    if isinstance(default, bool):
        return "on" if default else "off"
    if isinstance(default, float):
        return f"{default:g}"
    text = " ".join(map(str, default)) if isinstance(default, tuple) else str(default)
    return json.dumps(text, ensure_ascii=False)[1:-1] if len(text) < 40 else "see `--help`"
