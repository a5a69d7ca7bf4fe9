"""gpt4image: what large multimodal models know, moved into small vision models while they train.

In your own training loop, three lines:

    pairs = DescribedImages("folder:photos", "photos.emb", split="train", transform=transform)
    model = Aligner(backbone, text_width=pairs.text_width)
    loss = cross_entropy(logits, labels) + model.alignment_loss(image_emb, texts, described=described)

Every command is a function of the same name: ``gpt4image.train(data="folder:photos", out="run")``.
The names here are imported when they are used, so that importing the package costs nothing.
"""

from __future__ import annotations

import importlib
from typing import Any

__version__ = "0.1.0"

_MODULE_OF = {
    "Aligner": "models.aligner",
    "create_backbone": "models.backbones",
    "DescribedImages": "own_loop.pairs",
    "WithTexts": "own_loop.pairs",
    "Texts": "own_loop.pairs",
    "file_digests": "data.digests",
    "LOSSES": "models.alignment_losses",
    "info_nce": "models.alignment_losses",
    "info_nce_one_way": "models.alignment_losses",
    "siglip": "models.alignment_losses",
    "cosine": "models.alignment_losses",
    "Dataset": "data",
    "load_dataset": "data",
    "DescriptionStore": "artifacts.store",
    "EmbeddingTable": "artifacts.table",
    "Targets": "artifacts.targets",
    **dict.fromkeys(
        (
            *(
                "Epoch",
                "DistillResult",
                "DescribeResult",
                "EncodeResult",
                "LabelResult",
                "ReviewResult",
                "AuditResult",
                "DiscoverResult",
                "ExportLabelsResult",
            ),
            *("TrainResult", "EvaluateResult", "CompareResult", "ReportResult", "ExportResult", "PredictResult"),
            *("SearchResult", "DoctorResult"),
        ),
        "config.results",
    ),
    "Outcome": "base.outcome",
    "Gpt4ImageError": "base.errors",
    "DescribeConfig": "config",
    "ImportDescriptionsConfig": "config",
    "ExportDescriptionsConfig": "config",
    "EncodeConfig": "config",
    "LabelConfig": "config",
    "TrainConfig": "config",
    "EvaluateConfig": "config",
    "CompareConfig": "config",
    "ReportConfig": "config",
    "AuditConfig": "config",
    "DiscoverConfig": "config",
    "ExportLabelsConfig": "config",
    "ReviewConfig": "config",
    "PredictConfig": "config",
    "SearchConfig": "config",
    "DemoConfig": "config",
    "DistillConfig": "config",
}

_VERBS = (
    *(
        "demo",
        "distill",
        "describe",
        "encode",
        "label",
        "review",
        "audit",
        "discover",
        "export_labels",
        "train",
        "evaluate",
        "compare",
    ),
    *("report", "export", "predict", "search", "doctor"),
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
