"""Options of the stages that put a finished run to use: export, predict, search."""

# pyright: reportAssignmentType=false
# (see types.py: an option is read as one type and given as another)
import re
from typing import Literal, Self

from pydantic import Field, NonNegativeFloat, model_validator
from pydantic import field_validator as check

from gpt4image.base.errors import ConfigError
from gpt4image.config.base import MOST_THREADS, StageConfig
from gpt4image.config.learning import DataOptions
from gpt4image.config.types import APath, Fraction, Images, MaybeData, MaybePath, Paths, Positional, Rare, Words

ROW_FORMATS = {".csv": "csv", ".json": "coco", ".jsonl": "jsonl", ".txt": "table", "": "table"}
"""Format of the rows of `predict` per file suffix."""


ExportFormat = Literal["timm", "onnx", "torch-export", "page", "server"]


class ExportOptions(StageConfig):
    """The exported model."""

    data_licence: Rare[str | None] = None
    """Licence of the images, for the model card."""
    onnxruntime_web: Rare[MaybePath] = None
    """Folder of the package onnxruntime-web of npm, for --format page. Default: fetched once from npm's registry."""
    quantise: Literal["int8", "fp16"] | None = None
    """Fewer bits, for onnx, page and server: int8 (a quarter of the size, faster on CPUs) or fp16 (half of it). Checked
    on validation images."""
    force: Rare[bool] = False
    """Write a quantised model that is not good enough all the same."""


class ExportConfig(ExportOptions):
    """Write the model of a run as others load it, checked against the run, with a model card.

    Example: gpt4image export run --format onnx --out model
    """

    run_dir: Positional[APath]
    """Folder of a finished run; or of a comparison, whose best run on validation images is taken."""
    format: ExportFormat
    """timm: for timm.create_model. onnx: for any runtime of ONNX. torch-export: for torch. page: a web page that
    computes in the browser. server: a program of Starlette and onnxruntime."""
    out: APath
    """New folder: the model, its card, examples, checksums."""
    data: MaybeData = None
    """Dataset SPEC whose images the check is made on. Default: the dataset of the run."""
    push_to_hub: str | None = None
    """USER/NAME of a Hugging Face repository to upload it to as well; a new one is private."""

    @property
    def model_format(self) -> str:
        """The format of the model itself; pages and servers compute ONNX."""
        return "onnx" if self.format in ("page", "server") else self.format

    @model_validator(mode="after")
    def _onnx_has_bits(self) -> Self:
        if self.quantise is not None and self.model_format != "onnx":
            raise ConfigError(f"= {self.quantise} is for --format onnx, page and server.", field="quantise")
        return self

    @check("push_to_hub")
    @classmethod
    def _is_repository(cls, value: str | None) -> str | None:
        if value is not None and not re.fullmatch(r"[A-Za-z0-9][\w.-]*/[A-Za-z0-9][\w.-]*", value, re.ASCII):
            raise ValueError("a repository is named USER/NAME, with letters, digits, '-', '_' and '.'")
        return value


class PredictConfig(StageConfig):
    """Predict the classes, boxes or masks of images, by a run or by what was exported from it.

    Example: gpt4image predict model photos/ 'more/**/*.jpg' --top 3 --out predictions.csv
    """

    model: Positional[APath]
    """Run folder, exported folder, folder in timm's format or .onnx file."""
    images: Positional[Images]
    """Image files, folders, patterns in quotes ('photos/**/*.jpg'), and coco:FILE.json for those it lists."""
    top: int | None = Field(default=None, ge=1)
    """Number of classes per image. Default: 1, and all classes of a mask; of boxes all are given."""
    min_score: Fraction | None = None
    """Minimum score of a box (default 0.3), or probability of a class: below it an image is `unsure` (default 0). See
    `evaluate --at-least`."""
    most_overlap: Fraction | None = None
    """Largest overlap (IoU) of two boxes: of those that overlap more, the best one is given, whatever their classes.
    Default: 0.6; of results of COCO 1, since these are judged with all boxes."""
    draw: MaybePath = None
    """Folder for the images with boxes or masks drawn over them; beside each its mask as a PNG file."""
    format: Literal["table", "csv", "jsonl", "coco"] | None = None
    """Format of the rows. Default: by the ending of --out (.csv, .jsonl; .json: coco; .txt or none: table). coco:
    results of COCO as JSON, only of detection and of images named by coco:FILE.json."""
    out: MaybePath = None
    """File of the predictions. Default: standard output."""
    ask_when_unsure: str | None = None
    """Describer SPEC that is asked about the images of which the model is least sure; its answers are kept. One class
    per image."""
    ask_share: Fraction = 0.2
    """Share of the images that is asked about."""
    max_cost: float | None = Field(default=None, gt=0.0)
    """Maximum cost in US dollars of all answers in the store."""
    base_url: str | None = None
    """Address of the server of the describer. Default: as for `distill`, if that asked the same describer."""
    price: tuple[NonNegativeFloat, NonNegativeFloat] | None = None
    """US dollars per million tokens, input and output. Default: as for --base-url, else the published price."""
    store: MaybePath = None
    """Description store that keeps the answers. Default: answers.db beside the model, from which it learns next."""
    batch_size: int = Field(default=16, ge=1)
    """Maximum images per batch, for decoding and for prediction."""
    threads: int | None = Field(default=None, ge=1, le=MOST_THREADS)
    """CPU threads of the model, and as many for decoding. Default: one per core."""
    device: str = "auto"
    """auto, cpu, cuda or mps, for run folders and timm folders; .onnx files are computed on the CPU."""

    @property
    def row_format(self) -> str:
        """The format of the rows."""
        return self.format or ROW_FORMATS["" if self.out is None else self.out.suffix.lower()]

    @property
    def least_box(self) -> float:
        """The minimum score of a box."""
        return 0.3 if self.min_score is None else self.min_score

    @property
    def overlap(self) -> float:
        """The largest overlap of two boxes."""
        return (1.0 if self.row_format == "coco" else 0.6) if self.most_overlap is None else self.most_overlap

    @model_validator(mode="after")
    def _one_result(self) -> Self:
        if not self.images:
            raise ConfigError("are missing: give image files, folders or patterns after the model.", field="images")
        if self.format is None and self.out is not None and self.out.suffix.lower() not in ROW_FORMATS:
            raise ConfigError(
                f"= {self.out}: give a file that ends with .csv, .json, .jsonl or .txt, or --format.", field="out"
            )
        return self


class BenchmarkConfig(StageConfig):
    """Compare models side by side: size, milliseconds, accuracy, calibration.

    Example: gpt4image benchmark run model model-int8
    """

    models: Positional[Paths]
    """Run folders, exported folders, .onnx files. The first is the reference."""
    data: MaybeData = None
    """Dataset SPEC. Default: that of the first model, if it is a run."""
    split: Literal["all", "train", "val", "test"] = "test"
    """Split to measure on; up to 1,000 images of it."""


class SearchConfig(StageConfig):
    """Find images by what they show, in words or by another image, in the text space of a run.

    Example: gpt4image search run "a red car on snow" --data folder:photos --html found.html
    """

    run_dir: Positional[APath]
    """Run folder written by `train` with --embeddings."""
    texts: Positional[Words] = ()
    """Search texts; several texts are searched one by one."""
    image: Paths = ()
    """Image file(s) to find similar images of."""
    data: MaybeData = None
    """Dataset SPEC to search. Default: the dataset of the run."""
    split: Literal["all", "train", "val", "test"] = "all"
    """Part of the set to search."""
    top: int = Field(default=10, ge=1)
    """Number of images per query."""
    index: MaybePath = None
    """Folder of the index of the dataset, made if it is missing. Default: a folder inside the run folder."""
    html: MaybePath = None
    """HTML page of the pictures that were found."""


class ExportLabelsConfig(DataOptions):
    """Write targets, or the predictions of a model, as labels that other programs read.

    Example: gpt4image export-labels --data folder:photos --targets targets.parquet --format csv --out labels.csv
    """

    targets: MaybePath = None
    """File of targets or of boxes, by label."""
    model: MaybePath = None
    """Run, exported folder or .onnx file whose predictions are written in the place of targets."""
    format: Literal["csv", "folder", "coco", "yolo", "voc", "hf", "label-studio"]
    """csv: for --data manifest:FILE; folder: class folders; coco, yolo, voc: boxes; hf: for the library datasets;
    label-studio: tasks."""
    out: APath
    """New file for csv and label-studio, else a new folder, which holds the images too."""
    least_confidence: float = Field(default=0.0, ge=0.0, le=1.0)
    """Least probability of a target's class, or weight of its box; what is less sure is left out."""

    @model_validator(mode="after")
    def _one_source(self) -> Self:
        if (self.targets is None) == (self.model is None):
            raise ConfigError("or --model is needed, one of them: what is to be written.", field="targets")
        return self
