"""Options of review: what is refused before anything is read."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from gpt4image.base.errors import ConfigError
from gpt4image.config import ReviewConfig

NEEDED: dict[str, Any] = {"data": "openmoji", "labels": Path("labels.csv")}


def test_labels_are_a_csv_file() -> None:
    with pytest.raises(ConfigError, match=r"--labels = .*labels\.parquet.*: give a file that ends with \.csv"):
        ReviewConfig(data="openmoji", labels=Path("labels.parquet"))


def test_tasks_are_read_or_written() -> None:
    with pytest.raises(ConfigError, match="are two commands: give one, then the other"):
        ReviewConfig(**NEEDED, import_tasks=Path("a"), export_tasks=Path("b"))


def test_classes_may_be_a_list_in_python() -> None:
    assert ReviewConfig(**NEEDED | {"classes": ["cat", "dog"]}).classes == "cat\ndog\n"


@pytest.mark.parametrize("port", [-1, 65536])
def test_a_port_is_a_number_of_16_bits(port: int) -> None:
    with pytest.raises(ConfigError, match=f"--port = {port}"):
        ReviewConfig(**NEEDED, port=port)
