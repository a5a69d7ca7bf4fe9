"""timm's own training script, unchanged, with alignment: what it imports as loader and task is exchanged while it runs.

python examples/timm_script.py --embeddings photos.emb pytorch-image-models/train.py \
    --data-dir photos --model resnet18 --num-classes 10 --mixup 0.2 --model-ema
"""

from __future__ import annotations

import argparse
import runpy
import sys
from functools import partial
from pathlib import Path
from typing import Any
from unittest.mock import patch

from gpt4image import Texts
from timm_alignment import AlignedTask, create_loader_with_texts


def main() -> None:
    parser = argparse.ArgumentParser(description="Run train.py of pytorch-image-models with alignment to descriptions.")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder written by `gpt4image encode`")
    parser.add_argument("--align-weight", type=float, default=1.0, help="weight of the alignment loss")
    parser.add_argument("--align-loss", default="infonce", help="name of the alignment loss")
    parser.add_argument("script", type=Path, help="train.py of pytorch-image-models, timm 1.0.31 or newer")
    parser.add_argument("arguments", nargs=argparse.REMAINDER, help="arguments of that script")
    args = parser.parse_args()

    texts = Texts(args.embeddings)

    class Task(AlignedTask):
        """What the script makes in place of its ClassificationTask."""

        def __init__(self, *given: Any, **options: Any) -> None:
            aligned = {"align_weight": args.align_weight, "alignment": {"loss": args.align_loss}}
            super().__init__(*given, text_width=texts.width, **aligned, **options)

    loader = partial(create_loader_with_texts, texts)
    sys.argv = [str(args.script), *args.arguments]
    sys.path.insert(0, str(args.script.parent))
    with patch("timm.data.create_loader", loader), patch("timm.task.ClassificationTask", Task):
        runpy.run_path(str(args.script), run_name="__main__")


if __name__ == "__main__":
    main()
