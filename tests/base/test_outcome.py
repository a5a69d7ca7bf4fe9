"""What a stage returns."""

from __future__ import annotations

import pickle

import pytest

from gpt4image.base.outcome import Outcome


def test_facts_of_an_outcome_are_attributes() -> None:
    outcome = Outcome(summary={"images": 3}, record={"metric": "<b>"}, text="a < b")
    assert (outcome.images, outcome.metric) == (3, "<b>")
    with pytest.raises(AttributeError, match="no 'pictures'; it has images"):
        _ = outcome.pictures
    assert "a &lt; b" in outcome._repr_html_()
    assert pickle.loads(pickle.dumps(outcome)) == outcome  # noqa: S301
