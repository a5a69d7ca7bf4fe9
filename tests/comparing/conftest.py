"""An embedding table and answers for the small comparisons, whose runs are made in the process of the tests."""

import pytest

from comparing.cases import answers, small, table

__all__ = ["answers", "small", "table"]


@pytest.fixture(autouse=True)
def without_workers(runs_here: None) -> None:
    """Every test."""
