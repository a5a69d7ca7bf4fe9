"""Pictures on a page: bitmaps are let through, and nothing else."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from gpt4image.reporting.extras import Example
from synthetic_records import data_url


def example(picture: str) -> dict[str, object]:
    return {"key": "a", "split": "test", "picture": picture}


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg"])
def test_bitmaps_are_let_through(kind: str) -> None:
    assert Example.model_validate(example(data_url(kind=kind))).picture.startswith(f"data:image/{kind};base64,")


@pytest.mark.parametrize(
    "picture",
    [
        "https://example.org/x.png",
        "javascript:alert(1)",
        "data:image/svg+xml;base64,PHN2Zy8+",
        "data:text/html;base64,AAAA",
        'data:image/png;base64,AAAA" onerror="alert(1)',
        "data:image/png;base64,AAAA\n",
        " data:image/png;base64,AAAA",
        "data:image/png;base64,",
    ],
)
def test_everything_else_is_no_picture(picture: str) -> None:
    with pytest.raises(ValidationError, match="pattern"):
        Example.model_validate(example(picture))


@given(st.text())
def test_no_text_that_could_leave_an_attribute_is_a_picture(tail: str) -> None:
    try:
        picture = Example.model_validate(example("data:image/png;base64," + tail)).picture
    except ValidationError:
        return
    assert not set(picture) & set("\"'<>& \n\t")
