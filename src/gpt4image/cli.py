"""The command line: parse the words of a command, run its stage and print the result. No logic lives here.

A stage's module is imported when the stage runs, so that start-up and help load nothing heavy.
"""

import contextlib
import io
import json
import os
import sys
import traceback
from collections.abc import Generator, Sequence
from pathlib import Path
from typing import Any

from gpt4image import __version__
from gpt4image.base.errors import ConfigError, Gpt4ImageError, first_few, nearest
from gpt4image.base.files import FULL
from gpt4image.base.interrupts import ended_like_ctrl_c
from gpt4image.base.outcome import MOST_NAMED, Outcome, as_json, as_text
from gpt4image.base.secrets import hidden
from gpt4image.base.visible import visible
from gpt4image.commands import COMMANDS
from gpt4image.config.base import flag_of
from gpt4image.options import help_text, parse, read_recipe
from gpt4image.parallel import launch

OK, ITEMS_SKIPPED, USER_MISTAKE, CRASH, INTERRUPTED = 0, 1, 2, 70, 130  # 70: EX_SOFTWARE of sysexits.h
BUG = "This is a bug of gpt4image, not a mistake of yours: please report it with the lines above and the command."


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; of several processes that share it, only the first one prints.

    0 is done, 1 items skipped, 2 a user's mistake, 70 a bug of this package, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):  # avoid UnicodeEncodeError
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    words = list(sys.argv[1:] if argv is None else argv)
    with launch.only_first_speaks(), ended_like_ctrl_c():
        try:
            code = _dispatch(words)
            sys.stdout.flush()  # here, where a failure can still be told
        except BrokenPipeError:  # closed by its reader, such as head
            code = OK
        except KeyboardInterrupt:
            print(_interrupted(words), file=sys.stderr)
            code = INTERRUPTED
        except (Exception, SystemExit) as error:  # noqa: BLE001  (0 and 1 say that it finished, a bug has its own code)
            said = _explained(error, words)
            print(f"Error: {said}" if said else f"{hidden(traceback.format_exc())}{BUG}", file=sys.stderr)
            code = USER_MISTAKE if said else CRASH
        try:
            sys.stdout.flush()
        except OSError:  # Python would fail at its end, too
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return code


def _explained(error: BaseException, words: list[str]) -> str:
    """Return what a user can mend, in one sentence; "" where it is a bug."""
    if isinstance(error, ConfigError):
        name, _ = _split(words)
        return visible(hidden(error.worded(COMMANDS[name].options.option if name in COMMANDS else flag_of)))
    if isinstance(error, Gpt4ImageError):
        return visible(hidden(str(error)))
    if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):
        where = "" if error.filename is None else f"{visible(str(error.filename))}: "
        space = "free some space, or " if error.errno in FULL else ""
        return f"{where}{error.strerror}; {space}choose a place that can be read or written."
    if type(error).__name__ in ("OutOfMemoryError", "MemoryError"):  # torch's, which is not loaded for this
        gpu = type(error).__name__ == "OutOfMemoryError"
        return (
            f"{'the GPU' if gpu else 'this machine'} has too little memory "
            f"({' '.join(str(error).split('. If reserved')[0].split())[:300]}). What was finished is kept. "
            f"Take less at once, by the options of `gpt4image {words[0]} --help` that name a batch or a size "
            "(train: --batch-size with --grad-accumulation)"
            + (", see by nvidia-smi who else uses it, or give --device cpu." if gpu else ", or end other programs.")
        )
    return ""


def _split(words: list[str]) -> tuple[str, list[str]]:
    """Return the name of the command, and the words after it."""
    count = 2 if any(name.startswith(f"{words[0]} ") for name in COMMANDS) else 1
    return " ".join(words[:count]), words[count:]


def _dispatch(words: list[str]) -> int:
    if words[:1] == ["help"]:
        words = [*words[1:], "--help"]
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return OK
    if words[0] == "--version":
        print(f"gpt4image {__version__}")
        return OK
    name, options = _split(words)
    if name in COMMANDS and (wanted := {"-h", "--help", "--help-all"} & {*options}):
        print(help_text(_usage(name), COMMANDS[name].options, everything="--help-all" in wanted))
        return OK
    if name in COMMANDS:
        return _run(name, options)
    if words[1:] in ([], ["-h"], ["--help"]) and any(each.startswith(f"{words[0]} ") for each in COMMANDS):
        print(_overview(words[0]))
        return OK
    _, found, hint = nearest(name, COMMANDS).partition("Did you mean ")
    print(f"Unknown command {name!r}. {found}{hint}{' ' * bool(found)}`gpt4image --help` lists all.", file=sys.stderr)
    return USER_MISTAKE


def _interrupted(words: list[str]) -> str:
    name, options = _split(words)
    if name not in COMMANDS or "resumes" not in COMMANDS[name].traits:
        return "Interrupted; no partial file is left. Give the same command again to start over."
    refuses = "resume" in COMMANDS[name].options.model_fields and "--resume" not in options
    again = "the same command again" + (" with --resume" if refuses else "")
    return f"Interrupted; what was finished is kept. Give {again} to go on."


def _run(name: str, words: list[str]) -> int:
    command = COMMANDS[name]
    if launch.count() > 1 and "shared" not in command.traits:
        shared = " and ".join(known for known, other in COMMANDS.items() if "shared" in other.traits)
        raise ConfigError(
            f"{name} was started in {launch.count()} processes, but runs in one (and starts others itself where that "
            f"helps): start it without torchrun or accelerate launch. Processes can share {shared}."
        )
    recipes: list[str] = []
    while "recipes" in command.traits and words and words[0].endswith(".toml"):
        recipes.append(words.pop(0))
    if len(recipes) > 1 and name != "compare":
        raise ConfigError(f"{name} takes one recipe, not {first_few(recipes)}; give the command once for each.")
    given = [read_recipe(Path(recipe), command.options) for recipe in recipes] or [{}]
    parsed = [parse(_usage(name), command.options, words, recipe) for recipe in given]
    options, to_json = [each for each, _ in parsed], parsed[0][1]
    if to_json and name == "predict" and options[0].out is None:
        raise ConfigError("--json needs a file for the predictions, --out FILE; as JSON they are --format jsonl.")
    try:
        with _alone_on_stdout() if to_json else contextlib.nullcontext():
            outcome = command.run(*options, **({"names": _names(recipes)} if len(recipes) > 1 else {}))
    except KeyboardInterrupt as stop:
        if stop.args and isinstance(stop.args[0], Outcome):  # a person ended it so, as they end review
            _print(name, options[0], stop.args[0], to_json=to_json)
        raise
    _print(name, options[0], outcome, to_json=to_json)
    return ITEMS_SKIPPED if outcome.skipped else OK


@contextlib.contextmanager
def _alone_on_stdout() -> Generator[None]:
    """Send what others print in the block (plug-ins, libraries, their processes) to standard error."""
    sys.stdout.flush()
    kept = os.dup(1)
    os.dup2(2, 1)
    try:
        with contextlib.redirect_stdout(sys.stderr):
            yield
    finally:
        sys.stdout.flush()
        os.dup2(kept, 1)
        os.close(kept)


def _names(recipes: list[str]) -> list[str]:
    paths = [Path(recipe) for recipe in recipes]
    alike = len({path.stem for path in paths}) < len(paths)
    return [f"{path.resolve().parent.name}-{path.stem}" if alike else path.stem for path in paths]


def _print(name: str, options: Any, outcome: Outcome, *, to_json: bool) -> None:
    from gpt4image.next_step import next_step

    step = next_step(name, options, outcome)
    if to_json:
        print(json.dumps(as_json(outcome) | {"next": step}, indent=1, default=str))
        return
    if text := "\n".join(filter(None, [as_text(outcome), f"next: {visible(step)}" if step else ""])):
        print(text)
    if outcome.skipped:
        print(f"\n{len(outcome.skipped)} skipped:", file=sys.stderr)
        for item in outcome.skipped[:MOST_NAMED]:
            print(f"  {item.name!r}: {visible(item.reason)}", file=sys.stderr)
        if len(outcome.skipped) > MOST_NAMED:
            print(f"  and {len(outcome.skipped) - MOST_NAMED} more (--json lists them all)", file=sys.stderr)


def _usage(name: str) -> str:
    return f"gpt4image {name}" + (" [RECIPE.toml]" if "recipes" in COMMANDS[name].traits else "")


def _overview(prefix: str = "") -> str:
    rows = [f"  {name:22}{command.about}" for name, command in COMMANDS.items() if name.startswith(prefix)]
    return "\n".join(
        [
            "usage: gpt4image COMMAND [OPTIONS]",
            "",
            "Move what large multimodal models know into a small vision model as it trains.",
            "",
            *rows,
            "",
            "gpt4image COMMAND --help shows the options of a command, with an example.",
            "Start with: gpt4image demo",
        ]
    )


if __name__ == "__main__":
    sys.exit(main())
