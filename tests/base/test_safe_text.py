"""Text that is safe to print: without secrets, and without what acts and is not seen."""

import html
import json
from collections.abc import Callable
from urllib.parse import quote

import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.secrets import hidden, without
from gpt4image.base.visible import csv_cell, from_csv_cell, visible


@pytest.mark.parametrize(
    ("text", "left"),
    [
        ("http://me:p4ssword@host:8000/v1", "http://***@host:8000/v1"),
        ("https://me:p4ss@word@host/v1?key=abc&api-version=2", "https://***@host/v1?key=***&api-version=2"),
        ("gpt4image --base-url 'http://host/v1?abc' --out a", "gpt4image --base-url 'http://host/v1?***' --out a"),
        ("(http://u@h/) and socks5://a:b@h:1?x=1", "(http://***@h/) and socks5://***@h:1?x=***"),
        ("hf_sEcReT1 is not valid", "*** is not valid"),
        ("Bearer proxy-pass to host", "Bearer *** to host"),
        ("Is it full? me@example.org says a=b&c=d", "Is it full? me@example.org says a=b&c=d"),
        ("http://localhost:8000/v1", "http://localhost:8000/v1"),
    ],
)
def test_logins_parameters_and_values_of_secret_variables_are_hidden(
    text: str, left: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HF_TOKEN", " hf_sEcReT1\n")
    monkeypatch.setenv("HTTPS_PROXY", "http://user:proxy-pass@proxy:3128")
    monkeypatch.setenv("USE_TOKEN", "true")
    monkeypatch.setenv("TOKENIZERS_PARALLELISM", "localhost")
    assert hidden(text) == left
    assert hidden(left) == left


SECRET = 'sk-a/b+c=d&e"f<\U0001f511>é 1'
SPELLINGS: dict[str, Callable[[str], str]] = {
    "as it is": str,
    "json": lambda text: json.dumps(text)[1:-1],
    "json in json": lambda text: json.dumps(json.dumps(text))[3:-3],
    "html": html.escape,
    "html twice": lambda text: html.escape(html.escape(text)),
    "percent": lambda text: quote(text, safe=""),
    "percent twice": lambda text: quote(quote(text, safe=""), safe=""),
}


@pytest.mark.parametrize("spell", SPELLINGS.values(), ids=SPELLINGS)
def test_a_secret_is_hidden_however_it_is_spelt(spell: Callable[[str], str], monkeypatch: pytest.MonkeyPatch) -> None:
    text = f"no key {spell(SECRET)}, 100 % & \\ sure"
    assert without(text, [SECRET]) == "no key ***, 100 % & \\ sure"
    monkeypatch.setenv("A_TOKEN", SECRET)
    assert hidden(text) == "no key ***, 100 % & \\ sure"


def test_other_texts_stay_as_they_are() -> None:
    text = r"a\/b 50%25 &amp; sk-A/b+c \u0041"
    assert without(text, [SECRET, "other-secret"]) == text
    assert without("a/b%2Bc", ["a/b+c", ""]) == "***"


def test_what_acts_and_is_not_seen_becomes_visible() -> None:
    assert visible("\x1b[2J\x00\u202ex\u2028\ufeff\ud800") == "\\x1b[2J\\x00\\u202ex\\u2028\\ufeff\\ud800"
    for text in ["A café, 10\u00a0m", "黑色的猫", "می\u200cخواهم", "👩\u200d🚀", "two\nlines\tand a tab"]:
        assert visible(text) == text


@given(st.text("'=+-@\t\r\nx", max_size=6) | st.text())
def test_a_cell_never_begins_as_a_formula_and_is_its_text_again(text: str) -> None:
    cell = csv_cell(text)
    assert cell and cell[0] not in "=+-@\t\r\n"
    assert from_csv_cell(cell) == text
