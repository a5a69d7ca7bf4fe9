"""gpt4image: what large multimodal models know, moved into small vision models while they train.

In your own training loop, three lines:

    pairs = DescribedImages("folder:photos", "photos.emb", split="train", transform=transform)
    model = Aligner(backbone, text_width=pairs.text_width)
    loss = cross_entropy(logits, labels) + model.alignment_loss(image_emb, texts, described=described)

Every command except ``descriptions`` is a function of the same name:
``gpt4image.train(data="folder:photos", out="run")``. The names here are imported when they are used, so that importing
the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_NAMES = {
    "models.aligner": "Aligner",
    "models.backbones": "create_backbone",
    "own_loop.pairs": "DescribedImages WithTexts Texts",
    "data.file_source": "file_digests",
    "models.alignment_losses": "LOSSES info_nce info_nce_one_way siglip cosine",
    "data": "Dataset load_dataset",
    "artifacts.store": "DescriptionStore",
    "artifacts.table": "EmbeddingTable",
    "artifacts.targets": "Targets",
    "config.results": "Epoch DistillResult DescribeResult InspectResult EncodeResult LabelResult ReviewResult "
    "AuditResult DiscoverResult ExportLabelsResult TrainResult EvaluateResult CompareResult ReportResult ExportResult "
    "PredictResult SearchResult DoctorResult",
    "base.outcome": "Outcome",
    "base.errors": "Gpt4ImageError",
    "config": "DescribeConfig InspectConfig ImportDescriptionsConfig ExportDescriptionsConfig EncodeConfig LabelConfig "
    "TrainConfig EvaluateConfig CompareConfig ReportConfig AuditConfig DiscoverConfig ExportLabelsConfig ReviewConfig "
    "PredictConfig SearchConfig DemoConfig DistillConfig",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}
_VERBS = (
    *("demo", "distill", "describe", "inspect", "encode", "label", "review", "audit", "discover", "export_labels"),
    *("train", "evaluate", "compare", "report", "export", "predict", "search", "doctor"),
)

__all__ = [*_VERBS, *_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name in _VERBS:
        globals()[name] = function = importlib.import_module("gpt4image.verbs").verb(name)
        return function
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'gpt4image' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gpt4image.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return [*__all__, "__version__"]
