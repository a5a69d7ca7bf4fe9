"""Options of the stages for a person: review, audit and discover."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
from pathlib import Path
from typing import Literal

from pydantic import Field
from pydantic import field_validator as check

from gpt4image.config.base import StageConfig
from gpt4image.config.types import APath, ClassList, DataSpec, MaybePath


class ReviewConfig(StageConfig):
    """Label images and correct labels in the browser; every click is on disk before the next.

    Example: gpt4image review --data folder:photos --labels labels.csv --embeddings photos.emb
    """

    data: DataSpec
    """Dataset SPEC, with one class per image, several, or boxes."""
    task: Literal["auto", "classification", "multilabel", "detection"] = "auto"
    """One class per image, several (multilabel) or boxes (detection). auto: as --targets, else as the dataset."""
    labels: APath
    """CSV file of all labels, which --data manifest:FILE reads; it lies in the folder of the images, or above it."""
    answers: MaybePath = None
    """Description store with class answers: proposals, and the order of the images."""
    embeddings: MaybePath = None
    """Embedding table: proposals learned from the labels, and the order of the images."""
    targets: MaybePath = None
    """File of targets, by label: proposals, and a tab to audit them; images without a target come first."""
    model: MaybePath = None
    """Run folder: a tab to audit the model on the test images."""
    classes: ClassList = None
    """Classes to choose from, besides those of the dataset: a text file with one class per line, or a list with commas.
    Default: those of the dataset, else of the answers, else what is typed."""
    correct: bool = False
    """Begin with suspected label errors instead of images without a label."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the page on 127.0.0.1; 0 takes a free one."""

    @check("labels")
    @classmethod
    def _is_csv(cls, value: Path) -> Path:
        if value.suffix != ".csv":
            raise ValueError("give a file that ends with .csv")
        return value


class DiscoverConfig(StageConfig):
    """Propose classes from descriptions, where there is no class list; name and merge them in the browser.

    Example: gpt4image discover --data folder:photos --embeddings photos.emb --out discovered
    """

    data: DataSpec
    """Dataset SPEC. Its labels are not read."""
    embeddings: APath
    """Embedding table of the descriptions."""
    store: MaybePath = None
    """Description store, for the words of classes. Default: the one that the table was made from."""
    out: APath = Path("discovered")
    """Folder of the class list, classes.txt, and of targets.parquet."""
    classes: int | None = Field(default=None, ge=2, le=1000)
    """Number of clusters to begin with. Default: by how far they are apart; clusters are merged in a click."""
    page: bool = True
    """Name and merge on the page. Without it, proposed names are taken."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the page on 127.0.0.1; 0 takes a free one."""
    seed: int = Field(default=0, ge=0, lt=2**32)
    """Seed of the clusters."""


class AuditConfig(StageConfig):
    """Estimate how good targets and a model are, from a few images that a person audits in the browser.

    Example: gpt4image audit --data folder:photos --targets targets.parquet --model run --looks 60
    """

    data: DataSpec
    """Dataset SPEC: classes, tags or boxes."""
    targets: MaybePath = None
    """File of targets, by label. Without --model, its training images are audited."""
    model: MaybePath = None
    """Run folder. It is audited on the test images, which it did not learn from."""
    answers: MaybePath = None
    """Description store: audits the class answers, too; one class per image."""
    split: Literal["train", "val", "test"] | None = None
    """Images that are audited. Default: train, with --model test."""
    looks: int = Field(default=60, ge=5, le=10_000)
    """Number of images to audit; a higher number later adds to them."""
    labels: APath = Path("audit.csv")
    """CSV file of the audited images; it lies in the folder of the images, or above it."""
    port: int = Field(default=0, ge=0, le=65535)
    """Port of the page on 127.0.0.1; 0 takes a free one."""
