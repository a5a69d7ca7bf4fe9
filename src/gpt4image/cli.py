"""The command line: one sub-command per verb, options generated from config/. No logic lives here.

Start-up imports nothing heavy; a stage's module is imported when the stage runs.
"""

from __future__ import annotations

import contextlib
import importlib
import io
import json
import os
import sys
from collections.abc import Generator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

from gpt4image import __version__
from gpt4image.base.interrupts import ended_like_ctrl_c
from gpt4image.parallel import launch

OK, ITEMS_SKIPPED, USER_MISTAKE, CRASH, INTERRUPTED = 0, 1, 2, 70, 130  # 70: EX_SOFTWARE of sysexits.h


@dataclass(frozen=True)
class Command:
    """One sub-command: what it does, its configuration and the function that runs it, imported when needed.

    Options may come from a recipe (``recipes``); processes of torchrun can share the work (``shared``);
    the same command goes on after an interrupt (``resumes``).
    """

    about: str
    of: str
    stage: str
    recipes: bool = False
    shared: bool = False
    resumes: bool = False

    @property
    def config(self) -> str:
        """The name of its configuration in ``gpt4image.config``."""
        return f"{self.of}Config"


COMMANDS = {
    "demo": Command("distill packaged photographs, offline", "Demo", "distilling.demo:demo", resumes=True),
    "distill": Command("from a folder to a model, all stages", "Distill", "distilling.distill:distill", resumes=True),
    "describe": Command("describe every image", "Describe", "describing.describe:describe", resumes=True),
    "descriptions import": Command(
        "bring descriptions into a store", "ImportDescriptions", "describing.descriptions:import_descriptions"
    ),
    "descriptions export": Command(
        "write descriptions to a file", "ExportDescriptions", "describing.descriptions:export_descriptions"
    ),
    "inspect": Command("count, check and show what is in a store", "Inspect", "describing.inspection:inspect"),
    "encode": Command("turn descriptions into embeddings", "Encode", "encoding.encode:encode", resumes=True),
    "label": Command("make targets from answers, texts and labels", "Label", "labelling.label:label"),
    "review": Command("label and correct in the browser", "Review", "reviewing.review:review", resumes=True),
    "audit": Command(
        "how good are targets and model, by a few looks?", "Audit", "reviewing.review:audit", resumes=True
    ),
    "discover": Command("propose classes from descriptions", "Discover", "reviewing.discover:discover", resumes=True),
    "export-labels": Command(
        "write targets as labels that others read", "ExportLabels", "deploying.export_labels:export_labels"
    ),
    "train": Command("train a model", "Train", "training.train:train", recipes=True, shared=True, resumes=True),
    "evaluate": Command("measure a run", "Evaluate", "evaluating.evaluate:evaluate", shared=True),
    "compare": Command(
        "compare training methods over several seeds",
        "Compare",
        "comparing.compare:compare",
        recipes=True,
        resumes=True,
    ),
    "report": Command("write report.html of a run or a comparison", "Report", "reporting.report:report"),
    "export": Command("write a model as others load it", "Export", "deploying.export:export"),
    "predict": Command("name the classes of images", "Predict", "deploying.predict:predict"),
    "search": Command("find images by words or by another image", "Search", "searching.search:search"),
    "doctor": Command("check the installation, or the checksums of PATH", "Doctor", "reporting.doctor:doctor"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Run one command and return its exit code; of several processes that share it, only the first one prints.

    0 is done, 1 items skipped, 2 a user's mistake, 70 a bug of this package, 130 interrupted.
    """
    for stream in (sys.stdout, sys.stderr):  # avoid UnicodeEncodeError
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    with launch.only_first_speaks(), ended_like_ctrl_c(), contextlib.redirect_stderr(_Lossy(sys.stderr)):
        try:
            try:
                return _main(list(sys.argv[1:] if argv is None else argv))
            finally:
                sys.stdout.flush()  # here, where a failure can still be told
        except BrokenPipeError:  # closed by its reader, such as head
            _discard_output()
            return OK
        except OSError as error:
            _discard_output()
            print(f"Error: standard output cannot be written: {error.strerror}; give it another file.", file=sys.stderr)
            return USER_MISTAKE


class _Lossy:
    """Standard error that ignores a closed pipe or terminal."""

    def __init__(self, stream: TextIO) -> None:
        self._stream = stream

    def write(self, text: str) -> int:
        with contextlib.suppress(OSError):
            self._stream.write(text)
        return len(text)

    def flush(self) -> None:
        with contextlib.suppress(OSError):
            self._stream.flush()

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _discard_output() -> None:
    os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())


def _main(words: list[str]) -> int:
    from gpt4image.base.errors import Gpt4ImageError
    from gpt4image.base.files import FULL
    from gpt4image.base.secrets import hidden
    from gpt4image.base.visible import visible

    try:
        return _dispatch(words)
    except Gpt4ImageError as error:
        said = visible(hidden(str(error)))
    except BrokenPipeError:
        raise
    except KeyboardInterrupt:
        print(_interrupted(words), file=sys.stderr)
        return INTERRUPTED
    except (Exception, SystemExit) as error:  # noqa: BLE001  (a bug has its own exit code: 0 and 1 say that it finished)
        if isinstance(error, OSError) and (error.filename is not None or error.errno in FULL):
            where = "" if error.filename is None else f"{visible(str(error.filename))}: "
            space = "free some space, or " if error.errno in FULL else ""
            said = f"{where}{error.strerror}; {space}choose a place that can be read or written."
        elif type(error).__name__ in ("OutOfMemoryError", "MemoryError"):  # torch's, which is not loaded for this
            reason = " ".join(str(error).split(". If reserved")[0].split())[:300]
            gpu = type(error).__name__ == "OutOfMemoryError"
            said = (
                f"{'the GPU' if gpu else 'this machine'} has too little memory ({reason}). What was finished is kept. "
                f"Take less at once, by the options of `gpt4image {words[0]} --help` that name a batch or a size "
                "(train: --batch-size with --grad-accumulation)"
                + (", see by nvidia-smi who else uses it, or give --device cpu." if gpu else ", or end other programs.")
            )
        else:
            import traceback

            print(
                f"{hidden(traceback.format_exc())}This is a bug of gpt4image, not a mistake of yours: please report it "
                "with the lines above and the command.",
                file=sys.stderr,
            )
            return CRASH
    print(f"Error: {said}", file=sys.stderr)
    return USER_MISTAKE


def _dispatch(words: list[str]) -> int:
    if not words or words[0] in ("-h", "--help"):
        print(_overview())
        return OK
    if words[0] == "--version":
        print(f"gpt4image {__version__}")
        return OK
    if words[0] == "help":
        return _dispatch([*words[1:], "--help"])
    is_group = any(name.startswith(f"{words[0]} ") for name in COMMANDS)
    name = " ".join(words[:2]) if is_group else words[0]
    if name in COMMANDS and (wanted := {"-h", "--help", "--help-all"} & set(words)):
        from gpt4image import config, options

        kind = getattr(config, COMMANDS[name].config)
        print(options.help_text(_usage(name), kind, everything="--help-all" in wanted))
        return OK
    if name in COMMANDS:
        return _run(name, words[len(name.split()) :])
    if is_group and (len(words) == 1 or words[1] in ("-h", "--help")):
        print(_overview(words[0]))
        return OK
    from gpt4image.base.errors import nearest

    _, found, hint = nearest(name, COMMANDS).partition("Did you mean ")
    print(f"Unknown command {name!r}. {found}{hint}{' ' * bool(found)}`gpt4image --help` lists all.", file=sys.stderr)
    return USER_MISTAKE


def _interrupted(words: list[str]) -> str:
    command = COMMANDS.get(words[0])
    if command is None or not command.resumes:
        return "Interrupted; no partial file is left. Give the same command again to start over."
    configs: Any = importlib.import_module("gpt4image.config")
    refuses = "resume" in getattr(configs, command.config).model_fields and "--resume" not in words
    again = "the same command again" + (" with --resume" if refuses else "")
    return f"Interrupted; what was finished is kept. Give {again} to go on."


def _run(name: str, words: list[str]) -> int:
    from gpt4image import config as configs
    from gpt4image import options
    from gpt4image.base.errors import ConfigError, first_few
    from gpt4image.base.outcome import Outcome

    command = COMMANDS[name]
    if launch.count() > 1 and not command.shared:
        shared = " and ".join(known for known, other in COMMANDS.items() if other.shared)
        raise ConfigError(
            f"{name} was started in {launch.count()} processes, but runs in one (and starts others itself where that "
            f"helps): start it without torchrun or accelerate launch. Processes can share {shared}."
        )
    kind: Any = getattr(configs, command.config)
    recipes: list[str] = []
    while command.recipes and words and words[0].endswith(".toml"):
        recipes.append(words.pop(0))
    if len(recipes) > 1 and name != "compare":
        raise ConfigError(f"{name} takes one recipe, not {first_few(recipes)}; give the command once for each.")
    given = [options.read_recipe(Path(recipe), kind) for recipe in recipes] or [{}]
    parsed: list[Any] = [options.parse(_usage(name), kind, words, recipe) for recipe in given]
    module, function = command.stage.split(":")
    stage = getattr(importlib.import_module(f"gpt4image.{module}"), function)
    from gpt4image.data import require_apart
    from gpt4image.next_steps import with_next

    def show(outcome: Any) -> None:
        _show(with_next(name, outcome, parsed[0], python=False), parsed[0].as_json)

    try:
        with _alone_on_stdout() if parsed[0].as_json else contextlib.nullcontext():
            for config in parsed:
                require_apart(config)
            outcome = stage(*parsed) if len(parsed) == 1 else stage(*parsed, names=_names(recipes))
    except KeyboardInterrupt as stop:
        if stop.args and isinstance(stop.args[0], Outcome):  # a person ended it so, as they end review
            show(stop.args[0])
        raise
    show(outcome)
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


def _usage(name: str) -> str:
    return f"gpt4image {name}" + (" [RECIPE.toml]" if COMMANDS[name].recipes else "")


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


def _in_words(value: Any) -> str:
    if isinstance(value, Mapping):
        return ", ".join(f"{str(key).replace('_', ' ')} {_in_words(each)}" for key, each in value.items()) or "none"
    if isinstance(value, list | tuple):
        return ", ".join(map(_in_words, value)) or "none"
    return str(round(value, 4) if isinstance(value, float) else value)


def _show(outcome: Any, as_json: bool) -> None:
    from gpt4image.base.visible import visible

    skipped = [{"name": item.name, "reason": item.reason} for item in outcome.skipped]
    if as_json:
        path = None if outcome.path is None else str(outcome.path)
        measured = {"counts": outcome.counts, "ci95": outcome.ci95}
        facts = {"path": path, **outcome.summary, **outcome.record, **{k: v for k, v in measured.items() if v}}
        facts |= {"skipped": skipped, "next": outcome.next}
        print(json.dumps(facts, indent=1, default=str))
        return
    for key, value in outcome.summary.items():
        print(f"{key.replace('_', ' ')}: {visible(_in_words(value))}{outcome.behind(key)}")
    if outcome.text:
        print(f"\n{visible(outcome.text)}\n")
    if outcome.wrote:
        print(f"wrote: {visible(', '.join(map(str, outcome.wrote)))}")
    if outcome.next:
        print(f"next: {visible(outcome.next)}")
    if skipped:
        print(f"\n{len(skipped)} skipped:", file=sys.stderr)
        for item in skipped[:20]:
            print(f"  {item['name']!r}: {visible(item['reason'])}", file=sys.stderr)
        if len(skipped) > 20:
            print(f"  and {len(skipped) - 20} more (--json lists them all)", file=sys.stderr)


if __name__ == "__main__":
    sys.exit(main())
