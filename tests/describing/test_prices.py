"""Prices: the user's table first, the published list for known servers, none for others."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.describing.prices import Price, find_price

OPENAI = "https://api.openai.com/v1"


def test_the_published_list_knows_models_by_server() -> None:
    assert find_price("gpt-4o-mini", OPENAI, None) == pytest.approx(Price(0.15, 0.6))
    assert find_price("gpt-4o-mini", "http://localhost:8000/v1", None) is None
    assert find_price("no-such-model-of-anyone", OPENAI, None) is None


def test_the_users_table_comes_first(tmp_path: Path) -> None:
    table = tmp_path / "prices.json"
    table.write_text(json.dumps({"gpt-4o-mini": {"input": 1, "output": 2}, "mine": {"input": 0, "output": 0.5}}))
    assert find_price("gpt-4o-mini", OPENAI, table) == Price(1.0, 2.0)
    assert find_price("mine", "http://localhost:8000/v1", table) == Price(0.0, 0.5)
    assert find_price("gpt-4o", OPENAI, table) == find_price("gpt-4o", OPENAI, None)


@pytest.mark.parametrize(
    "content", ["{", "[1]", '{"m": 3}', '{"m": {"input": 1}}', '{"m": {"input": -1, "output": 1}}']
)
def test_a_table_that_says_no_price_is_refused(tmp_path: Path, content: str) -> None:
    (tmp_path / "p.json").write_text(content)
    with pytest.raises(ConfigError, match="US"):
        find_price("m", OPENAI, tmp_path / "p.json")
    with pytest.raises(ConfigError, match="cannot be read"):
        find_price("m", OPENAI, tmp_path / "none.json")


def test_the_price_of_a_call_is_the_sum_over_its_tokens() -> None:
    assert Price(2.0, 10.0).of(500_000, 100_000) == pytest.approx(2.0)
    assert Price(2.0, 10.0).scaled(0.5).of(1_000_000, 1_000_000) == pytest.approx(6.0)
