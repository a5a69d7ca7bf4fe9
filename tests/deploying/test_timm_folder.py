"""A folder in timm's format: the weights of the run byte for byte, and all that timm needs beside them."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

from gpt4image.artifacts import runs
from gpt4image.deploying.exported_model import ExportedModel
from gpt4image.deploying.timm_folder import needs_small_stem, write_timm_folder
from gpt4image.models import small_stem
from gpt4image.training.run_model import load_run_model


def test_a_folder_says_what_timm_needs(small_run: Path, tmp_path: Path) -> None:
    classes = runs.class_names(small_run)
    model = load_run_model(small_run, None, classes)
    plain = replace(model, config=model.config.model_copy(update={"stem": "standard"}))
    stemmed = replace(model, config=model.config.model_copy(update={"stem": "small"}))
    for name, found in (("plain", plain), ("stemmed", stemmed)):
        exported = ExportedModel(run_dir=small_run, model=found, classes=classes)
        write_timm_folder(tmp_path / name, exported)
        config = json.loads((tmp_path / name / "config.json").read_text())
        assert (config["architecture"], config["model_args"]) == exported.in_timm()
        assert config["label_names"] == list(classes)
        assert config["num_classes"] == config["pretrained_cfg"]["num_classes"] == len(classes)
        assert config["pretrained_cfg"]["input_size"][1:] == [exported.preprocessing.size] * 2
        assert (tmp_path / name / "model.safetensors").read_bytes() == (small_run / runs.MODEL).read_bytes()
        code = tmp_path / name / "small_stem.py"
        assert code.exists() == needs_small_stem(exported) == (name == "stemmed")
    assert code.read_bytes() == Path(small_stem.__file__).read_bytes()
