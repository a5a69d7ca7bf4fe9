from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from gpt4image.base.visible import csv_cell, from_csv_cell, visible


def test_what_acts_and_is_not_seen_becomes_visible() -> None:
    assert visible("\x1b[2J\x00\u202ex\u2028\ufeff\ud800") == "\\x1b[2J\\x00\\u202ex\\u2028\\ufeff\\ud800"
    for text in ["A café, 10\u00a0m", "黑色的猫", "می\u200cخواهم", "👩\u200d🚀", "two\nlines\tand a tab"]:
        assert visible(text) == text


@given(st.text("'=+-@\t\r\nx", max_size=6) | st.text())
def test_a_cell_never_begins_as_a_formula_and_is_its_text_again(text: str) -> None:
    cell = csv_cell(text)
    assert cell and cell[0] not in "=+-@\t\r\n"
    assert from_csv_cell(cell) == text
