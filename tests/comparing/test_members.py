"""Members: all arms that mean something here, those that lack something left out or refused with what they lack."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from gpt4image.comparing.planning import Member, members_of
from gpt4image.comparing.regimes import Regime
from gpt4image.config import CompareConfig
from gpt4image.data import load_image_set
from gpt4image.encoding.class_names import ClassNames
from gpt4image.training.prepare import prepare
from tables import make_table


def members(folder: Path, **options: Any) -> tuple[dict[str, Member], list[str]]:
    table = folder.parent / "table"
    if not table.exists():
        make_table(table, {digest: np.ones((1, 8)) for digest in load_image_set(f"folder:{folder}").digests})
    config = CompareConfig(
        **{"data": f"folder:{folder}", "out": folder, "image_size": 16, "embeddings": table, **options}
    )
    data = prepare(config).data
    return members_of(config, data, Regime.of(config).apply(data, 0), class_conditioned=False)


@pytest.mark.parametrize(
    ("options", "left_out"), [({}, ["class-name"]), ({"labels_per_class": 2}, ["zero-shot", "class-name"])]
)
def test_arms_that_lack_class_names_are_left_out_with_a_note_unless_they_are_asked_for(
    options: dict[str, Any], left_out: list[str], colour_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found, (note,) = members(colour_folder, **options)
    assert "aligned" in found and not set(left_out) & set(found)
    assert note.startswith(f"Left out: {', '.join(left_out)}, which need the names of the classes in the space of ")
    assert "Unknown text encoder: 'given'" in note
    asked, notes = members(colour_folder, arms=",".join(left_out), **options)
    assert set(left_out) < set(asked) and notes == []
    named = ClassNames(vectors=np.eye(3, 8, dtype=np.float32), missing="")
    monkeypatch.setattr("gpt4image.comparing.planning.find_class_names", lambda *_: named)
    found, notes = members(colour_folder, **options)
    assert set(left_out) < set(found) and notes == []
