"""Secrets removed from what is printed and recorded: those in addresses and in variables of the environment."""

import functools
import html
import json
import logging
import os
import re
from collections.abc import Iterable
from urllib.parse import quote, unquote

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
    """Return a text in which each secret is ``***``, also as JSON, HTML or percent encoding spell it, once or twice."""
    encoded = any(sign in text for sign in "%&\\")
    for secret in filter(None, secrets):
        for spelt in _spellings(secret) if encoded and len(secret) <= _LONGEST else [secret]:
            text = text.replace(spelt, "***")
    return text


@functools.lru_cache
def _spellings(secret: str) -> list[str]:
    found = {secret}
    for _ in range(2):
        for text in tuple(found):
            percent, path = (quote(text, safe=safe, errors="surrogatepass") for safe in ("", "/"))
            found |= {percent, re.sub("%..", lambda code: code[0].lower(), percent), path, html.escape(text)}
            found |= {json.dumps(text)[1:-1], json.dumps(text, ensure_ascii=False)[1:-1], text.replace("/", r"\/")}
    return sorted(found, key=len, reverse=True)


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
