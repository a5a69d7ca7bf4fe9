"""The model card of an export, in Markdown, and the examples beside it: what the model is, how good, learned from what.

All of it comes from the records of the run. Everything that is not the template's own is escaped.
"""

import contextlib
import json
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined

from gpt4image.artifacts.runs import load_run
from gpt4image.artifacts.store import DescriptionStore, Prompt
from gpt4image.artifacts.table import read_manifest
from gpt4image.artifacts.targets import Facts
from gpt4image.base.errors import Gpt4ImageError
from gpt4image.base.visible import visible
from gpt4image.config import ExportConfig
from gpt4image.config.arms import ARMS
from gpt4image.data.decode import centre_start
from gpt4image.deploying.benchmark import as_cells
from gpt4image.deploying.formats import ExportedModel
from gpt4image.deploying.quantise import Quantised
from gpt4image.describing.inspection import describer_names
from gpt4image.models.hugging_face import OF_TRANSFORMERS
from gpt4image.pages import numbers
from gpt4image.reporting import findings
from gpt4image.reporting.findings import metric_label
from gpt4image.tasks.multilabel import USUAL

MOST_CLASSES = 100  # more are not listed
_LIBRARIES = {"timm": "timm", "onnx": "onnx", "torch-export": "pytorch"}
_NOT_OPTIONS = {"out", "resume", "checkpoint_seconds", "workers", "memory_limit_gb", "threads", "track"}
_MARKDOWN = re.compile(r"([\\`*_{}\[\]<>()#+!|~&:@$])")


class Verbatim(str):
    """Text of ours that is Markdown, YAML or code already."""


def model_card(
    exported: ExportedModel,
    asked: ExportConfig,
    check: tuple[int, str],
    quantised: Quantised | None = None,
    rows: Sequence[Mapping[str, Any]] = (),
) -> str:
    """Return the card; ``check`` is on how many images the export was compared to its run, and the largest difference;
    ``rows`` are those of ``benchmark``.

    Raises RunError: a record of the run cannot be read.
    """
    task, config, about = exported.model.task, exported.model.config, exported.metadata
    changed = config.model_dump(exclude_defaults=True, exclude=_NOT_OPTIONS)
    options = {name: public(value) for name, value in changed.items() if value not in ({}, [], ())}
    run = load_run(exported.run_dir)
    evaluation, data = run.evaluation, run.run["data"]
    of_classes: list[tuple[str, int, float | None]] = []
    scores: list[tuple[str, float, Any]] = []
    if evaluation is not None:
        if len(evaluation.classes) <= MOST_CLASSES:
            of_classes = list(zip(evaluation.classes, evaluation.support, evaluation.per_class, strict=True))
        shown = evaluation.scores.items()  # of five classes or fewer, top-5 is 1 by definition
        scores = [
            (metric_label(name, evaluation.titles), value, evaluation.ci95.get(name))
            for name, value in shown
            if name != "top5" or len(evaluation.classes) > 5
        ]
    context = {
        "front_matter": Verbatim(front_matter(asked.model_format, asked.data_licence, task.hub_task)),
        "title": asked.push_to_hub or asked.out.name,
        "model": public(config.model),
        "own_head": not config.resolved.model.startswith(OF_TRANSFORMERS),
        "classes": exported.classes,
        "most_classes": MOST_CLASSES,
        "rows": of_classes,
        "preprocessing": about.preprocessing,
        "parameters": f"{run.run['parameters']:,}",
        "code": Verbatim(examples(exported, asked)["example.py"].rstrip()),
        "pretrained": exported.pretrained,
        "form": asked.model_format,
        "small_stem": asked.model_format == "timm" and exported.needs_small_stem,
        "evaluation": evaluation,
        "scores": scores,
        "exclusive": task.exclusive,
        "output": task.output,
        "thresholds": task.decision.thresholds,
        "shape": task.shape(len(exported.classes), about.preprocessing.size),
        "data": {**data, "spec": public(data["spec"])},
        "labels": findings.condition({**run.config, **data}) or "none",
        "text": text_facts(exported),
        "about": ARMS[exported.arm].about if exported.arm in ARMS else "",
        "environment": dict.fromkeys(("gpt4image", "commit", "torch", "timm", "cpu")) | run.environment,
        "seed": config.seed,
        "options": Verbatim(json.dumps(options, indent=1)),
        "check": check,
        "bits": asked.quantise,
        "quantised": quantised,
        "compared": [as_cells(row) for row in rows],
        "labelled_here": rows[0]["labelled"] if rows else 0,
        "data_licence": asked.data_licence,
    }
    return _environment(escaped).get_template("model_card.md").render(context)


def front_matter(form: str, data_licence: str | None, hub_task: str) -> str:
    """Return what the Hugging Face hub reads, as YAML; ``hub_task`` is its name of the task."""
    from huggingface_hub import ModelCardData

    tags = [hub_task, "gpt4image", *({"onnx": ["onnx"], "timm": ["timm"]}.get(form, []))]
    licence: dict[str, Any] = (
        {"license": "unknown"} if data_licence is None else {"license": "other", "license_name": "see-card"}
    )
    data = ModelCardData(library_name=_LIBRARIES[form], tags=tags, pipeline_tag=hub_task, **licence)
    return data.to_yaml().strip()


def escaped(value: Any) -> str:
    """Return a value as one line of text in which nothing is Markdown or HTML, and nothing is hidden."""
    return value if isinstance(value, Verbatim) else _MARKDOWN.sub(r"\\\1", visible(numbers.one_line(str(value))))


def text_facts(exported: ExportedModel) -> dict[str, Any]:
    """Return facts about the descriptions and answers that a run learned from: used (descriptions), describers; answers
    (None, or asked and describers); lost (whether the file of its targets is gone). A table or a store that is gone
    gives no names."""
    config, task, arm = exported.model.config, exported.model.task, ARMS.get(exported.arm or "")
    labels = None
    with contextlib.suppress(Gpt4ImageError, OSError):
        labels = None if config.targets is None else Facts.of(config.targets)
    used = config.embeddings is not None and (arm.text if arm else config.align_weight > 0.0)
    tables = [config.embeddings] if used and config.embeddings is not None else []
    if labels is not None and labels.texts_read:
        used = True
        tables += map(Path, labels.embeddings)
    answers: dict[str, Any] | None = None
    if labels is not None and labels.answers_read:
        asked = labels.asked
        answers = {"asked": asked, "describers": _describers(labels.answers, lambda prompt: asked in prompt.ask)}
    elif arm and arm.predicts_targets and (arm.answers or task.output == "boxes"):
        asked = "boxes" if task.output == "boxes" else "class" if task.exclusive else "tags"
        answers = {"asked": asked, "describers": []}
    describers: list[str] = []
    for table in dict.fromkeys(tables):
        with contextlib.suppress(Gpt4ImageError):
            manifest = read_manifest(table)
            describers += _describers(manifest.store, manifest.prompts.__contains__)
    lost = config.targets is not None and labels is None
    return {"used": used, "describers": list(dict.fromkeys(describers)), "answers": answers, "lost": lost}


def _describers(path: str, wanted: Callable[[Prompt], bool]) -> list[str]:
    """Return the names of those who answered prompts that are wanted; none where there is no store any more."""
    if not Path(path).is_file():
        return []
    with contextlib.suppress(Gpt4ImageError), DescriptionStore(Path(path)) as store:
        settings = [by for prompt, by, status, _ in store.counts() if status == "ok" and wanted(prompt)]
        return list(dict.fromkeys(map(public, describer_names(settings).values())))
    return []


def public(value: Any) -> Any:
    """Return an option without folders of this machine: only the last part of absolute paths, of a list of each."""
    if isinstance(value, Path):
        return value.name if value.is_absolute() else str(value)
    if isinstance(value, str):
        kind, colon, places = value.partition(":")
        if not colon or value.startswith(("/", "~")):
            kind, colon, places = "", "", value
        shown = (re.sub(r"^(\w+=)?[/~].*/", lambda found: found[1] or "", place) for place in places.split(","))
        return kind + colon + ",".join(shown)
    if isinstance(value, dict):
        return {key: public(item) for key, item in value.items()}
    return [public(item) for item in value] if isinstance(value, list | tuple) else value


def examples(exported: ExportedModel, asked: ExportConfig) -> dict[str, str]:
    """Return programs by the names of their files, which predict the picture or clip that they are given.

    timm loads its format from the repository on the hub, if there is one.
    """
    task, how = exported.model.task, exported.metadata.preprocessing
    reject = task.decision.reject
    names = ["example.py", *(["example.mjs"] if asked.model_format == "onnx" and not how.frames else [])]
    return {
        name: _environment(lambda value: value)
        .get_template(f"{name}.jinja")
        .render(
            form=asked.model_format,
            how=how,
            start=centre_start(how.resize, how.size),
            small_stem=asked.model_format == "timm" and exported.needs_small_stem,
            repository=asked.push_to_hub,
            exclusive=task.exclusive,
            output=task.output,
            share=reject and reject.share,
            thresholds=list(task.decision.thresholds or [USUAL] * len(exported.classes)),
        )
        for name in names
    }


def _environment(finalize: Callable[[Any], Any]) -> Environment:
    environment = Environment(
        loader=PackageLoader("gpt4image.deploying"),
        autoescape=False,  # this is Markdown and Python: in the card, ``finalize`` escapes every value
        finalize=finalize,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        keep_trailing_newline=True,
    )
    for function in (repr, numbers.one_line, numbers.percent, numbers.percent_interval, numbers.seeds):
        environment.filters[function.__name__] = function
    return environment
