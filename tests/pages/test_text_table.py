"""Tables for a terminal: aligned, and without effect on it."""

from __future__ import annotations

from gpt4image.pages.numbers import text_table


def test_columns_are_as_wide_as_their_widest_cell_and_nothing_acts_on_the_terminal() -> None:
    rows = [("image", "label"), ("a\x1b[2J.png", "red\nblue"), ("b.png", "")]
    aligned = ["image         label", "a\\x1b[2J.png  red\\nblue", "b.png"]
    assert text_table("red \u202e", rows).splitlines() == ["red \\u202e", *aligned]
    assert text_table("", [("arm", "mean"), ("x", "1")], numbers=True).splitlines() == ["arm  mean", "x       1"]


def test_a_name_too_long_for_80_columns_has_its_own_line_and_is_not_cut() -> None:
    long = "folder/" * 12 + "a.png"
    rows = [("image", "label", "says"), (long, "cat", "x" * 30), ("b.png", "dog", "")]
    assert text_table("", rows).splitlines() == [
        "image  label  says", long, "       cat    " + "x" * 30, "b.png  dog",
    ]  # fmt: skip
    assert text_table("", [(long,), ("b",)]).splitlines() == [long, "b"]
