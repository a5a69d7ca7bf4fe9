"""A plain PyTorch loop that also learns from descriptions: torchvision's ResNet-18, three lines more than without.

gpt4image describe --data openmoji --store moji.db --describer replay:descriptions.jsonl
gpt4image encode --store moji.db --out moji.emb
python examples/plain_loop.py --data openmoji --embeddings moji.emb --epochs 10
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.transforms import v2

from gpt4image import Aligner, DescribedImages


def parse_arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description="Train ResNet-18 on images and their descriptions.")
    parser.add_argument("--data", required=True, help="image set, e.g. folder:photos or openmoji")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder written by `gpt4image encode`")
    parser.add_argument("--out", type=Path, default=Path("resnet18.safetensors"), help="file for the plain backbone")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--steps", type=int, help="stop after this many steps")
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--lr", type=float, default=1e-3)
    return parser.parse_args()


def main() -> None:
    args = parse_arguments()
    torch.manual_seed(0)
    device = "cuda" if torch.cuda.is_available() else "cpu"
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    augment = v2.Compose([v2.RandomResizedCrop(args.image_size, (0.5, 1.0)), v2.RandomHorizontalFlip(), *to_tensor])

    pairs = DescribedImages(args.data, args.embeddings, transform=augment)  # 1: images, joined to their texts
    print(pairs.coverage)
    loader = DataLoader(pairs, args.batch_size, shuffle=True, drop_last=True, num_workers=args.workers)
    backbone = models.resnet18(num_classes=len(pairs.classes))
    model = Aligner(backbone, text_width=pairs.text_width).to(device)  # 2: reads the pooled feature of the backbone
    optimizer = torch.optim.AdamW(model.parameters(), lr=args.lr, weight_decay=0.05)

    batches = itertools.chain.from_iterable(itertools.repeat(loader, args.epochs))
    for step, batch in enumerate(itertools.islice(batches, args.steps)):
        batch = batch.to(device)
        logits, image_emb = model(batch.image)
        align = model.alignment_loss(  # 3: pulls images to their own texts
            image_emb, batch.text, described=batch.described, text_ids=batch.text_id
        )
        loss = F.cross_entropy(logits, batch.label) + align
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        print(f"step {step}: loss {loss.item():.4f}, alignment {align.item():.4f}")

    save_file(backbone.state_dict(), args.out)  # plain torchvision weights: nothing of the text is in them
    print(f"saved {args.out}")


if __name__ == "__main__":
    main()
