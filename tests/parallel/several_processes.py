"""What the processes of test_processes.py do: the same on 1 and 2 of them, and the first one keeps the results.

Starting a process takes seconds, so all checks share one start.
"""

import contextlib
import multiprocessing
import os
import socket
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.multiprocessing as mp
from torch import Tensor

from gpt4image.base.errors import DataError, Gpt4ImageError
from gpt4image.config import TrainConfig
from gpt4image.data import annotation
from gpt4image.models.alignment_losses import LOSSES
from gpt4image.parallel import processes
from gpt4image.training import loop, run_model, trainer
from gpt4image.training.auto import choose
from gpt4image.training.prepare import prepare
from gpt4image.training.train import train
from small_training import StoppedError

COUNTS = (1, 2)
VIT = {
    "model": "vit_tiny_patch16_224",
    "model_args": {"depth": 2, "embed_dim": 16, "num_heads": 2, "patch_size": 8},
    "optimizer": "adamw",
}
RESNET = {"model": "resnet10t", "model_args": {"channels": [8, 8, 8, 8], "stem_width": 8}, "optimizer": "sgd"}
SHARED = {"image_size": 16, "batch_size": 16, "epochs": 2, "threads": 1, "precision": "fp32",
          "memory_format": "contiguous", "device": "cpu"}  # fmt: skip

SOFT = "text labels"  # how the names of cases begin whose targets are class probabilities

# AdamW makes steps of the rounding of gradients that are 0, as of biases of keys.
RUNS = {
    "copies": RESNET | {"mixup": 0.5, "cutmix": 1.0, "ema": 0.9, "grad_accumulation": 2, "lr": 0.05, "epochs": 4},
    "best of a ViT": VIT
    | {"ema": 0.9, "head": "mlp-bn", "drop_path": 0.3, "select": "best"}
    | {"optimizer": "sgd", "lr": 0.05},
}


def on_each_count(work: Callable[..., Any], *arguments: Any) -> None:
    """Start two processes; run ``work(*arguments)`` in one of them alone, and in all."""
    ports = [free_port() for _ in COUNTS]
    multiprocessing.set_forkserver_preload([__name__])  # libraries are read once
    start = mp.start_processes  # pyright: ignore[reportPrivateImportUsage]
    start(_process, (ports, work, arguments), nprocs=max(COUNTS), start_method="forkserver")


def free_port() -> int:
    """Return a port at which processes can meet."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def _process(rank: int, ports: list[int], work: Callable[..., Any], arguments: tuple[Any, ...]) -> None:
    torch.set_num_threads(1)
    run_model.EVAL_BATCH = 4  # so that each process reads several batches, and not all as many
    for count, port in zip(COUNTS, ports, strict=True):
        if rank < count:
            os.environ |= {"WORLD_SIZE": str(count), "RANK": str(rank), "LOCAL_RANK": str(rank)}  # as torchrun would
            os.environ |= {"MASTER_ADDR": "127.0.0.1", "MASTER_PORT": str(port), "LOCAL_WORLD_SIZE": str(count)}
            with processes.joined(torch.device("cpu")):
                work(count, *arguments)


def everything(count: int, root: Path, options: dict[str, Any], out: Path) -> None:
    """Do all that the tests look at: processes start once."""
    runs_of_each_count(count, options, out)
    agreements(count, out)
    gradients(count, root, options, out)


def gradient_cases() -> Iterator[tuple[str, dict[str, Any]]]:
    """Yield the name and the options of every case: each loss with each option of the alignment that it takes."""
    for loss in LOSSES:
        yield f"{loss} mixed", {"align_loss": loss, "mixup": 0.8, "cutmix": 1.0}
    augmented = {"min_scale": 0.3, "colour": 0.4, "erase": 0.5, "erase_with": "noise", "repeated_augmentation": 2}
    yield "few with a target, augmented", augmented | {"labelled_share": 0.25, "label_smoothing": 0.2, "drop_path": 0.5}
    yield "consistency mixed", {"consistency": 1.0, "confidence": 0.3, "mixup": 0.8, "drop_path": 0.5}
    batch_norm = RESNET | {"head": "mlp-bn", "grad_accumulation": 3, "mixup": 0.8, "drop_path": 0.5}
    yield "batch norm accumulation", batch_norm
    yield "simclr,captions", {"task": "pretrain", "pretrain": "simclr,captions"}
    yield f"{SOFT} mixed", {"mixup": 0.8, "label_smoothing": 0.2}


OTHERS = ("boxes", "masks")


def other_cases(root: Path, options: dict[str, Any]) -> Iterator[tuple[TrainConfig, Any]]:
    """Yield options and data of OTHERS: few images have a box or a mask."""

    def prepared(**changes: Any) -> tuple[TrainConfig, Any]:
        config = TrainConfig(**options | {"val_fraction": 0.0} | changes)
        data = prepare(config, ("train",)).data
        return config.model_copy(update={"task": data.task.name} if data.task.boxes else {}), data

    config, data = prepared(**RESNET, data=f"coco:{root / 'boxes' / 'train.json'}", image_size=64)
    yield config, replace(data, labels=annotation.hidden(data.labels, np.arange(len(data.labels)) % 3 == 0))
    config, data = prepared(**VIT, data=f"masks:{root / 'masks'}", image_size=32)
    hidden = annotation.hidden(data.labels, np.arange(len(data.labels)) % 3 > 0)
    yield config, replace(data, labels=hidden)


def gradients(count: int, root: Path, options: dict[str, Any], out: Path) -> None:
    """Write, for each case, the losses, the gradient of each parameter and the statistics after one backward pass; and
    what one model says of images that do not fill the last batches.
    """
    small = SHARED | {"lr": 0.01, "weight_decay": 0.0, "out": out}
    shared = TrainConfig(**options, **small, **VIT)
    data = prepare(shared, ("train",)).data
    soft = np.random.default_rng(0).dirichlet(np.ones(len(data.classes)), len(data.labels)).astype(np.float32)
    soft[::5] = 0.0  # no target
    others = zip(OTHERS, other_cases(root, small), strict=True)
    found = {name: gradient(*case) for name, case in others}
    for name, changes in [*gradient_cases(), ("paper", {"paper_compat": True})]:
        config = TrainConfig.model_validate(shared.model_dump() | changes)
        of_task = prepare(config, ("train",)).data if config.pretraining else data
        found[name] = gradient(config, replace(data, soft=soft) if name.startswith(SOFT) else of_task)
    found["said"] = {f"of {images}": said(shared, data, images) for images in (3, 13, 37)}
    if processes.rank() == 0:
        torch.save(found, out / f"{count}.pt")


def gradient(config: TrainConfig, data: Any) -> dict[str, Tensor]:
    torch.set_default_dtype(torch.float64)  # of the weights
    built = trainer.build(choose(config, data.image_set)[0], data)
    torch.set_default_dtype(torch.float32)
    built.model.backbone.register_forward_pre_hook(lambda _, inputs: (inputs[0].double(),))
    step, batches = 1, config.grad_accumulation
    losses = loop.gradient_of_step(built, step, 0, *loop.pixels_of(built, range(step * batches, (step + 1) * batches)))
    found = {f"loss {name}": torch.tensor(loss, dtype=torch.float64) for name, loss in losses.items()}
    found |= {name: p.grad.clone() for name, p in built.model.named_parameters() if p.grad is not None}
    return found | {f"buffer {name}": buffer.clone() for name, buffer in built.model.named_buffers()}


def said(config: TrainConfig, data: Any, images: int) -> Tensor:
    built = trainer.build(choose(config, data.image_set)[0], data)
    indices = data.indices("train")[:images]
    return torch.from_numpy(run_model.predict(built.model, data, indices, built.augmentation, config))


def runs_of_each_count(count: int, options: dict[str, Any], out: Path) -> None:
    """Train a run of each kind to its end, and one that every number of processes takes a step further."""
    for name, changes in RUNS.items():
        train(TrainConfig(**options | SHARED | changes, out=out / f"{name}-{count}"))
        handed_on = changes | {"checkpoint_seconds": 0.0, "resume": True}
        with contextlib.suppress(StoppedError), stopping_after(1):
            train(TrainConfig(**options | SHARED | handed_on, out=out / f"{name}-handed-on"))
    if count > 1:
        with pytest.raises(Gpt4ImageError, match="2 processes share each batch: --batch-size 9"):
            train(TrainConfig(**options | SHARED | RESNET | {"batch_size": 9}, out=out / "odd"))


@contextlib.contextmanager
def stopping_after(steps: int) -> Iterator[None]:
    """Let a run fail at the step after some more."""
    real, left = loop.train_step, iter(range(steps))

    def step(*arguments: Any) -> Any:
        if next(left, None) is None:
            raise StoppedError
        return real(*arguments)

    loop.train_step = step
    try:
        yield
    finally:
        loop.train_step = real


def agreements(count: int, out: Path) -> None:
    """Check what processes tell each other, with plain values."""
    rank, last = processes.rank(), count - 1
    assert processes.broadcast(f"from {rank}") == "from 0"
    assert processes.any_rank(rank == last, False) == (True, False)
    assert processes.all_gather_unique([rank, -1]) == (0, -1, *range(1, count))
    assert processes.all_gather_dict({5: "five", rank: str(rank)}) == [str(number) for number in range(count)] + [
        "five"
    ]
    order = out / f"order-{count}"
    processes.on_all_ranks(lambda: _append(order, str(rank)), first_ahead=True)
    assert order.read_text()[0] == "0" and len(order.read_text()) == count

    def fails_in_the_last() -> None:
        if rank == last:
            raise DataError("this one")

    with pytest.raises(Gpt4ImageError, match="^this one$" if rank == last else f"^Process {last}: this one$"):
        processes.on_all_ranks(fails_in_the_last)
    with pytest.raises(Gpt4ImageError, match="this one"):
        processes.on_all_ranks(fails_in_the_last, first_ahead=True)
    for kind in (torch.bool, torch.int64, torch.bfloat16, torch.float32):
        gathered = processes.gather(torch.full((2, 3), rank).to(kind))
        assert torch.equal(gathered, torch.arange(count).repeat_interleave(2)[:, None].expand(-1, 3).to(kind))
    processes.on_rank0(lambda: _append(out / "agreed", f"{count} processes"))


def _append(path: Path, text: str) -> int:
    with path.open("a") as file:
        return file.write(text)
