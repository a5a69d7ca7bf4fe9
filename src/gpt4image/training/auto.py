"""Options chosen from the set where the user names none, so that the baseline is trained to the end.

The rules are plain on purpose and were set on the validation part of CIFAR-10 for the *baseline*; the search is in
docs/research/log.md. What was chosen is printed and kept in the run record.
"""

from pathlib import Path
from typing import Any, Literal

import numpy as np

from gpt4image.artifacts import runs
from gpt4image.base.errors import DecodeError
from gpt4image.config import TrainOptions
from gpt4image.config.learning import PRETRAIN
from gpt4image.data.dataset import Dataset
from gpt4image.data.video import USUAL_FRAMES
from gpt4image.models.backbones import convolves, has_batch_norm, has_small_stem, operations_behind, pretrained_weights
from gpt4image.models.hugging_face import OF_TRANSFORMERS
from gpt4image.parallel.devices import choose_device, suited_memory_format, suited_precision
from gpt4image.tasks.base import Task

SMALL_MODEL = ("resnet10t", {"channels": [16, 32, 64, 128], "stem_width": 8})
PRETRAINED_MODEL = "resnet18"  # where none is named
SMALL_SET = 20_000
LARGE_SET = 200_000
SIDES_SAMPLED = 100
# A batch norm undoes the scale of the weights before it, so that a higher rate suits them; it suited a ConvNeXt too.
MUON_LR, MUON_LR_OF_OTHERS, ADAPTIVE_LR, SGD_LR_AT_256 = 0.02, 5e-3, 1e-3, 0.1
# timm's names of SGD: with Nesterov's momentum, and with the classical one
WEIGHT_DECAY, ADAPTIVE_WEIGHT_DECAY = {"muon": 0.3, "sgd": 5e-4, "momentum": 5e-4}, 0.05
FINE_TUNING = 0.1  # part of the learning rate from scratch, but see learning_rate
# Crops show objects at more sizes, and no second time as mirrored borders do.
DENSE = ("detection", "segmentation")
DENSE_DEFAULTS = {"min_scale": 0.4, "shift": 0.0}
DENSE_BATCH = 16
# Unchanged pixels give the same features, which are then computed once; see run_model.with_features.
FROZEN_DEFAULTS = {"flip": False, "shift": 0.0}
CACHED = ("classification", "multilabel")
"""Tasks whose default, from pretrained weights on a CPU, is to train the last stages on kept activations."""
MINUTES, SPEED = 10, 4e10
"""That these stages may take, by the floating-point operations per second of one thread."""
EPOCHS_OF_STAGES = 12
VIEWS = 4
"""Random views of a training image whose activations are kept beside those of the plain one."""
STAGES_DEFAULTS = {
    "min_scale": 0.5,
    "shift": 0.0,
    "new_layers_lr_scale": 3.0,
    "label_smoothing": 0.0,
    "epochs": EPOCHS_OF_STAGES,
    "batch_size": 32,
}
# Pretrained weights know things at their own size: small pictures serve them better enlarged (docs/research/log.md).
PRETRAINED_SIZE = 96


def choose(config: TrainOptions, image_set: Dataset) -> tuple[Any, dict[str, Any]]:
    """Fill in every option that is None or "auto"; return the options, which can now be ``resolved``, and those
    chosen.
    """
    count, named = len(image_set.indices("train")), config.model_fields_set
    chosen: dict[str, Any] = {}

    def fill(name: str, value: Any) -> Any:
        given = getattr(config, name)
        if given is None or given == "auto":
            chosen.setdefault(name, value)
        return chosen.get(name, given)

    init = fill("init", start(config, count))
    if image_set.clips:
        fill("frames", USUAL_FRAMES)
    dense = config.task in DENSE
    if config.model is None:
        of_run = model_of_run(init)
        chosen |= {name: value for name, value in of_run.items() if getattr(config, name) in (None, "auto", {})}
    size = config.image_size or chosen.get("image_size") or image_size(image_set, count, init)
    fill("image_size", size)
    small = count < SMALL_SET and size <= 96 and init != "pretrained"
    if config.model is None and "model" not in chosen and small and not config.model_args:
        chosen["model_args"] = SMALL_MODEL[1]
    model = fill("model", SMALL_MODEL[0] if small else PRETRAINED_MODEL)
    device = choose_device(config.device).type
    freeze = fill("freeze", "none" if init != "pretrained" or device != "cpu" else freezing(config, count, model, size))
    frozen = freeze != "none" and not dense and not image_set.clips
    own: dict[str, Any] = (
        DENSE_DEFAULTS if dense else {} if not frozen else FROZEN_DEFAULTS if freeze == "all" else STAGES_DEFAULTS
    )
    chosen |= {name: value for name, value in own.items() if name not in named}
    usual = chosen.pop("batch_size", DENSE_BATCH if dense else batch_size(count))
    batch = fill("batch_size", min(usual, max(2, count)))
    fill("epochs", epochs(max(count, 1), init))
    fill("precision", suited_precision(device))
    fill("memory_format", suited_memory_format(device, convolves=convolves(model)))
    fill("stem", "small" if size <= 96 and init != "pretrained" and has_small_stem(model) else "standard")
    # Muon needs whole weight matrices, and without batch norm its rate was searched only on small sets, from scratch.
    # On frozen features it overfits the one layer that learns: accuracy was 5.4 points below that of adamw on clothes
    # (docs/research/records/clothes.csv).
    excluded = frozen or model.startswith(OF_TRANSFORMERS)
    muon = not excluded and (has_batch_norm(model) or (init == "scratch" and count < LARGE_SET))
    optimizer = fill("optimizer", "muon" if muon else "adamw")
    fill("lr", learning_rate(optimizer, init, batch * config.grad_accumulation, model, frozen=freeze == "all"))
    fill("weight_decay", WEIGHT_DECAY.get(optimizer.lower(), ADAPTIVE_WEIGHT_DECAY))
    return config.model_copy(update=chosen), chosen


def freezing(config: TrainOptions, count: int, model: str, size: int) -> str:
    """Return how many stages stay as they are: half of them, or as many more as let a run end within MINUTES.

    That is meant for one thread of a CPU; "none" where pixels are drawn anew for each step, or a model has no stages.
    """
    draws = (config.auto_augment, config.mixes, config.colour, config.erase, config.consistency, config.compile)
    if any(draws) or config.task not in CACHED:
        return "none"
    found = seconds_behind(model, size, count, config.epochs or EPOCHS_OF_STAGES)
    half = -(-len(found) // 2)
    return str(next((n for n in range(half, len(found)) if found[n - 1] <= 60 * MINUTES), len(found)) or "none")


def seconds_behind(model: str, size: int, images: int, epochs: int) -> list[float]:
    """Return about how long one thread takes if what is behind each stage of a model learns; [] if it has none."""
    # The other stages see each view once. A step computes outputs, then the gradients of activations and of weights.
    total, *behind = operations_behind(model, size) or (0,)
    return [images * ((1 + VIEWS) * (total - each) + 3 * epochs * each) / SPEED for each in behind]


def start(config: TrainOptions, count: int) -> Literal["scratch", "pretrained"]:
    """Return scratch, or cached pretrained weights if they fit."""
    fit = config.task != PRETRAIN and count < LARGE_SET and not config.model_args and config.stem != "small"
    return "pretrained" if config.model and fit and pretrained_weights(config.model) == "here" else "scratch"


def model_of_run(init: str) -> dict[str, Any]:
    """Return the model of the run that a file of weights belongs to, and its input; nothing for other files."""
    folder = Path(init).parent
    if Path(init).name != runs.MODEL or not runs.is_finished(folder):
        return {}
    own = runs.read_config(folder)
    return {name: own[name] for name in ("model", "model_args", "stem", "image_size") if own.get(name)}


def image_size(image_set: Dataset, count: int, init: str) -> int:
    """Return the input side in pixels from the typical shorter side of the training images."""
    side = typical_side(image_set)
    for limit, size in ((40, 32), (56, 48), (100, 64)):
        if side <= limit:
            return PRETRAINED_SIZE if init == "pretrained" else size
    return 128 if (count < SMALL_SET and init == "scratch") or side < 192 else 224


def typical_side(image_set: Dataset) -> int:
    """Return the median shorter side, in pixels, of training images spread evenly over the set (headers are read)."""
    from gpt4image.data.decode import sides
    from gpt4image.data.video import frame_size

    size_of = frame_size if image_set.clips else sides
    train = image_set.indices("train")
    shorter: list[int] = []
    for index in train[np.linspace(0, len(train) - 1, min(len(train), SIDES_SAMPLED)).astype(int)]:
        try:
            shorter.append(min(size_of(image_set.read(int(index)))))
        except (DecodeError, OSError, ValueError):
            continue  # A broken image is skipped by name where pixels are loaded.
    return int(np.median(shorter)) if shorter else 224


def stored_size(config: TrainOptions, *, squash: bool = False) -> int:
    """Return the side that pixels are kept at: larger than the input where random resized crops are cut from them."""
    size = config.image_size or 224
    return size if config.min_scale == 1.0 or squash else round(size * 256 / 224)


def stored_as(config: TrainOptions, task: Task) -> dict[str, Any]:
    """Return how the pixels of a run are kept, as ``data.pixels`` takes it; see ``stored_size``."""
    return {"size": stored_size(config, squash=task.squash), "squash": task.squash, "frames": task.frames}


def batch_size(count: int) -> int:
    """Return the images per step for a train split of ``count`` images."""
    for limit, size in ((300, 16), (1000, 32), (SMALL_SET, 64), (LARGE_SET, 128)):
        if count < limit:
            return size
    return 256


def epochs(count: int, init: str) -> int:
    """Return the passes over a train split of ``count`` images."""
    if count >= LARGE_SET:
        return 90
    # From scratch, 120 were better than 60 for only labels on 2,000 photographs (docs/research/log.md, 2026-11-27).
    passes, least = (240_000 / count, 60) if init == "scratch" else (60_000 / count, 30)
    return int(np.clip(round(passes), least, 200))


def learning_rate(optimizer: str, init: str, images_per_step: int, model: str, *, frozen: bool = False) -> float:
    """Return the peak learning rate."""
    name, gentle = optimizer.lower(), init != "scratch"
    if name == "muon":
        rate = MUON_LR if model.startswith("convnext") or has_batch_norm(model) else MUON_LR_OF_OTHERS
    elif name in ("sgd", "momentum"):
        rate = SGD_LR_AT_256 * images_per_step / 256
    else:  # a tenth of it left a model with batch norm far from the end (docs/research/log.md, 2026-11-27)
        rate, gentle = ADAPTIVE_LR, gentle and (frozen or not has_batch_norm(model))
    return rate * (FINE_TUNING if gentle else 1.0)
