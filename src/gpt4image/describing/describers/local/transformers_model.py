"""Any image-text-to-text model of the transformers library, on this machine, in batches."""

from __future__ import annotations

import copy
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from gpt4image.base.errors import ConfigError, DescriberError, first_line
from gpt4image.config import DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Answer, Report, Request
from gpt4image.describing.describers.local.conversations import (
    BatchError,
    Reply,
    Row,
    answer_in_batches,
    messages,
    seed_of,
)
from gpt4image.describing.describers.local.model_files import ModelFiles, find_model_files, is_greedy, local_settings
from gpt4image.describing.prices import FREE
from gpt4image.models.hugging_face import loading
from gpt4image.parallel.devices import choose_device, computes_bf16

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TOO_LARGE = "the memory does not hold this image and its answer; lower --max-side or --max-tokens"
# Messages of libraries whose error for a full memory is no torch.OutOfMemoryError (CPU, MPS, cuBLAS).
_MEMORY_IS_FULL = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class TransformersDescriber:
    """A model with its own processor and chat template. Weights are loaded when it is first asked."""

    price = FREE

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the model ``name``, a folder or a Hugging Face id.

        Raises:
            ConfigError: it is not there, not for images and text, or needs pickled weights; the device is not there.
        """
        self._files = find_model_files("transformers", name)
        if (kind := self._files.model_type) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise ConfigError(
                f"{self._files.spec}: {kind or 'this'} is no image-text-to-text model that transformers knows; use "
                "one, e.g. of the kinds llava, qwen2_5_vl, smolvlm, gemma3. Code that comes with a model is never run."
            )
        self._options = options
        self.repeatable = is_greedy(self._files, options)
        self._device = choose_device(options.device)
        native = "bf16" if computes_bf16(self._device.type) else "fp32"
        self._precision = native if options.precision == "auto" else options.precision
        self._room = _Room(options.batch_size)
        self._steps = 0

    @property
    def settings(self) -> Mapping[str, Any]:
        """Name and content of the model, options that decide its texts, and its precision."""
        return {**local_settings("transformers", self._files, self._options), "precision": self._precision}

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers batch by batch; halves of a batch if the memory does not hold it.

        Raises:
            ConfigError: the chat template does not take the questions.
            DescriberError: the model cannot be loaded, or fails.
        """
        _ = self._model  # Before images are read.
        yield from answer_in_batches(requests, self._options.batch_size, self._options.max_side, self._next_turn)

    def arrived(self) -> Sequence[Answer]:
        """A batch arrives as a whole."""
        return ()

    def report(self, images: ImageSet) -> Report:
        """Return the batch size that the memory held, if that was less than asked for."""
        held = self._room.least
        return Report(facts={"batch_size_used": held} if held < self._options.batch_size else {})

    def _next_turn(self, rows: Sequence[Row], answers: Sequence[Sequence[str]]) -> list[Reply]:
        if len(rows) > self._room.rows:
            raise BatchError(_TOO_LARGE)
        self._steps += 1
        conversations = [
            messages(row.request.turns, _part(row.image), system=self._options.system, answers=own)
            for row, own in zip(rows, answers, strict=True)
        ]
        try:
            replies = self._model.reply(conversations, seed_of(rows, self._steps))
        except RuntimeError as error:
            if not _memory_is_full(error):
                raise DescriberError(f"{self._files.spec}: the model failed: {first_line(error)}") from error
            self._room.shrink(len(rows))
            raise BatchError(_TOO_LARGE) from None
        self._room.held(len(rows))
        return replies

    @cached_property
    def _model(self) -> _Model:
        return _Model(self._files, self._options, self._device, _DTYPES[self._precision])


class _Room:
    """How many rows the memory holds: halved when it is full; doubled again after many full batches, up to the limit.

    So one odd image does not slow down all that come after it.
    """

    _BATCHES_BEFORE_GROWTH = 16

    def __init__(self, limit: int) -> None:
        self._limit = self.rows = self.least = limit
        self._held = 0

    def shrink(self, rows: int) -> None:
        """Note that so many rows were too many."""
        self.rows = min(self.rows, (rows + 1) // 2)
        self.least = min(self.least, self.rows)
        self._held = 0

    def held(self, rows: int) -> None:
        """Note that so many rows fitted."""
        self._held += rows >= self.rows
        if self.rows < self._limit and self._held >= self._BATCHES_BEFORE_GROWTH:
            self.rows = min(self._limit, 2 * self.rows)
            self._held = 0


class _Model:
    """Processor and weights in memory. Raises ConfigError: the chat template does not take the questions."""

    def __init__(self, files: ModelFiles, options: DescriberOptions, device: torch.device, dtype: torch.dtype) -> None:
        self._spec = files.spec
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        with loading(f"{files.spec}: {files.folder} cannot be loaded as an image-text-to-text model", DescriberError):
            self._processor: Any = AutoProcessor.from_pretrained(files.folder, **local)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                files.folder, use_safetensors=True, dtype=dtype, **local
            )
            self._model = model.to(device).eval()
        tokenizer = getattr(self._processor, "tokenizer", None)
        if tokenizer is None or getattr(self._processor, "image_processor", None) is None:
            raise ConfigError(f"{files.spec}: its processor takes no images; use an image-text-to-text model.")
        if self._processor.chat_template is None:
            raise ConfigError(
                f"{files.spec}: it has no chat template (chat_template.jinja); use a model that was trained to follow "
                "instructions."
            )
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        self._dtype = dtype
        self._generation = _generation_config(
            self._model.generation_config, options, tokenizer, greedy=is_greedy(files, options)
        )
        # A question about a grey image shows before the first real one whether the template takes it.
        if reason := self._refusal(options.system):
            if not self._refusal(""):
                raise ConfigError(
                    f"{files.spec}: its chat template takes no system message ({reason}); give --system ''."
                )
            raise ConfigError(f"{files.spec}: its chat template takes no image and question ({reason}).")

    def reply(self, conversations: Sequence[list[dict[str, Any]]], seed: int) -> list[Reply]:
        """Return the next answer of each conversation.

        Raises:
            BatchError: the processor does not take one of the images.
            DescriberError: the chat template does not take a conversation of several turns.
            RuntimeError: the memory is full, or the model fails.
        """
        try:
            inputs = self._inputs(conversations)
        except (ValueError, IndexError) as error:
            raise BatchError(f"the model does not take this image: {first_line(error)}") from None
        except TemplateError as error:
            raise DescriberError(f"{self._spec}: its chat template fails: {first_line(error)}") from error
        width = inputs["input_ids"].shape[1]
        devices = [self._model.device] if self._model.device.type == "cuda" else []
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(seed)
            tokens = self._model.generate(**inputs, generation_config=self._generation)[:, width:].tolist()
        eos = self._generation.eos_token_id
        ends = frozenset([eos] if isinstance(eos, int) else eos or ())
        answers = [_up_to_end(row, ends) for row in tokens]
        texts = self._processor.batch_decode(answers, skip_special_tokens=True)
        return [
            Reply(
                text=text,
                finish_reason="stop" if row and row[-1] in ends else "length",
                tokens_in=int(tokens_in),
                tokens_out=len(row),
            )
            for text, row, tokens_in in zip(texts, answers, inputs["attention_mask"].sum(dim=1), strict=True)
        ]

    def _inputs(self, conversations: Sequence[list[dict[str, Any]]]) -> BatchFeature:
        return self._processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self._model.device, self._dtype)

    def _refusal(self, system: str) -> str:
        """Return in one line why the template does not take a question; empty if it does."""
        asked = messages(["What is this?"], _part(Image.new("RGB", (64, 64), "grey")), system=system)
        try:
            self._inputs([asked])
            text = self._processor.apply_chat_template(asked, tokenize=False)
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
            return first_line(error)
        return "" if system.strip() in text else "it leaves it out"


def _generation_config(
    own: GenerationConfig, options: DescriberOptions, tokenizer: Any, *, greedy: bool
) -> GenerationConfig:
    """Return the model's own generation configuration with the user's options."""
    config = copy.deepcopy(own)
    config.do_sample = not greedy
    config.max_length = None
    config.max_new_tokens = options.max_tokens
    config.num_return_sequences = 1
    if config.eos_token_id is None:
        config.eos_token_id = tokenizer.eos_token_id
    if config.pad_token_id is None:
        config.pad_token_id = tokenizer.pad_token_id
    if greedy:
        config.temperature = config.top_p = config.top_k = None
    elif options.temperature is not None:
        config.temperature = options.temperature
    return config


def _part(image: Image.Image) -> dict[str, Any]:
    return {"type": "image", "image": image}


def _up_to_end(tokens: Sequence[int], ends: frozenset[int]) -> Sequence[int]:
    """Return the tokens of one answer with its end, without the padding behind it."""
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: end + 1]


def _memory_is_full(error: RuntimeError) -> bool:
    return isinstance(error, torch.OutOfMemoryError) or any(sign in str(error) for sign in _MEMORY_IS_FULL)
