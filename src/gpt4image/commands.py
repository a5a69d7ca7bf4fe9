"""The commands: each is a function, ``gpt4image.train(data="photos", out="run")``, and a command line.

The options of both are the fields of one class of ``config``: types, help and checks come from it.
"""

from __future__ import annotations

import importlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from inspect import Parameter, Signature, cleandoc
from typing import Any, Literal, ParamSpec, TypeVar

from gpt4image import config
from gpt4image.base.outcome import Outcome
from gpt4image.config import results
from gpt4image.config.base import StageConfig

P = ParamSpec("P")
Result = TypeVar("Result", bound=Outcome)
Trait = Literal["recipes", "shared", "resumes", "keeps_rows"]
"""Options may come from recipes; processes of torchrun may share the work; the same command goes on after an interrupt;
in Python, rows are kept, which the command line writes as they come."""


@dataclass(frozen=True)
class Command:
    """One command: its options, what it returns, and its stage as MODULE:FUNCTION, imported when it runs."""

    options: type[StageConfig]
    result: type[Outcome]
    stage: str
    traits: frozenset[Trait]

    @property
    def about(self) -> str:
        """The beginning of the first sentence on its options."""
        return re.split(r"[,:;]|\.\s", cleandoc(self.options.__doc__ or ""), maxsplit=1)[0]

    def run(self, *options: StageConfig, **more: Any) -> Any:
        """Return what the stage makes of checked options. Raises Gpt4ImageError."""
        from gpt4image.data import require_apart

        for each in options:
            require_apart(each)
        module, _, function = self.stage.partition(":")
        return getattr(importlib.import_module(f"gpt4image.{module}"), function)(*options, **more)


COMMANDS: dict[str, Command] = {}
"""The commands by the words that call them."""


def command(
    name: str, options: Callable[P, StageConfig], result: type[Result], module: str, *traits: Trait
) -> Callable[P, Result]:
    """Add a command, and return its function; its parameters are the options, as keywords.

    Its stage is the function of its name in ``module``; that of two words has them the other way round.
    """
    kind: Any = options
    stage = f"{module}:{'_'.join(reversed(name.split())).replace('-', '_')}"
    COMMANDS[name] = added = Command(kind, result, stage, frozenset(traits))

    def function(*positional: P.args, **keywords: P.kwargs) -> Result:
        return added.run(options(*positional, **keywords), **({"keep": True} if "keeps_rows" in traits else {}))

    parameters = [
        Parameter(
            name,
            Parameter.KEYWORD_ONLY,
            annotation=field.annotation,
            default=Parameter.empty if field.is_required() else field.get_default(call_default_factory=True),
        )
        for name, field in kind.model_fields.items()
    ]
    rows = [f"    {name}: {' '.join((field.description or '').split())}" for name, field in kind.model_fields.items()]
    function.__name__ = function.__qualname__ = name.replace("-", "_")
    function.__module__ = "gpt4image"
    function.__doc__ = "\n".join([cleandoc(kind.__doc__), "", "Args:", *rows, "", f"Returns: {result.__name__}"])
    function.__signature__ = Signature(parameters, return_annotation=result)  # type: ignore[attr-defined]
    return function


demo = command("demo", config.DemoConfig, results.CompareResult, "distilling.demo", "resumes")
distill = command("distill", config.DistillConfig, results.DistillResult, "distilling.distill", "resumes")
improve = command("improve", config.ImproveConfig, results.ImproveResult, "improving.improve", "resumes")
history = command("history", config.HistoryConfig, results.HistoryResult, "improving.line")
describe = command("describe", config.DescribeConfig, results.DescribeResult, "describing.describe", "resumes")
command("descriptions import", config.ImportDescriptionsConfig, results.StoreResult, "describing.descriptions")
command("descriptions export", config.ExportDescriptionsConfig, results.StoreResult, "describing.descriptions")
trial = command("trial", config.TrialConfig, results.TrialResult, "describing.trial", "resumes")
inspect = command("inspect", config.InspectConfig, results.InspectResult, "describing.inspection")
encode = command("encode", config.EncodeConfig, results.EncodeResult, "encoding.encode", "resumes")
label = command("label", config.LabelConfig, results.LabelResult, "labelling.label")
review = command("review", config.ReviewConfig, results.ReviewResult, "reviewing.review", "resumes")
audit = command("audit", config.AuditConfig, results.AuditResult, "reviewing.review", "resumes")
discover = command("discover", config.DiscoverConfig, results.DiscoverResult, "reviewing.discover", "resumes")
export_labels = command(
    "export-labels", config.ExportLabelsConfig, results.ExportLabelsResult, "deploying.export_labels"
)
train = command("train", config.TrainConfig, results.TrainResult, "training.train", "recipes", "shared", "resumes")
evaluate = command("evaluate", config.EvaluateConfig, results.EvaluateResult, "evaluating.evaluate", "shared")
compare = command("compare", config.CompareConfig, results.CompareResult, "comparing.compare", "recipes", "resumes")
report = command("report", config.ReportConfig, results.ReportResult, "reporting.report")
export = command("export", config.ExportConfig, results.ExportResult, "deploying.export")
benchmark = command("benchmark", config.BenchmarkConfig, results.BenchmarkResult, "deploying.benchmark")
predict = command("predict", config.PredictConfig, results.PredictResult, "deploying.predict", "keeps_rows")
search = command("search", config.SearchConfig, results.SearchResult, "searching.search")
doctor = command("doctor", config.DoctorConfig, results.DoctorResult, "reporting.doctor")
