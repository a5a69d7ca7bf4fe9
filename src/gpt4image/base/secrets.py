"""Secrets removed from what is printed and recorded: those in addresses and in variables of the environment.

Describers remove their own from every text of a server. This is for commands, options, errors, logs and tracebacks, in
which a library may quote them.
"""

from __future__ import annotations

import functools
import logging
import os
import re
from collections.abc import Iterable
from html.entities import html5
from urllib.parse import unquote

NO_SECRETS = ("version", "model", "deployment", "region")
"""Ends of the names of URL parameters that are no credentials."""
_ADDRESS = re.compile(r"(?<=://)[^\s'\"<>]+")
_PARAMETER = re.compile(rf"(?<=[?&])(?![^=&#]*(?:{'|'.join(NO_SECRETS)})=)([^=&#]+=)?[^&#]+", re.IGNORECASE)
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|\Z)", re.IGNORECASE)
_SHORTEST = 8  # letters: what is shorter may be a word
_LONGEST = 2000  # characters of a secret that is looked for in other spellings: more is a file, not a key


def hidden(text: str) -> str:
    """Return a text without the logins and parameters of its addresses, and without secrets of the environment."""
    text = without(text, sorted(_of_environment(), key=len, reverse=True))
    return _ADDRESS.sub(lambda found: _PARAMETER.sub(r"\1***", re.sub(r"^[^/?#]*@", "***@", found[0])), text)


def without(text: str, secrets: Iterable[str]) -> str:
    """Return a text in which each secret is ``***``, also where JSON, HTML or percent encoding spells it otherwise.

    A secret that is a part of another one comes after it.
    """
    encoded = any(sign in text for sign in "%&\\")
    for secret in filter(None, secrets):
        text = text.replace(secret, "***")
        if encoded and len(secret) <= _LONGEST:
            text = _spellings(secret).sub("***", text)
    return text


@functools.lru_cache
def _spellings(secret: str) -> re.Pattern[str]:
    return re.compile("".join(map(_spelling, secret)))


@functools.cache
def _html_names() -> dict[str, list[str]]:
    names: dict[str, list[str]] = {}
    for name, letter in html5.items():
        names.setdefault(letter, []).append(name)
    return names


def _spelling(letter: str) -> str:
    number, again = ord(letter), "(?:25){0,4}"  # of a percent sign that was encoded itself
    percent = "".join(f"%{again}{byte:02x}" for byte in letter.encode("utf-8", "surrogatepass"))
    units = letter.encode("utf-16-be", "surrogatepass").hex()
    in_json = "".join(rf"\\{{1,8}}u{units[at : at + 4]}" for at in range(0, len(units), 4))
    names = [name.rstrip(";") for name in _html_names().get(letter, [])]
    in_html = "|".join([f"#0{{0,8}}{number}", f"#x0{{0,8}}{number:x}", *(f"(?-i:{name})" for name in names)])
    plain = re.escape(letter)
    escaped = rf"\\{{0,8}}(?-i:{plain})" if not letter.isalnum() else f"(?-i:{plain})"
    return f"(?i:{escaped}|{percent}|{in_json}|&(?:amp;){{0,4}}(?:{in_html});?)"


def hide_in_logs(*loggers: str) -> None:
    """Remove secrets from what loggers of libraries write, for programs that switch them on."""
    for name in loggers:
        logging.getLogger(name).addFilter(_hide)


def _hide(record: logging.LogRecord) -> bool:
    record.msg, record.args = hidden(record.getMessage()), ()
    return True


def _of_environment() -> set[str]:
    found = {value.strip() for name, value in os.environ.items() if _SECRET.search(name)}
    for value in os.environ.values():
        passwords = re.findall(r"://[^/?#\s:]*:([^/?#\s]+)@", value)
        found |= {*passwords, *map(unquote, passwords)}
    return {secret for secret in found if len(secret) >= _SHORTEST}
