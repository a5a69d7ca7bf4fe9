"""A training script of timm's parts, put together as its train.py puts them together (timm 1.0.31), for a few steps.

That script is not in the package on PyPI. What matters is the same: what it imports and from where, the order (task,
moving average, optimiser of the task's module, resume), the prefetching loader, and the saver that asks the task.
"""

from __future__ import annotations

import argparse
import logging

import torch
from timm.data import FastCollateMixup, create_dataset, create_loader, resolve_data_config
from timm.loss import LabelSmoothingCrossEntropy, SoftTargetCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask, load_task_ema_checkpoint, resume_task_checkpoint
from timm.utils import CheckpointSaver, dispatch_clip_grad, random_seed, setup_default_logging

parser = argparse.ArgumentParser()
parser.add_argument("--data-dir", required=True)
parser.add_argument("--output", required=True)
parser.add_argument("--model", default="test_resnet")
parser.add_argument("--num-classes", type=int, required=True)
parser.add_argument("--img-size", type=int, default=32)
parser.add_argument("--batch-size", type=int, default=32)
parser.add_argument("--workers", type=int, default=0)
parser.add_argument("--epochs", type=int, default=1)
parser.add_argument("--lr", type=float, default=3e-3)
parser.add_argument("--mixup", type=float, default=0.0)
parser.add_argument("--smoothing", type=float, default=0.1)
parser.add_argument("--layer-decay", type=float)
parser.add_argument("--model-ema", action="store_true")
parser.add_argument("--no-prefetcher", dest="prefetcher", action="store_false")
parser.add_argument("--resume")


def main() -> None:
    setup_default_logging()
    args = parser.parse_args()
    device = torch.device("cpu")
    random_seed(0)
    model = create_model(args.model, num_classes=args.num_classes)
    data_config = resolve_data_config({"img_size": args.img_size}, model=model)
    mixup = {"mixup_alpha": args.mixup, "cutmix_alpha": 0.0, "label_smoothing": args.smoothing}
    loaders = {
        training: create_loader(
            create_dataset("", root=args.data_dir, split="train", is_training=training),
            input_size=data_config["input_size"],
            batch_size=args.batch_size,
            is_training=training,
            collate_fn=FastCollateMixup(**mixup, num_classes=args.num_classes) if training and args.mixup else None,
            mean=data_config["mean"],
            std=data_config["std"],
            scale=(0.5, 1.0),
            num_workers=args.workers,
            device=device,
            use_prefetcher=args.prefetcher,
        )
        for training in (True, False)
    }
    criterion = SoftTargetCrossEntropy() if args.mixup else LabelSmoothingCrossEntropy(args.smoothing)
    assert not ClassificationTask.multi_label  # a class, and not only something to call
    task = ClassificationTask(model=model, criterion=criterion, device=device, dtype=None, verbose=True)
    if args.model_ema:
        task.setup_ema(decay=0.5)
    optimizer = create_optimizer_v2(
        task.get_trainable_module(), opt="adamw", lr=args.lr, weight_decay=0.05, layer_decay=args.layer_decay
    )
    start = 0
    if args.resume:
        start = resume_task_checkpoint(task, args.resume, optimizer) or 0
        if args.model_ema:
            load_task_ema_checkpoint(task, args.resume)
    saver = CheckpointSaver(
        model=task.get_eval_model(), optimizer=optimizer, args=args, checkpoint_dir=args.output, task=task
    )
    step = 0
    for epoch in range(start, args.epochs):
        task.train()
        for images, target in loaders[True]:
            result = task(images, target)
            result["loss"].backward()
            dispatch_clip_grad(task.get_clip_parameters(exclude_head=False), value=1.0)
            optimizer.step()
            optimizer.zero_grad()
            step += 1
            task.update_ema(step=step)
            parts = ", ".join(f"{name} {value.item():.4f}" for name, value in result.items() if name != "output")
            logging.info("Train: %d %s", epoch, parts)
        for ema in (False, True)[: 1 + args.model_ema]:
            evaluated = task.get_eval_model(ema=ema).eval()
            evaluator = task.create_evaluator()
            with torch.inference_mode():
                for images, target in loaders[False]:
                    evaluator.update(evaluated(images), target)
            logging.info("Test%s: top1 %.2f", " (EMA)" if ema else "", evaluator.compute()["top1"])
        saver.save_checkpoint(epoch, metric=evaluator.compute()["top1"])


if __name__ == "__main__":
    main()
