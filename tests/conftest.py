"""Fixtures that all tests share."""

from __future__ import annotations

import os
from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def shared_data() -> Path:
    """Folder of the real CIFAR-10 photographs and descriptions; tests that need it are skipped where it is absent."""
    default = Path(__file__).resolve().parents[2] / "shared" / "data"
    folder = Path(os.environ.get("GPT4IMAGE_SHARED_DATA", default))
    if not folder.is_dir():
        pytest.skip(f"the shared data folder is absent: set GPT4IMAGE_SHARED_DATA (looked at {folder})")
    return folder
