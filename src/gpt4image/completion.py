"""The stage completion: a script by which a shell completes commands, options and their values."""

from __future__ import annotations

import shlex
from collections.abc import Iterator

from gpt4image import cli, config
from gpt4image.base.outcome import Outcome
from gpt4image.options import choices

_BASH = """\
_gpt4image() {{
    local at="${{COMP_WORDS[*]:1:2}} " previous="${{COMP_WORDS[COMP_CWORD - 1]}}" words=""
    if ((COMP_CWORD == 1)); then
        words={first}
    else
        case "$at" in
{cases}
        esac
    fi
    COMPREPLY=($(compgen -W "$words" -- "${{COMP_WORDS[COMP_CWORD]}}"))
}}
complete -o default -F _gpt4image gpt4image
"""
_ZSH = "autoload -U +X compinit bashcompinit && compinit && bashcompinit\n"


def completion(options: config.CompletionConfig) -> Outcome:
    """Return the script for one shell as the outcome's text."""
    if options.shell == "fish":
        return Outcome(text="\n".join(_fish()))
    return Outcome(text=(_ZSH if options.shell == "zsh" else "") + _bash())


def _commands() -> dict[str, dict[str, list[str]]]:
    """Return, by command, its options and the values that each may have; none where it takes any."""
    found: dict[str, dict[str, list[str]]] = {}
    for name, command in cli.COMMANDS.items():
        kind = getattr(config, command.config)
        fields = {kind.option(key): field for key, field in kind.model_fields.items()}
        found[name] = {option: choices(field.annotation) for option, field in fields.items() if not option.isupper()}
        found[name] |= {
            option.replace("--", "--no-", 1): [] for option, field in fields.items() if field.default is True
        }
    return found


def _groups() -> dict[str, list[str]]:
    """Return the second words of commands of two words, by the first."""
    groups: dict[str, list[str]] = {}
    for first, second in (name.split() for name in cli.COMMANDS if " " in name):
        groups.setdefault(first, []).append(second)
    return groups


def _first_words() -> list[str]:
    return list(dict.fromkeys(name.split()[0] for name in cli.COMMANDS))


def _bash() -> str:
    cases: list[str] = []
    for name, options in sorted(_commands().items(), key=lambda item: " " not in item[0]):
        values = [f"{option}) words={_quoted(known)} ;;" for option, known in options.items() if known]
        inner = " ".join([*values, f"*) words={_quoted([*options, '--help'])} ;;"])
        cases.append(f'        {_quoted([name, ""])}*) case "$previous" in {inner} esac ;;')
    for first, seconds in _groups().items():
        cases.append(f"        {_quoted([first, ''])}*) words={_quoted(seconds)} ;;")
    return _BASH.format(first=_quoted(_first_words()), cases="\n".join(cases))


def _fish() -> Iterator[str]:
    words = _quoted(_first_words())
    yield f"complete -c gpt4image -n __fish_use_subcommand -f -a {words}"
    for first, seconds in _groups().items():
        yield f"complete -c gpt4image -n '__fish_seen_subcommand_from {first}' -f -a {_quoted(seconds)}"
    for name, options in _commands().items():
        seen = "; and ".join(f"__fish_seen_subcommand_from {word}" for word in name.split())
        for option, known in options.items():
            values = f" -r -a {_quoted(known)}" if known else ""
            yield f"complete -c gpt4image -n '{seen}' -l {option.removeprefix('--')}{values}"


def _quoted(words: list[str]) -> str:
    return shlex.quote(" ".join(words))
