"""The descriptions of ImageNet that the authors of the paper released, as rows for `gpt4image descriptions import`.

    python recipes/paper/released_descriptions.py minigpt4_caption_imagenet_train_0_1281166.pth imagenet/train OUT.jsonl

The release is a list of texts, written by torch.save. The k-th text is of the k-th image of torchvision's ImageFolder,
so a folder with other images would shift all texts behind them: it must hold as many images as there are texts.
"""

from __future__ import annotations

import json
import pickle
import sys
from pathlib import Path

import torch
from torchvision.datasets import ImageFolder

from gpt4image.base.files import atomic_path


def convert(release: Path, folder: Path, out: Path) -> int:
    """Write a row of key and description per text, and return how many; keys are those of --data folder:FOLDER."""
    try:
        texts = torch.load(release, weights_only=True)  # texts and tensors, never code
        files = [path for path, _ in ImageFolder(folder).samples]
    except (OSError, RuntimeError, EOFError, pickle.UnpicklingError) as error:
        sys.exit(f"{release} or {folder} cannot be read: {str(error).splitlines()[0]}")
    if not isinstance(texts, list) or not all(isinstance(text, str) for text in texts):
        sys.exit(f"{release} holds no list of texts: give the released descriptions, not embeddings made of them.")
    if len(texts) != len(files):
        sys.exit(
            f"{release} has {len(texts):,} texts, {folder} {len(files):,} images: give the folder that was described."
        )
    with atomic_path(out) as temporary, temporary.open("w", encoding="utf-8") as file:
        for path, text in zip(files, texts, strict=True):
            row = {"key": Path(path).relative_to(folder).as_posix(), "description": text}
            file.write(json.dumps(row, ensure_ascii=False) + "\n")
    return len(texts)


if __name__ == "__main__":
    if len(sys.argv) != 4:
        sys.exit(__doc__)
    print(f"{convert(*map(Path, sys.argv[1:])):,} descriptions are in {sys.argv[3]}")
