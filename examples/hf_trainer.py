"""The Trainer of transformers with alignment: a small ViT from scratch, evaluated, saved, and resumed where it stopped.

gpt4image describe --data openmoji --store moji.db --describer replay:descriptions.jsonl
gpt4image encode --store moji.db --out moji.emb
python examples/hf_trainer.py --data openmoji --embeddings moji.emb --out vit
"""

from __future__ import annotations

import argparse
from pathlib import Path

import torch
from torchvision.transforms import v2
from transformers import AutoModelForImageClassification, EvalPrediction, Trainer, TrainingArguments, ViTConfig

from gpt4image import DescribedImages
from hf_alignment import AlignedClassifier, collate_described


def accuracy(found: EvalPrediction) -> dict[str, float]:
    labelled = found.label_ids >= 0
    return {"accuracy": float((found.predictions.argmax(-1) == found.label_ids)[labelled].mean())}


def main() -> None:
    parser = argparse.ArgumentParser(description="Train a ViT of transformers on images and their descriptions.")
    parser.add_argument("--data", required=True, help="image set, e.g. folder:photos or openmoji")
    parser.add_argument("--embeddings", required=True, type=Path, help="folder written by `gpt4image encode`")
    parser.add_argument("--out", type=Path, default=Path("vit"), help="folder for checkpoints and the plain model")
    parser.add_argument("--epochs", type=int, default=10)
    parser.add_argument("--batch-size", type=int, default=64)
    parser.add_argument("--image-size", type=int, default=64)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--resume", action="store_true", help="go on from the last checkpoint")
    args = parser.parse_args()

    to_tensor = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize([0.5] * 3, [0.5] * 3)]
    augment = v2.Compose([v2.RandomResizedCrop(args.image_size, (0.5, 1.0)), v2.RandomHorizontalFlip(), *to_tensor])
    resize = v2.Compose([v2.Resize((args.image_size, args.image_size)), *to_tensor])
    train = DescribedImages(args.data, args.embeddings, transform=augment)
    test = DescribedImages(args.data, args.embeddings, split="test", transform=resize)
    print(train.coverage)

    size = {"hidden_size": 128, "intermediate_size": 512, "num_hidden_layers": 4, "num_attention_heads": 4}
    labels = dict(enumerate(train.classes))
    config = ViTConfig(image_size=args.image_size, patch_size=args.image_size // 8, id2label=labels, **size)
    torch.manual_seed(0)
    plain = AutoModelForImageClassification.from_config(config)
    model = AlignedClassifier(plain, text_width=train.text_width)

    settings = TrainingArguments(
        output_dir=str(args.out / "checkpoints"),
        num_train_epochs=args.epochs,
        per_device_train_batch_size=args.batch_size,
        learning_rate=1e-3,
        dataloader_drop_last=True,
        dataloader_num_workers=args.workers,
        dataloader_pin_memory=torch.cuda.is_available(),
        eval_strategy="epoch",
        save_strategy="epoch",
        save_total_limit=1,
        logging_steps=1,
        report_to="none",
    )
    trainer = Trainer(model, settings, collate_described, train, test, compute_metrics=accuracy)
    trainer.train(resume_from_checkpoint=args.resume or None)
    print(trainer.evaluate())
    model.save_pretrained(args.out / "plain")  # loads with from_pretrained: nothing of the text is in it
    print(f"saved {args.out / 'plain'}")


if __name__ == "__main__":
    main()
