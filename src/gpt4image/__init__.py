"""gpt4image: what large multimodal models know, moved into small vision models while they train.

In your own training loop, three lines:

    pairs = DescribedImages("folder:photos", "photos.emb", split="train", transform=transform)
    model = Aligner(backbone, text_width=pairs.text_width)
    loss = cross_entropy(logits, labels) + model.alignment_loss(image_emb, texts, described=described)

Every command except ``descriptions`` is a function of the same name, with its options as keywords:
``gpt4image.train(data="folder:photos", out="run")``. The names here are imported when they are used, so that importing
the package costs nothing.
"""

# ruff: noqa: F403  (for type checkers alone)
import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from gpt4image.artifacts.store import DescriptionStore as DescriptionStore
    from gpt4image.artifacts.table import EmbeddingTable as EmbeddingTable
    from gpt4image.artifacts.targets import Targets as Targets
    from gpt4image.base.errors import Gpt4ImageError as Gpt4ImageError
    from gpt4image.base.outcome import Outcome as Outcome
    from gpt4image.commands import *
    from gpt4image.config.results import *
    from gpt4image.data import Dataset as Dataset
    from gpt4image.data import load_dataset as load_dataset
    from gpt4image.data.file_source import file_digests as file_digests
    from gpt4image.models.aligner import Aligner as Aligner
    from gpt4image.models.alignment_losses import *
    from gpt4image.models.backbones import create_backbone as create_backbone
    from gpt4image.models.backbones import given_model as given_model
    from gpt4image.own_loop.pairs import DescribedImages as DescribedImages
    from gpt4image.own_loop.pairs import Texts as Texts
    from gpt4image.own_loop.pairs import WithTexts as WithTexts

__version__ = "0.1.0"

_NAMES = {
    "commands": "demo distill improve history describe trial inspect encode label review audit discover export_labels "
    "train evaluate compare report export benchmark predict search doctor",
    "models.aligner": "Aligner",
    "models.backbones": "create_backbone given_model",
    "own_loop.pairs": "DescribedImages WithTexts Texts",
    "data.file_source": "file_digests",
    "models.alignment_losses": "LOSSES info_nce info_nce_one_way siglip cosine",
    "data": "Dataset load_dataset",
    "artifacts.store": "DescriptionStore",
    "artifacts.table": "EmbeddingTable",
    "artifacts.targets": "Targets",
    "config.results": "Epoch DistillResult ImproveResult HistoryResult DescribeResult TrialResult InspectResult "
    "EncodeResult LabelResult ReviewResult AuditResult DiscoverResult ExportLabelsResult TrainResult EvaluateResult "
    "CompareResult ReportResult ExportResult BenchmarkResult PredictResult SearchResult DoctorResult",
    "base.outcome": "Outcome",
    "base.errors": "Gpt4ImageError",
}
_MODULE_OF = {name: module for module, names in _NAMES.items() for name in names.split()}

__all__ = [*_MODULE_OF]  # pyright: ignore[reportUnsupportedDunderAll]


def __getattr__(name: str) -> Any:
    """Import a public name when it is first used (PEP 562)."""
    if name not in _MODULE_OF:
        raise AttributeError(f"module 'gpt4image' has no attribute {name!r}")
    value = getattr(importlib.import_module(f"gpt4image.{_MODULE_OF[name]}"), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return [*__all__, "__version__"]
