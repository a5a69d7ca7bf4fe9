from __future__ import annotations

import pytest

from gpt4image.base.secrets import hidden


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
        ("true is a short word", "true is a short word"),
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
