"""Describers find a key, no address in the environment, and wait little."""

import pytest

from openai_cases import openai_settings

__all__ = ["openai_settings", "usual_settings"]


@pytest.fixture(autouse=True)
def usual_settings(openai_settings: None) -> None:
    pass
