"""The commands by which a person looks at what distill made; files of labels lie beside the images."""

import itertools
import os
from pathlib import Path

from gpt4image.config import AuditConfig, DistillConfig, ExportConfig, PredictConfig, ReviewConfig
from gpt4image.config.distilling import RUN, TARGETS
from gpt4image.data.file_source import table_in
from gpt4image.data.manifest import WHY
from gpt4image.data.spec import ON_DISK, full_spec, parse
from gpt4image.next_step import NEW_PHOTOS
from gpt4image.options import command_line


def review_command(config: DistillConfig) -> str:
    """Return the command that shows images, the most doubtful targets first."""
    labels = _labels_of(config.data)
    return command_line(
        "review", ReviewConfig, {"data": config.data, "targets": config.out / TARGETS, "labels": labels}
    )


def audit_command(config: DistillConfig, *, held_out: bool) -> str:
    """Return the command that judges the model on ``held_out`` images, or the targets."""
    made = {"targets": config.out / TARGETS, "model": config.out / RUN if held_out else None}
    return command_line("audit", AuditConfig, {"data": config.data, **made, "labels": audited(config.data)})


def predict_command(export: ExportConfig) -> str:
    """Return the command that predicts new photographs; of those that a model has learned from, it tells nothing."""
    given = {"model": export.out, "images": (NEW_PHOTOS,), "out": Path("predictions.csv")}
    return "" if export.format == "torch-export" else command_line("predict", PredictConfig, given)


def audited(data: str) -> Path:
    """Return the file that `audit` keeps audited images in."""
    return _beside(data, "audit.csv")


def _beside(data: str, name: str) -> Path:
    """Return where a file of labels may lie: in the folder of the images, where they are files, or above it."""
    spec = parse(full_spec(data))
    if spec.name not in ON_DISK:
        return Path(name)
    folder = Path(spec.options.get("images", spec.where)) if spec.name == "manifest" else Path(spec.where)
    folder = folder if folder.is_dir() else folder.parent
    return (folder.parent if folder.name == "annotations" else folder) / name


def _labels_of(data: str) -> Path:
    """Return the file of labels that `review` goes on with, or a new one."""

    def reviewed(path: Path) -> bool:
        if path.suffix != ".csv" or not path.is_file():
            return False
        with path.open(encoding="utf-8-sig", errors="replace") as lines:
            return WHY in next(lines, "").strip().split(",")

    spec, labels = parse(full_spec(data)), _beside(data, "labels.csv")
    place = spec.path.resolve()
    table = table_in(place) if place.is_dir() else place
    if spec.name == "manifest" and table is not None and reviewed(table):
        return Path(os.path.relpath(table))
    names = itertools.chain([labels], (labels.with_name(f"labels-{number}.csv") for number in itertools.count(2)))
    return labels if reviewed(labels) else next(path for path in names if not path.exists())
