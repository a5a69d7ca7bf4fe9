"""Pictures on a page: bitmaps are let through, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gpt4image.reporting.extras import Example
from synthetic_records import data_url


def example(picture: str) -> Example:
    return Example.model_validate({"key": "a", "split": "test", "picture": picture})


def test_bitmaps_are_let_through_and_everything_else_is_no_picture() -> None:
    for kind in ("png", "webp", "jpeg"):
        assert example(data_url(kind=kind)).picture.startswith(f"data:image/{kind};base64,")
    good = "data:image/png;base64,AAAA"
    other = ("https://example.org/x.png", "javascript:alert(1)", "data:image/svg+xml;base64,PHN2Zy8+", good[:-4])
    for picture in (*other, "data:text/html;base64,AAAA", f'{good}" onerror="alert(1)', f"{good}\n", f" {good}"):
        with pytest.raises(ValidationError, match="pattern"):
            example(picture)


@given(st.text())
def test_no_text_that_could_leave_an_attribute_is_a_picture(tail: str) -> None:
    try:
        picture = example("data:image/png;base64," + tail).picture
    except ValidationError:
        return
    assert not set(picture) & set("\"'<>& \n\t")
