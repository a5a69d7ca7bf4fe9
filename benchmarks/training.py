"""Input pipeline, alignment and precision, on real training steps over the packaged pictures."""

from __future__ import annotations

import tempfile
from collections import deque
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch

from gpt4image.config import TrainConfig
from gpt4image.data.known_sets import DESCRIPTIONS
from gpt4image.training.prepare import Prepared
from measure import Row, seconds_in_turn

STEPS = 20


def prepared(folder: Path, **options: Any) -> Prepared:
    """Return the demo's data and options, with embeddings of the packaged descriptions."""
    from gpt4image.config import DescribeConfig, EncodeConfig
    from gpt4image.describing.describe import describe
    from gpt4image.encoding.encode import encode
    from gpt4image.training.prepare import prepare

    table, store = folder / "table", folder / "store.db"
    describe(DescribeConfig(data="openmoji", store=store, describer=f"replay:{DESCRIPTIONS}"))
    encode(EncodeConfig(store=store, out=table))
    return prepare(TrainConfig(data="openmoji", embeddings=table, image_size=48, out=folder / "run", **options))


def pipeline() -> list[Row]:
    from gpt4image.training.trainer import build

    with tempfile.TemporaryDirectory() as name:
        ready = prepared(Path(name))
        ready = replace(ready, data=replace(ready.data, text=None))
        trainer = build(ready.config.resolved, ready.data)
        return [over_one_batch(ready, trainer), _against_dataloader(ready, trainer)]


def augmented(images: Any, how: Any) -> Any:
    """Return what a training step sees of images (B, C, S, S) uint8."""
    from gpt4image.training.augment import BatchRng, random_geometry, recoloured

    rng = BatchRng(generator=torch.default_generator, total=len(images), rows=torch.arange(len(images)))
    pixels = recoloured(random_geometry(images.shape[-1], how, rng).pixels(images), how, rng)
    return pixels.contiguous(memory_format=torch.channels_last)


def over_one_batch(ready: Prepared, trainer: Any, steps: int = STEPS) -> Row:
    """Compare training steps with steps on one batch that was made before."""
    from gpt4image.training import loop

    data, batches = ready.data, trainer.batches
    step = [0]

    def as_it_is() -> None:
        for pixels in data.pixels.stream(batches.batch(step[0] + number) for number in range(steps)):
            loop.train_step(trainer, step[0], 0, pixels)
            step[0] += 1

    images = batches.batch(0)
    pixels = next(iter(data.pixels.stream([images])))
    ready_made = augmented(pixels, trainer.augmentation)
    targets = data.targets(images)
    autocast, layout = loop.autocast, loop.memory_format_of(ready.config.memory_format)

    def one_batch() -> None:
        for number in range(steps):
            trainer.model.train()
            trainer.scheduler.step_update(number)
            with autocast(trainer.device, ready.config.precision):
                logits, _ = trainer.model(ready_made.contiguous(memory_format=layout))
            loss = data.task.loss(logits, targets, ready.config.label_smoothing)
            loss.backward()
            trainer.optimizer.step()
            trainer.optimizer.zero_grad(set_to_none=True)
            float(loss.detach())

    ours, limit = seconds_in_turn(as_it_is, one_batch)
    return Row("steps/s, pipeline over one batch", steps / ours, steps / limit, "steps/s", ">= 0.95")


def _against_dataloader(ready: Prepared, trainer: Any) -> Row:
    """Compare only the making of augmented, normalised batches."""
    from PIL import Image
    from torch.utils.data import DataLoader
    from torchvision.transforms import v2

    data, how = ready.data, trainer.augmentation
    train = data.indices("train")
    images: Any = data.pixels
    pictures = [Image.fromarray(array) for array in images.images[train].permute(0, 2, 3, 1).numpy()]
    margin = round(how.shift * how.size)
    moved = [v2.RandomCrop(how.size, padding=margin, padding_mode="reflect"), v2.RandomHorizontalFlip()]
    read = [v2.ToImage(), v2.ToDtype(torch.float32, scale=True), v2.Normalize(how.mean, how.std)]
    transform = v2.Compose([*moved, *read])

    def collated(some: list[Image.Image]) -> torch.Tensor:
        return torch.stack(list(map(transform, some)))

    size = ready.config.batch_size

    def ours() -> None:
        order = np.random.permutation(train)
        for pixels in data.pixels.stream(order[start : start + size] for start in range(0, len(order), size)):
            augmented(pixels, how)

    timed = []
    for workers in (0, 1, 2, 4):
        several: dict[str, Any] = {"num_workers": workers, "persistent_workers": workers > 0}
        loader: Any = DataLoader(pictures, batch_size=size, shuffle=True, collate_fn=collated, **several)  # type: ignore[arg-type]
        timed.append(seconds_in_turn(ours, partial(deque, loader, 0), rounds=3))
    mine, best = map(min, zip(*timed, strict=True))
    name = "images/s of batches, ours over the best DataLoader"
    return Row(name, len(train) / mine, len(train) / best, "images/s", ">= 8")


def steps(trainer: Any, count: int = STEPS) -> None:
    from gpt4image.training import loop

    numbers = (trainer.batches.batch(number) for number in range(count))
    for number, pixels in enumerate(trainer.data.pixels.stream(numbers)):
        loop.train_step(trainer, number, 0, pixels)


def alignment() -> list[Row]:
    """Measure a ResNet-18 and the small model of the demo: the alignment costs both the same few milliseconds."""
    from gpt4image.parallel.devices import peak_memory_bytes, reset_peak_memory
    from gpt4image.training.trainer import build

    rows: list[Row] = []
    for model, count in (("resnet18", 5), (None, STEPS)):
        with tempfile.TemporaryDirectory() as name:
            ready = prepared(Path(name), model=model)
            plain = build(ready.config.resolved, replace(ready.data, text=None))
            aligned = build(ready.config.resolved, ready.data)
            ours, limit = seconds_in_turn(partial(steps, aligned, count), partial(steps, plain, count), rounds=9)
            memory = []
            for trainer in (aligned, plain):
                reset_peak_memory(trainer.device)
                steps(trainer, count)
                memory.append(peak_memory_bytes(trainer.device) / 1e6)
        label = f"with alignment over without, {model or 'the small model'}"
        rows.append(Row(f"step time, {label}", ours / count * 1e3, limit / count * 1e3, "ms", "<= 1.03"))
        rows.append(Row(f"peak memory, {label}", memory[0], memory[1], "MB", "<= 1.03"))
    return rows


def precision() -> list[Row]:
    from gpt4image.training.trainer import build

    rows: list[Row] = []
    for model in (None, "tf_efficientnet_lite0"):
        with tempfile.TemporaryDirectory() as name:
            ready = prepared(Path(name), model=model)
            data = replace(ready.data, text=None)
            plain = ready.config.model_copy(update={"precision": "fp32", "memory_format": "contiguous"})
            chosen, default = (build(config.resolved, data) for config in (ready.config, plain))
            ours, limit = seconds_in_turn(partial(steps, chosen), partial(steps, default), rounds=5)
            images = STEPS * ready.config.batch_size
        what = f"{model or 'the small model'}, {ready.config.precision} {ready.config.memory_format}"
        label = f"images/s, {what} over fp32 contiguous"
        rows.append(Row(label, images / ours, images / limit, "images/s", ">= 1.8"))
    return rows
