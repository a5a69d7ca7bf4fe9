from __future__ import annotations

from gpt4image.reporting.background import distinct


def test_distinct_values_keep_their_order() -> None:
    assert distinct([{"a": 1, "b": "x"}, {"a": 2, "b": "x"}, {"a": 1}]) == {"a": "1 · 2", "b": "x"}
