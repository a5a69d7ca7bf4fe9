"""A LightningModule with alignment: torchvision's ResNet-18, validated, checkpointed, and resumed where it stopped.

gpt4image describe --data openmoji --store moji.db --describer replay:descriptions.jsonl
gpt4image encode --store moji.db --out moji.emb
python examples/lightning_module.py --data openmoji --embeddings moji.emb --out lightning

Needs `pip install 'lightning>=2.6.4'`: 2.6.2 and 2.6.3 were published with malicious code. Its checkpoints hold
pickles, which are read with weights_only=True, so that no code in them runs.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import lightning
import torch
import torch.nn.functional as F
from lightning.pytorch.callbacks import ModelCheckpoint
from safetensors.torch import save_file
from torch.utils.data import DataLoader
from torchvision import models
from torchvision.transforms import v2

from gpt4image import Aligner, DescribedImages
from gpt4image.own_loop.pairs import DescribedImage


class AlignedModule(lightning.LightningModule):
    """A backbone that learns from labels and descriptions.

    Args:
        backbone: any module from images to logits.
        text_width: width of the text embeddings.
        lr: learning rate.
    """

    def __init__(self, backbone: torch.nn.Module, text_width: int, lr: float = 1e-3) -> None:
        super().__init__()
        self.model = Aligner(backbone, text_width=text_width)
        self.lr = lr

    def training_step(self, batch: DescribedImage, _: int) -> torch.Tensor:
        logits, image_emb = self.model(batch.image)
        align = self.model.alignment_loss(image_emb, batch.text, described=batch.described, text_ids=batch.text_id)
        loss = F.cross_entropy(logits, batch.label) + align
        self.log_dict({"loss": loss, "alignment": align}, prog_bar=True)
        return loss

    def validation_step(self, batch: DescribedImage, _: int) -> None:
        labelled = batch.label >= 0
        right = (self.model.backbone(batch.image).argmax(1) == batch.label)[labelled].float()
        if len(right):
            self.log("accuracy", right.mean(), batch_size=len(right), prog_bar=True)

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.AdamW(self.parameters(), lr=self.lr, weight_decay=0.05)


def main() -> None:
    parser = argparse.ArgumentParser(description="Train ResNet-18 with Lightning on images and their descriptions.")
    parser.add_argument("--data", required=True, help="image set, e.g. folder:photos or openmoji")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder written by `gpt4image encode`")
    parser.add_argument("--out", type=Path, default=Path("lightning"), help="folder for checkpoints and the backbone")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    args = parser.parse_args()

    lightning.seed_everything(0)
    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    augment = v2.Compose([v2.RandomResizedCrop(args.image_size, (0.5, 1.0)), v2.RandomHorizontalFlip(), *to_tensor])
    resize = v2.Compose([v2.Resize((args.image_size, args.image_size)), *to_tensor])
    train = DescribedImages(args.data, args.embeddings, transform=augment)
    val = DescribedImages(args.data, args.embeddings, split="val", transform=resize)
    print(train.coverage)
    loading = {"batch_size": args.batch_size, "num_workers": args.workers, "persistent_workers": args.workers > 0}

    backbone = models.resnet18(num_classes=len(train.classes))
    trainer = lightning.Trainer(
        max_epochs=args.epochs,
        default_root_dir=args.out,
        logger=False,
        callbacks=[ModelCheckpoint(args.out, save_last=True)],
    )
    trainer.fit(
        AlignedModule(backbone, train.text_width),
        DataLoader(train, shuffle=True, drop_last=True, **loading),
        DataLoader(val, **loading),
        ckpt_path=args.out / "last.ckpt" if args.resume else None,
        weights_only=True,
    )
    print({name: round(value.item(), 4) for name, value in trainer.callback_metrics.items()})
    save_file(backbone.state_dict(), args.out / "resnet18.safetensors")  # nothing of the text is in it
    print(f"saved {args.out / 'resnet18.safetensors'}")


if __name__ == "__main__":
    main()
