"""The stage export: a folder with the model of a finished run as others load it, checked against the run.

Whoever gets the folder needs nothing else: the model, its classes, preprocessing and decision, a model card with
licence notes, examples that run without gpt4image, checksums. It is written beside its place, loaded as users load it
and compared to the run on real images, then quantised if it is to be; only then does it move to ``--out``. So whatever
breaks on the way, in a library or here, is seen before anybody uses it.
"""

from __future__ import annotations

import contextlib
import shlex
from collections.abc import Generator
from pathlib import Path
from statistics import mean
from typing import TYPE_CHECKING, Any

from gpt4image.artifacts import runs
from gpt4image.artifacts.comparisons import COMPARISON, load_arm_runs, load_comparisons
from gpt4image.artifacts.runs import Run
from gpt4image.base.errors import ConfigError, DataError, ExportError, MissingExtraError, RunError, first_line
from gpt4image.base.files import staging_folder, write_text
from gpt4image.base.manifest import MANIFEST, write_manifest
from gpt4image.config import ExportConfig, TrainConfig
from gpt4image.config.arms import ARMS
from gpt4image.config.results import ExportResult
from gpt4image.deploying.loading import ABOUT, ONNX, TORCH_EXPORT

if TYPE_CHECKING:
    from gpt4image.data import Dataset
    from gpt4image.deploying.formats import ExportedModel, Predicted
    from gpt4image.deploying.loading import Classifier
    from gpt4image.deploying.quantise import Quantised
    from gpt4image.tasks.base import Task

CARD = "README.md"
FILE_ENDINGS = (".onnx", ".pt2")  # of a file that --out names by mistake


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
    from gpt4image.deploying import applications, benchmark, formats
    from gpt4image.deploying.model_card import examples, model_card
    from gpt4image.training.run_model import load_run_model, timm_form

    form = config.model_format
    if form == "onnx":
        formats.require_onnx()
    runtime = applications.web_runtime(config.onnxruntime_web) if config.format == "page" else None
    classes = runs.class_names(run_dir)
    model = load_run_model(run_dir, task, classes)
    exported = formats.ExportedModel(run_dir=run_dir, model=model, classes=classes)
    if form == "timm" and not model.task.in_timm:
        raise ExportError(
            f"--format timm: timm has no models for {model.task.name}; use --format onnx or torch-export."
        )
    if config.format in ("page", "server") and exported.metadata.preprocessing.frames:
        raise ExportError(f"--format {config.format}: it shows pictures, and this model takes clips; use onnx.")
    images = _images(config, model.config)
    predicted = formats.predicted_by_run(model, images)
    with staging_folder(config.out.parent) as staging:
        folder = staging / config.out.name
        folder.mkdir()
        classifier, check, quantised = _write_model(folder, exported, config, images, predicted)
        rows = _compared(run_dir, folder, classifier, images)
        if form != "timm":  # whose config.json says the same
            write_text(folder / ABOUT, exported.metadata.to_json())
        for name, code in examples(exported, config).items():
            write_text(folder / name, code)
        if runtime is not None:
            applications.write_page(folder, config.out.name, runtime)
        if config.format == "server":
            applications.write_server(folder)
        write_text(folder / CARD, model_card(exported, config, check, quantised, rows))
        files = (path.relative_to(folder).as_posix() for path in folder.rglob("*") if path.is_file())
        write_manifest(folder / MANIFEST, sorted(files))
    return ExportResult(
        path=config.out,
        run=run_dir if chosen else None,
        chosen=chosen or None,
        format=config.format,
        model=timm_form(model.config)[0] if form == "timm" else model.config.resolved.model,
        classes=len(classes),
        checked_on=f"{check[0]} images of {predicted.images.spec}",
        largest_difference=check[1],
        quantised={} if quantised is None else quantised.facts,
        card=config.out / CARD,
        needs=_needs(config, exported),
        hub=push(config, config.push_to_hub) if config.push_to_hub else None,
        text=benchmark.as_text(rows),
        skipped=predicted.skipped,
    )


def _write_model(
    folder: Path, exported: ExportedModel, config: ExportConfig, images: Dataset, predicted: Predicted
) -> tuple[Classifier, tuple[int, str], Quantised | None]:
    """Write the model itself; return it, on how many images it is the run's and with what difference, and its bits."""
    from gpt4image.deploying import formats
    from gpt4image.deploying.loading import load_classifier
    from gpt4image.deploying.quantise import quantise

    task, form = exported.model.task, config.model_format
    if form == "torch-export":  # checked in memory: a .pt2 file is never loaded
        classifier = formats.write_torch_export(folder / TORCH_EXPORT, exported)
    else:
        (formats.write_timm if form == "timm" else formats.write_onnx)(
            folder if form == "timm" else folder / ONNX, exported
        )
        classifier = load_classifier(folder, threads=1, task=task)
    check = (len(predicted.indices), f"{formats.largest_difference(classifier, predicted):.1e}")
    if config.quantise is None:
        return classifier, check, None
    quantised = quantise(folder / ONNX, config.quantise, images, force=config.force)
    return load_classifier(folder, threads=1, task=task), check, quantised


def _compared(run_dir: Path, folder: Path, classifier: Classifier, images: Dataset) -> list[dict[str, Any]]:
    """Return the table of the run and its export, on test images, or else validation, or else all."""
    from gpt4image.deploying.benchmark import Entry, file_of, some_of, table
    from gpt4image.deploying.loading import load_classifier
    from gpt4image.parallel.devices import cpu_threads

    some = some_of(images, next((split for split in ("test", "val") if len(images.indices(split))), "all"))
    with cpu_threads(1):
        own = load_classifier(run_dir, device="cpu", task=classifier.task)
        both = (("run, by PyTorch", own, run_dir), ("export", classifier, folder))
        return table([Entry.of(name, each, file_of(place), some) for name, each, place in both], some)


def _needs(config: ExportConfig, exported: ExportedModel) -> str | None:
    """Return what must be done before an export is used."""
    if config.format == "timm" and exported.needs_small_stem:
        return "`import small_stem` (the file is in the folder) before timm loads it"
    return {
        "page": f"`python -m http.server --directory {shlex.quote(str(config.out))}`, then http://localhost:8000",
        "server": f"`pip install -r requirements.txt && python app.py` in {config.out}, or its Dockerfile",
    }.get(config.format)


def _check_place(config: ExportConfig) -> None:
    if config.out.suffix in FILE_ENDINGS:
        raise ConfigError(f"--out {config.out}: an export is a folder; give --out {config.out.with_suffix('')}.")
    if config.out.exists() or config.out.is_symlink():
        raise ConfigError(f"{config.out} exists already; give another --out.")


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
    files = {path.relative_to(out).as_posix(): path for path in out.rglob("*") if path.is_file()}
    operations = [CommitOperationAdd(path_in_repo=name, path_or_fileobj=path) for name, path in files.items()]
    again = shlex.join(["hf", "upload", "--private", repository, str(out)])
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
