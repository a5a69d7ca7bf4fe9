"""A CLIP's labels as answers, by a tiny CLIP with random weights: one row per training image, which `label` reads."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from PIL import Image

import gpt4image

pytest.importorskip("open_clip")

from examples.clip_answers import TEMPLATES, main
from tiny_text_models import make_open_clip


def test_answers_of_a_clip_become_targets(colour_folder: Path, tmp_path: Path) -> None:
    import open_clip

    name, _, weights = make_open_clip(tmp_path / "model").removeprefix("open_clip:").partition("/")
    data, out = f"folder:{colour_folder}", tmp_path / "clip.jsonl"
    main(["--data", data, "--out", str(out), "--model", name, "--pretrained", weights])
    rows = [json.loads(line) for line in out.read_text().splitlines()]
    images = gpt4image.load_dataset(data)
    assert sorted(row["key"] for row in rows) == sorted(images.keys[row] for row in images.indices("train"))

    model, _, preprocess = open_clip.create_model_and_transforms(name, weights)
    tokenize: Any = open_clip.get_tokenizer(name)
    first: Any = preprocess(Image.open(colour_folder / rows[0]["key"]).convert("RGB"))
    with torch.inference_mode():
        seen = model.eval().encode_image(first[None], normalize=True)
        texts = tokenize([template.format(each) for each in images.classes for template in TEMPLATES])
        names = model.encode_text(texts, normalize=True).reshape(len(images.classes), len(TEMPLATES), -1).mean(1)
        shares = (model.logit_scale.exp() * seen @ torch.nn.functional.normalize(names, dim=-1).T).softmax(dim=-1)[0]
    best = int(shares.argmax())
    assert rows[0]["class"] == images.classes[best]
    assert rows[0]["confidence"] == pytest.approx(float(shares[best]), abs=1e-3)

    store = tmp_path / "clip.db"
    gpt4image.describe(data=data, store=store, describer=f"replay:{out}", ask="class")
    targets = gpt4image.label(data=data, answers=store, out=tmp_path / "targets.parquet", features="none")
    assert targets.path.is_file()
