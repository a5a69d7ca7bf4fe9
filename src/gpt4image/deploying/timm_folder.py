"""The format timm: a folder that plain timm loads, from the disk or as a repository of the Hugging Face hub.

FOLDER/config.json        architecture, arguments, class names, preprocessing
FOLDER/model.safetensors  the run's weights, byte for byte
FOLDER/small_stem.py      for ResNets with a small stem alone: to be imported before timm loads the folder
"""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import Any

from gpt4image.base.files import write_json
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.deploying.loading import CONFIG, TASK, THRESHOLDS, WEIGHTS
from gpt4image.models import small_stem

KEPT = ("fixed_input_size", "first_conv", "classifier")  # what timm needs for other classes, channels and sizes


def write_timm_folder(path: Path, exported: ExportedModel) -> None:
    """Write the folder ``path``, which must not exist."""
    path.mkdir(parents=True)
    architecture, args = exported.in_timm()
    backbone: Any = exported.model.backbone
    write_json(
        path / CONFIG,
        {
            "architecture": architecture,
            "num_classes": len(exported.classes),
            "num_features": backbone.num_features,
            "label_names": list(exported.classes),
            "model_args": args,
            "pretrained_cfg": {
                **{key: backbone.pretrained_cfg[key] for key in KEPT if key in backbone.pretrained_cfg},
                **exported.preprocessing.to_timm(),
                "num_classes": len(exported.classes),
            },
            TASK: exported.model.task.name,
            **({} if exported.model.task.thresholds is None else {THRESHOLDS: exported.model.task.thresholds}),
            "source": exported.source,
        },
        checksum=False,  # a file for timm and its users, who may change it; the model card names its checksum
    )
    shutil.copyfile(exported.weights, path / WEIGHTS)
    if needs_small_stem(exported):
        shutil.copyfile(small_stem.__file__, path / "small_stem.py")


def needs_small_stem(exported: ExportedModel) -> bool:
    """Whether the model is one that timm knows only once ``small_stem`` was imported."""
    return exported.in_timm()[0] == small_stem.NAME
