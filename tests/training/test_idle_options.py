"""Options without an effect are named, each with its reason, and no others."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from box_cases import write_squares
from gpt4image.config import TrainConfig
from gpt4image.training.prepare import prepare
from gpt4image.training.trainer import idle_options
from small_training import SMALL


def told(data: str, out: Path, **options: Any) -> tuple[str, ...]:
    ready = prepare(TrainConfig(data=data, out=out, **{**SMALL, **options}))
    return idle_options(ready.config, ready.data)


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"head": "mlp", "temperature": 0.5}, "--head, --temperature: no effect, since no features are aligned"),
        ({"task": "pretrain", "temperature": 0.5, "head": "mlp"}, "--head: no effect, since no features are aligned"),
        ({"shift": 0.2, "min_scale": 0.5}, "--shift: no effect, since crops of --min-scale take its place."),
        ({"new_layers_lr_scale": 3.0}, "--new-layers-lr-scale: no effect, since --init scratch has only new layers."),
        ({"erase_with": "noise"}, "--erase-with: no effect, since no pixels are erased (--erase)."),
        ({"confidence": 0.5}, "--confidence: no effect, since there is no --consistency."),
        ({"labelled_share": 0.3}, "--labelled-share: no effect, since all training images have a target."),
    ],
)
def test_an_option_without_effect_is_named(
    options: dict[str, Any], expected: str, colour_folder: Path, tmp_path: Path
) -> None:
    (line,) = told(f"folder:{colour_folder}", tmp_path / "run", **options)
    assert line.startswith(expected)


def test_boxes_have_no_labels_to_smooth(tmp_path: Path) -> None:
    (line,) = told(
        write_squares(tmp_path / "set"), tmp_path / "run", label_smoothing=0.3, stem="standard", image_size=32
    )
    assert line == "--label-smoothing: no effect, since --task detection has no labels to smooth."


def test_options_with_an_effect_are_not_named(colour_folder: Path, tmp_path: Path) -> None:
    some = next(iter(sorted((colour_folder / "red").iterdir())))
    (colour_folder / "unlabelled").mkdir()
    some.rename(colour_folder / "unlabelled" / some.name)
    used = {"shift": 0.2, "momentum": 0.5, "optimizer": "sgd", "erase": 0.5, "erase_with": "noise"}
    used |= {"consistency": 1.0, "confidence": 0.5, "labelled_share": 0.3, "label_smoothing": 0.3}
    assert told(f"folder:{colour_folder}", tmp_path / "run", **used) == ()
