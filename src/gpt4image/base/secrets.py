"""Secrets removed from what is printed and recorded: those in addresses and in variables of the environment.

Describers remove their own from every text of a server. This is for commands, options, errors, logs and tracebacks, in
which a library may quote them.
"""

from __future__ import annotations

import logging
import os
import re

NO_SECRETS = ("version", "model", "deployment", "region")
"""How the names of parameters of an address end that say what is asked for, not who asks."""
_ADDRESS = re.compile(r"(?<=://)[^\s'\"<>]+")
_PARAMETER = re.compile(rf"(?<=[?&])(?![^=&#]*(?:{'|'.join(NO_SECRETS)})=)([^=&#]+=)?[^&#]+", re.IGNORECASE)
_SECRET = re.compile(r"(KEY|TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIALS?)(_|\Z)", re.IGNORECASE)
_SHORTEST = 8  # letters: what is shorter may be a word


def hidden(text: str) -> str:
    """Return a text without the logins and parameters of its addresses, and without secrets of the environment."""
    for secret in sorted(_of_environment(), key=len, reverse=True):
        text = text.replace(secret, "***")
    return _ADDRESS.sub(lambda found: _PARAMETER.sub(r"\1***", re.sub(r"^[^/?#]*@", "***@", found[0])), text)


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
        found |= set(re.findall(r"://[^/?#\s:]*:([^/?#\s]+)@", value))
    return {secret for secret in found if len(secret) >= _SHORTEST}
