"""The stage export: the model of a finished run as others load it, checked against the run, with a model card.

It is written beside its place, loaded as users load it and compared to the run on real images; only then does it move
to ``--out``. So whatever breaks on the way, in a library or here, is seen before anybody uses it.
"""

from __future__ import annotations

import contextlib
from collections.abc import Generator
from pathlib import Path
from typing import TYPE_CHECKING

from gpt4image.artifacts import runs
from gpt4image.base.checksums import card_section
from gpt4image.base.errors import ConfigError, DataError, ExportError, MissingExtraError
from gpt4image.base.files import make_folder, staging_folder, write_text
from gpt4image.base.locks import LockedError, acquire_lock
from gpt4image.config import ExportConfig, TrainConfig
from gpt4image.config.deploying import FORMAT_SUFFIXES
from gpt4image.config.results import ExportResult
from gpt4image.deploying import hub
from gpt4image.deploying.best_run import best_run
from gpt4image.deploying.loading import CARD

if TYPE_CHECKING:
    from gpt4image.data import ImageSet
    from gpt4image.deploying.exported_model import ExportedModel
    from gpt4image.deploying.loading import Classifier
    from gpt4image.tasks.base import Task


def export(config: ExportConfig, task: Task | None = None) -> ExportResult:
    """Write the model of a finished run, and check that it predicts what the run's model predicts.

    Files are written beside their place and moved there once the check has passed. ``task`` is that of the run, if the
    registry lacks it.

    Raises:
        ConfigError: ``out`` exists or has not the suffix of its format.
        RunError, ModelError: no finished run, or its weights do not fit.
        ExportError: the images for the check are not here, the model cannot be put into the format, it predicts
            something else there, or the hub does not take it.
        MissingExtraError: the extra ``onnx`` is not installed.
    """
    _check_place(config)
    run_dir, chosen = best_run(config.run_dir)
    config = config.model_copy(update={"run_dir": run_dir})
    runs.read_run(run_dir)
    runs.require_predicting(run_dir)
    with _alone(config.out):
        _check_place(config)
        return _export(config, chosen, task)


@contextlib.contextmanager
def _alone(out: Path) -> Generator[None]:
    """Let no other export write to a place meanwhile. Raises ConfigError: one does."""
    make_folder(out.parent)
    place = out.with_name(f".{out.name}.lock")
    try:
        lock = acquire_lock(place, wait_s=0)
    except LockedError as error:
        raise ConfigError(f"{error} exports to {out}; wait until it is done, or give another --out.") from None
    try:
        yield
    finally:
        place.unlink(missing_ok=True)
        lock.release()


def _export(config: ExportConfig, chosen: str, task: Task | None) -> ExportResult:
    if config.push_to_hub:
        hub.require_login()
    from gpt4image.deploying import agreement, graphs
    from gpt4image.deploying.model_card import model_card
    from gpt4image.deploying.timm_folder import needs_small_stem

    if config.format == "onnx":
        graphs.require_onnx()
    exported = _exported_model(config.run_dir, task)
    if config.format == "timm" and not exported.model.task.in_timm:
        raise ExportError(
            f"--format timm: timm has no models for {exported.model.task.name}; use --format onnx or torch-export."
        )
    images = agreement.images_to_compare(_images(config, exported.model.config))
    ours, usable, skipped = agreement.run_probabilities(exported.model, images)
    with staging_folder(config.out.parent) as staging:
        path = staging / config.out.name
        classifier = _write(config.format, path, exported, task)
        found = agreement.agreement(
            exported.model.task, ours, agreement.exported_probabilities(classifier, images, usable)
        )
        card = model_card(
            exported,
            config.format,
            path=config.out,
            agreement=found,
            data_licence=config.data_licence,
            repository=config.push_to_hub,
        )
        names = [path.name] if path.is_file() else sorted(file.name for file in path.iterdir())
        write_text(_card(config, path), card_section(card, path if path.is_dir() else staging, names))
    small_stem = config.format == "timm" and needs_small_stem(exported)
    return ExportResult(
        path=config.out,
        run=config.run_dir if chosen else None,
        chosen=chosen or None,
        format=config.format,
        model=exported.in_timm()[0] if config.format == "timm" else exported.model.config.resolved.model,
        classes=len(exported.classes),
        checked_on=f"{found.images} images of {images.spec}",
        largest_difference=f"{found.largest_difference:.1e}",
        card=_card(config, config.out),
        needs="`import small_stem` (the file is in the folder) before timm loads it" if small_stem else None,
        hub=_pushed(config, config.push_to_hub) if config.push_to_hub else None,
        skipped=skipped,
    )


def _check_place(config: ExportConfig) -> None:
    suffix = FORMAT_SUFFIXES[config.format]
    if suffix and config.out.suffix != suffix:
        raise ConfigError(f"--out {config.out}: a file of --format {config.format} ends with {suffix}.")
    card = _card(config, config.out)
    half = card.is_file() and "gpt4image" in card.read_text(encoding="utf-8", errors="replace")  # of a killed export
    for path in (config.out, *(() if half else (card,))):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} exists already; give another --out, or remove it.")


def _card(config: ExportConfig, path: Path) -> Path:
    return path / CARD if config.format == "timm" else path.with_name(f"{path.name}.md")


def _write(form: str, path: Path, exported: ExportedModel, task: Task | None) -> Classifier:
    """Write a format, and return what was written as users load it; a .pt2 file is checked in memory, never loaded."""
    from gpt4image.deploying import graphs, timm_folder
    from gpt4image.deploying.loading import load_classifier

    if form == "torch-export":
        return graphs.write_torch_export(path, exported)
    (timm_folder.write_timm_folder if form == "timm" else graphs.write_onnx)(path, exported)
    return load_classifier(path, task=task)


def _exported_model(run_dir: Path, task: Task | None) -> ExportedModel:
    from gpt4image.deploying.exported_model import ExportedModel
    from gpt4image.training.run_model import load_run_model

    classes = runs.class_names(run_dir)
    return ExportedModel(run_dir=run_dir, model=load_run_model(run_dir, task, classes), classes=classes)


def _images(config: ExportConfig, run: TrainConfig) -> ImageSet:
    from gpt4image.data import load_with_splits

    spec = config.data or run.data
    try:
        return load_with_splits(spec, val_fraction=run.val_fraction, test_fraction=run.test_fraction)
    except (DataError, ConfigError, MissingExtraError) as error:
        raise ExportError(
            f"The check of the export needs images, and those of {spec} cannot be read: {error} Give --data SPEC: "
            "any images of the same kind will do, with or without labels."
        ) from None


def _pushed(config: ExportConfig, repository: str) -> str:
    if config.format == "timm":
        files = {path.name: path for path in config.out.iterdir()}
    else:
        files = {config.out.name: config.out, CARD: _card(config, config.out)}
    return hub.push(repository, files, message=f"gpt4image export --format {config.format}", out=config.out)
