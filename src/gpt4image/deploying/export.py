"""The stage export: the model of a finished run as others load it, checked against the run, with a model card.

It is written beside its place, loaded as users load it and compared to the run on real images; only then does it move
to ``--out``. So whatever breaks on the way, in a library or here, is seen before anybody uses it.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Generator
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING

from gpt4image.artifacts import runs
from gpt4image.artifacts.comparisons import COMPARISON, load_arm_runs, load_comparisons
from gpt4image.artifacts.runs import Run
from gpt4image.base.errors import ConfigError, DataError, ExportError, MissingExtraError, RunError, first_line
from gpt4image.base.files import staging_folder, write_text
from gpt4image.base.manifest import manifest_of, write_manifest
from gpt4image.config import ExportConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.config.deploying import FORMAT_SUFFIXES
from gpt4image.config.results import ExportResult
from gpt4image.deploying.loading import CARD

if TYPE_CHECKING:
    from gpt4image.data import Dataset
    from gpt4image.tasks.base import Task


def export(config: ExportConfig, task: Task | None = None) -> ExportResult:
    """Write the model of a finished run, and check that it predicts what the run's model predicts.

    ``task`` is that of the run, if the registry lacks it. Raises ExportError: the images for the check are not here,
    the model cannot be put into the format, it predicts something else there, or the hub does not take it.
    """
    _check_place(config)
    run_dir, chosen = best_run(config.run_dir)
    config = config.model_copy(update={"run_dir": run_dir})
    runs.read_run(run_dir)
    runs.require_predicting(run_dir)
    if config.push_to_hub:
        require_login()
    from gpt4image.deploying import formats
    from gpt4image.deploying.loading import load_classifier
    from gpt4image.deploying.model_card import model_card
    from gpt4image.training.run_model import load_run_model, timm_form

    form = config.format
    if form == "onnx":
        formats.require_onnx()
    classes = runs.class_names(run_dir)
    model = load_run_model(run_dir, task, classes)
    exported = formats.ExportedModel(run_dir=run_dir, model=model, classes=classes)
    if form == "timm" and not model.task.in_timm:
        raise ExportError(
            f"--format timm: timm has no models for {model.task.name}; use --format onnx or torch-export."
        )
    predicted = formats.predicted_by_run(model, _images(config, model.config))
    with staging_folder(config.out.parent) as staging:
        path = staging / config.out.name
        if form == "torch-export":  # checked in memory: a .pt2 file is never loaded
            classifier = formats.write_torch_export(path, exported)
        else:
            (formats.write_timm if form == "timm" else formats.write_onnx)(path, exported)
            classifier = load_classifier(path, task=task)
        check = (len(predicted.indices), f"{formats.largest_difference(classifier, predicted):.1e}")
        card = model_card(exported, config, check)
        names = [path.name] if path.is_file() else sorted(file.name for file in path.iterdir())
        write_manifest(manifest_of(path), names)
        write_text(_card(config, path), card)
    small_stem = form == "timm" and exported.needs_small_stem
    return ExportResult(
        path=config.out,
        run=run_dir if chosen else None,
        chosen=chosen or None,
        format=form,
        model=timm_form(model.config)[0] if form == "timm" else model.config.resolved.model,
        classes=len(classes),
        checked_on=f"{check[0]} images of {predicted.images.spec}",
        largest_difference=check[1],
        card=_card(config, config.out),
        needs="`import small_stem` (the file is in the folder) before timm loads it" if small_stem else None,
        hub=push(config, config.push_to_hub) if config.push_to_hub else None,
        skipped=predicted.skipped,
    )


def _check_place(config: ExportConfig) -> None:
    suffix = FORMAT_SUFFIXES[config.format]
    if suffix and config.out.suffix != suffix:
        raise ConfigError(f"--out {config.out}: a file of --format {config.format} ends with {suffix}.")
    card = _card(config, config.out)
    half = card.is_file() and "gpt4image" in card.read_text(encoding="utf-8", errors="replace")  # of a killed export
    for path in (config.out, *(() if half else (card,))):
        if path.exists() or path.is_symlink():
            raise ConfigError(f"{path} exists already; give another --out.")


def _card(config: ExportConfig, path: Path) -> Path:
    return path / CARD if config.format == "timm" else path.with_name(f"{path.name}.md")


def _images(config: ExportConfig, run: TrainConfig) -> Dataset:
    from gpt4image.data import load_with_splits

    spec = config.data or run.data
    try:
        return load_with_splits(spec, val_fraction=run.val_fraction, test_fraction=run.test_fraction)
    except (DataError, ConfigError, MissingExtraError) as error:
        raise ExportError(
            f"The check of the export needs images, and those of {spec} cannot be read: {error} Give --data SPEC: "
            "any images of the same kind will do, with or without labels."
        ) from None


def best_run(folder: Path) -> tuple[Path, str]:
    """Return a run of a comparison, and why it was chosen; of another folder the folder itself, and nothing.

    Of the baseline and the arms that learn from descriptions, the one with the best mean on validation images gives its
    best seed. Choosing by test scores would flatter the model. Raises RunError: the record or a run is damaged, or no
    candidate has a validation score.
    """
    if not (folder / COMPARISON).is_file():
        return folder, ""
    comparison = next(iter(load_comparisons(folder).values()))
    every, unreadable = load_arm_runs(folder, comparison)
    if unreadable:
        raise RunError(f"{folder}: {unreadable[0].name}: {unreadable[0].reason} Name one of the other runs.")
    metric, best = comparison.metric, max if comparison.higher_is_better else min

    def score(run: Run) -> float | None:  # of the weights that it kept
        scores = [value for epoch in run.metrics if epoch.val and (value := epoch.val.get(metric)) is not None]
        return None if not scores else best(scores) if run.config.get("select") == "best" else scores[-1]

    candidates: dict[str, list[tuple[float, Run]]] = {}
    for name, found in every.items():
        scored = [(value, run) for run in found if (value := score(run)) is not None]
        if scored and (name == "baseline" or (name in ARMS and ARMS[name].headline)):
            candidates[name] = scored
    if not candidates:
        raise RunError(
            f"{folder}: no run of the baseline or of an arm with descriptions has a score on validation images, so "
            f"none can be chosen; name one of the runs below {folder / 'runs'}."
        )
    arm = best(candidates, key=lambda name: mean(score for score, _ in candidates[name]))
    value, run = best(candidates[arm], key=lambda scored: scored[0])
    why = (
        f"arm {arm}, seed {run.config.get('seed')}: val {metric} {value:.4f}; by the mean over seeds the best of "
        f"{', '.join(candidates)}"
    )
    return run.folder, why


def require_login() -> None:
    """Check that the Hugging Face hub accepts a token. Raises ExportError."""
    from huggingface_hub import HfApi

    with _explained("--push-to-hub needs a token of the hub that may write: set HF_TOKEN, or give `hf auth login`"):
        HfApi().whoami()


def push(config: ExportConfig, repository: str) -> str:
    """Put an export into a model repository of the hub as one commit, and return its address. Raises ExportError.

    A ``repository`` that does not exist is made, and is private.
    """
    from huggingface_hub import CommitOperationAdd, HfApi

    out = config.out
    is_folder = out.is_dir()
    files = {path.name: path for path in out.iterdir()} if is_folder else {out.name: out, CARD: _card(config, out)}
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    places = [[str(out)]] if is_folder else [[str(path), name] for name, path in files.items()]
    again = " && ".join(shlex.join(["hf", "upload", "--private", repository, *place]) for place in places)
    with _explained(f"The export is complete on this machine, but not at {repository}: try `{again}`"):
        api = HfApi(library_name="gpt4image")
        url = api.create_repo(repository, private=True, exist_ok=True)
        api.create_commit(repository, operations, commit_message=f"gpt4image export --format {config.format}")
    return str(url)


@contextlib.contextmanager
def _explained(what: str) -> Generator[None]:
    try:
        yield
    except Exception as error:  # noqa: BLE001  (those of the client and of its HTTP library have no common class)
        raise ExportError(f"{what}. The Hugging Face hub says: {first_line(error)}") from None
