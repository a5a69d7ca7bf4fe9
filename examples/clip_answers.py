"""The labels of a CLIP as answers: which class name fits each image best, and how surely.

    pip install '.[clip]'    # in a copy of the repository
    python examples/clip_answers.py --data photos --classes classes.txt --out clip.jsonl
    gpt4image descriptions import clip.jsonl --store clip.db --data photos
    gpt4image distill photos --describer replay:clip.jsonl --classes classes.txt

CLIP costs nothing per image and needs no server. Where your classes are everyday words, its answers are a rival of a
multimodal LLM's: import both and let `gpt4image audit` tell which are right more often. The softmax of a CLIP is not
calibrated; `label` learns from a few human labels how often it is right.
"""

from __future__ import annotations

import argparse
import io
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import open_clip
import torch
from PIL import Image
from rich.progress import track

from gpt4image import Dataset, load_dataset

TEMPLATES = ("a photo of a {}.", "a close-up photo of a {}.", "a picture of the {}.")


def answers(
    images: Dataset, rows: Sequence[int], classes: Sequence[str], name: str, pretrained: str
) -> Iterator[dict[str, Any]]:
    """Yield for each image the class whose name, in the mean of some sentences, is nearest, and the second nearest."""
    model, _, preprocess = open_clip.create_model_and_transforms(name, pretrained, weights_only=True)
    model.eval()
    tokenize: Any = open_clip.get_tokenizer(name)
    with torch.inference_mode():
        names = torch.stack(
            [
                model.encode_text(tokenize([template.format(each) for template in TEMPLATES]), normalize=True).mean(0)
                for each in classes
            ]
        )
        names = torch.nn.functional.normalize(names, dim=-1)
        for start in range(0, len(rows), 32):
            some = rows[start : start + 32]
            pixels = torch.stack([preprocess(Image.open(io.BytesIO(images.read(row))).convert("RGB")) for row in some])
            seen = model.encode_image(pixels, normalize=True)
            probabilities = (model.logit_scale.exp() * seen @ names.T).softmax(dim=-1)
            sure, which = probabilities.topk(min(2, len(classes)), dim=-1)
            for row, confidence, found in zip(some, sure.tolist(), which.tolist(), strict=True):
                yield {
                    "key": images.keys[row],
                    "class": classes[found[0]],
                    "second": classes[found[1]] if len(found) > 1 else None,
                    "confidence": round(confidence[0], 4),
                }


def main(arguments: Sequence[str] | None = None) -> None:
    """Write one JSON line per training image."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", required=True, help="the dataset, as gpt4image describe takes it")
    parser.add_argument("--classes", type=Path, help="class names, one a line; else those of the dataset")
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--model", default="ViT-B-16")
    parser.add_argument("--pretrained", default="openai", help="a tag of open_clip, or a .safetensors file")
    options = parser.parse_args(arguments)
    images = load_dataset(options.data)
    classes = options.classes.read_text(encoding="utf-8").split("\n") if options.classes else images.classes
    classes = [name for name in classes if name.strip()]
    rows = images.indices("train").tolist()
    made = answers(images, rows, classes, options.model, options.pretrained)
    with options.out.open("w", encoding="utf-8") as file:
        for row in track(made, total=len(rows), description="images"):
            file.write(json.dumps(row) + "\n")


if __name__ == "__main__":
    main()
