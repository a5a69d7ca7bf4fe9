import pytest
from hypothesis import given
from hypothesis import strategies as st

from gpt4image.pages import numbers


@pytest.mark.parametrize(
    ("written", "words"),
    [
        (numbers.percent(0.3484), "34.8 %"),
        (numbers.percent(None), "–"),
        (numbers.points(-0.0004), "0.0"),
        (numbers.points_interval((-0.002, 0.0004)), "−0.2 to 0.0"),
        (numbers.points(-0.05), "−5.0"),
        (numbers.points_interval((-0.01, 0.02)), "−1.0 to +2.0"),
        (numbers.p_value(0.0004), "< 0.001"),
        (numbers.p_value(0.0123), "0.012"),
        (numbers.p_value(0.5), "0.50"),
        (numbers.duration(5.25), "5.2 s"),
        (numbers.duration(42), "42 s"),
        (numbers.duration(210), "3.5 min"),
        (numbers.duration(9000), "2.5 h"),
        (numbers.memory(612e6), "612 MB"),
        (numbers.memory(1.24e9), "1.2 GB"),
    ],
)
def test_numbers_are_written_for_people(written: str, words: str) -> None:
    assert written == words


@given(st.floats(-1, 1))
def test_zero_has_no_sign(difference: float) -> None:
    assert numbers.points(difference) not in ("−0.0", "+0.0")
    assert float(numbers.points(difference).replace("−", "-")) == pytest.approx(100 * difference, abs=0.0501)


def test_columns_are_as_wide_as_their_widest_cell_and_a_longer_name_has_its_own_line() -> None:
    rows = [("image", "label"), ("a\x1b[2J.png", "red\nblue"), ("b.png", "")]
    aligned = ["image         label", "a\\x1b[2J.png  red\\nblue", "b.png"]
    assert numbers.text_table("red \u202e", rows).splitlines() == ["red \\u202e", *aligned]
    assert numbers.text_table("", [("arm", "mean"), ("x", "1")], numbers=True).splitlines() == [
        "arm  mean",
        "x       1",
    ]
    long = "folder/" * 12 + "a.png"
    rows = [("image", "label", "says"), (long, "cat", "x" * 30), ("b.png", "dog", "")]
    assert numbers.text_table("", rows).splitlines() == [
        "image  label  says", long, "       cat    " + "x" * 30, "b.png  dog",
    ]  # fmt: skip
    assert numbers.text_table("", [(long,), ("b",)]).splitlines() == [long, "b"]
