"""Options that were given and change nothing in a run: whoever gives one expects something of it."""

from __future__ import annotations

from timm.optim import get_optimizer_info, list_optimizers  # pyright: ignore[reportPrivateImportUsage]

from gpt4image.config.base import flag_of
from gpt4image.config.learning import OF_ALIGNMENT, ResolvedOptions, TrainOptions
from gpt4image.training.training_data import TrainingData


def idle_options(config: ResolvedOptions, data: TrainingData) -> tuple[str, ...]:
    """Return a sentence for each reason why options that are not at their default have no effect in a run."""
    changed = TrainOptions.changed(dict(config))
    aligned = data.text is not None and (config.aligns or config.align_weight == 0.0)
    of_views = {"temperature"} if config.compares_views == "simclr" else set[str]()
    unread = "" if data.text is not None else " (--embeddings names the texts)"
    alone = "labelled_share" in changed and not len(data.pools()[1])  # looked up only if asked: it reads all targets
    reasons = {
        f"no features are aligned to texts{unread}": () if aligned else OF_ALIGNMENT - of_views,
        "its texts say next to nothing of these classes": {"text_labels"} if data.from_text is None else (),
        "crops of --min-scale take its place": {"shift"} if config.min_scale < 1.0 and config.shift > 0.0 else (),
        "--init scratch has only new layers": {"new_layers_lr_scale"} if config.init == "scratch" else (),
        f"--optimizer {config.optimizer} has none": {"momentum"} if _is_without_momentum(config.optimizer) else (),
        f"--task {data.task.name} has no labels to smooth": () if data.task.smooths else {"label_smoothing"},
        "no pixels are erased (--erase)": {"erase_with"} if config.erase == 0.0 else (),
        "there is no --consistency": {"confidence"} if config.consistency == 0.0 else (),
        "all training images have a target": {"labelled_share"} if alone else (),
    }
    found = {why: [flag_of(name) for name in sorted(changed) if name in names] for why, names in reasons.items()}
    return tuple(f"{', '.join(flags)}: no effect, since {why}." for why, flags in found.items() if flags)


def _is_without_momentum(optimizer: str) -> bool:
    """Return whether an optimiser of timm is known to have no momentum of its own."""
    return optimizer in list_optimizers() and not get_optimizer_info(optimizer).has_momentum
