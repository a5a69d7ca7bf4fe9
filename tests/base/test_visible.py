from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.visible import csv_cell, in_one_line, visible


def test_what_acts_and_is_not_seen_becomes_visible() -> None:
    assert visible("\x1b[2J\x00\u202ex\u2028\ufeff\ud800") == "\\x1b[2J\\x00\\u202ex\\u2028\\ufeff\\ud800"


def test_text_of_any_script_and_emoji_stay() -> None:
    for text in ["A café, 10\u00a0m", "黑色的猫", "می‌خواهم", "👩‍🚀", "two\nlines\tand a tab"]:
        assert visible(text) == text


@given(st.text())
def test_the_result_is_stable_and_can_be_encoded(text: str) -> None:
    assert visible(visible(text)) == visible(text)
    visible(text).encode()


@given(st.text())
def test_a_cell_is_no_formula_and_gives_its_text_back(text: str) -> None:
    cell = csv_cell(text)
    assert not cell.startswith(("=", "+", "-", "@", "\t", "\r")) and "\n" not in cell
    assert cell.removeprefix("'") == in_one_line(text)
