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
from gpt4image.deploying.leaving import LeavingModel
from gpt4image.deploying.loading import CONFIG, TASK, WEIGHTS
from gpt4image.models import small_stem

KEPT = ("fixed_input_size", "first_conv", "classifier")  # what timm needs for other classes, channels and sizes


def write_timm_folder(path: Path, leaving: LeavingModel) -> None:
    """Write the folder ``path``, which must not exist."""
    path.mkdir(parents=True)
    architecture, args = leaving.in_timm()
    backbone: Any = leaving.model.backbone
    write_json(
        path / CONFIG,
        {
            "architecture": architecture,
            "num_classes": len(leaving.classes),
            "num_features": backbone.num_features,
            "label_names": list(leaving.classes),
            "model_args": args,
            "pretrained_cfg": {
                **{key: backbone.pretrained_cfg[key] for key in KEPT if key in backbone.pretrained_cfg},
                **leaving.preprocessing.to_timm(),
                "num_classes": len(leaving.classes),
            },
            **({} if leaving.model.task.exclusive else {TASK: leaving.model.task.name}),
            "source": dict(leaving.metadata.source),
        },
        checksum=False,  # a file for timm and its users, who may change it; the model card names its checksum
    )
    shutil.copyfile(leaving.weights, path / WEIGHTS)
    if needs_small_stem(leaving):
        shutil.copyfile(small_stem.__file__, path / "small_stem.py")


def needs_small_stem(leaving: LeavingModel) -> bool:
    """Whether the model is one that timm knows only once ``small_stem`` was imported."""
    return leaving.in_timm()[0] == small_stem.NAME
