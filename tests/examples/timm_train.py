"""A training script of timm's parts, put together as its train.py puts them together (timm 1.0.31), for a few steps.

That script is not in the package on PyPI. What matters is the same: what it imports and from where, the order (task,
moving average, optimiser of the task's module), the prefetching loader, and the saver that asks the task.
"""

import argparse

import torch
from timm.data import FastCollateMixup, create_dataset, create_loader
from timm.loss import SoftTargetCrossEntropy
from timm.models import create_model
from timm.optim import create_optimizer_v2
from timm.task import ClassificationTask
from timm.utils import CheckpointSaver


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--model", default="test_resnet")
    for option, kind in (("--data-dir", str), ("--output", str), ("--num-classes", int), ("--epochs", int)):
        parser.add_argument(option, type=kind, required=True)
    args, device = parser.parse_args(), torch.device("cpu")
    torch.manual_seed(0)
    mixup = FastCollateMixup(mixup_alpha=0.2, cutmix_alpha=0.0, label_smoothing=0.1, num_classes=args.num_classes)
    dataset = create_dataset("", root=args.data_dir, split="train", is_training=True)
    own = {"is_training": True, "collate_fn": mixup, "scale": (0.5, 1.0), "num_workers": 0, "device": device}
    loader = create_loader(dataset, input_size=(3, 32, 32), batch_size=32, **own)
    assert not ClassificationTask.multi_label  # a class, and not only something to call
    model = create_model(args.model, num_classes=args.num_classes)
    task = ClassificationTask(model=model, criterion=SoftTargetCrossEntropy(), device=device, dtype=None, verbose=True)
    task.setup_ema(decay=0.5)
    optimizer = create_optimizer_v2(task.get_trainable_module(), opt="adamw", lr=3e-3, weight_decay=0.05)
    model = task.get_eval_model()
    saver = CheckpointSaver(model=model, optimizer=optimizer, args=args, checkpoint_dir=args.output, task=task)
    for epoch in range(args.epochs):
        task.train()
        for step, (images, target) in enumerate(loader):
            result = task(images, target)
            result["loss"].backward()
            optimizer.step()
            optimizer.zero_grad()
            task.update_ema(step=epoch * len(loader) + step + 1)
            print("Train:", *(f"{name} {value.item():.4f}" for name, value in result.items() if name != "output"))
        saver.save_checkpoint(epoch, metric=0.0)


if __name__ == "__main__":
    main()
