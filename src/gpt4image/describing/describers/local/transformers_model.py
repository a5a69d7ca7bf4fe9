"""Any image-text-to-text model of the transformers library, on this machine, in batches."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, BatchFeature, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from gpt4image.base.errors import ConfigError, DescriberError, first_line
from gpt4image.config import DescriberOptions
from gpt4image.data.image_set import ImageSet
from gpt4image.describing.describers.base import Report
from gpt4image.describing.describers.local.conversations import BatchError, LocalDescriber, Reply, Row, seed_of
from gpt4image.models.hugging_face import loading
from gpt4image.parallel.devices import choose_device, computes_bf16

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TOO_LARGE = "the memory does not hold this image and its answer; lower --max-side or --max-tokens"
# Messages of libraries whose error for a full memory is no torch.OutOfMemoryError (CPU, MPS, cuBLAS).
_MEMORY_IS_FULL = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class TransformersDescriber(LocalDescriber):
    """A model with its own processor and chat template."""

    kind = "transformers"

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the model ``name``, a folder or a Hugging Face id.

        Raises:
            ConfigError: it is not there, not for images and text, or needs pickled weights; the device is not there.
        """
        super().__init__(name, options)
        if (kind := self.files.model_type) not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise ConfigError(
                f"{self.files.spec}: {kind or 'this'} is no image-text-to-text model that transformers knows; use one, "
                "e.g. of the kinds llava, qwen2_5_vl, smolvlm, gemma3. Code that comes with a model is never run."
            )
        self._device = choose_device(options.device)
        native = "bf16" if computes_bf16(self._device.type) else "fp32"
        self._precision = native if options.precision == "auto" else options.precision
        self._room = _Room(options.batch_size)

    @property
    def settings(self) -> Mapping[str, Any]:
        """Name and content of the model, options that decide its texts, and its precision."""
        return {**super().settings, "precision": self._precision}

    def report(self, images: ImageSet) -> Report:
        """Return the batch size that the memory held, if that was less than asked for."""
        least = self._room.least
        return Report(facts={"batch_size_used": least} if least < self.options.batch_size else {})

    def load(self) -> None:
        """Load processor and weights."""
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        folder, spec, dtype = self.files.folder, self.files.spec, _DTYPES[self._precision]
        with loading(f"{spec}: {folder} cannot be loaded as an image-text-to-text model", DescriberError):
            processor: Any = AutoProcessor.from_pretrained(folder, **local)
            model: Any = AutoModelForImageTextToText.from_pretrained(folder, use_safetensors=True, dtype=dtype, **local)
        tokenizer = getattr(processor, "tokenizer", None)
        if tokenizer is None or getattr(processor, "image_processor", None) is None:
            raise ConfigError(f"{spec}: its processor takes no images; use an image-text-to-text model.")
        if processor.chat_template is None:
            raise ConfigError(
                f"{spec}: it has no chat template (chat_template.jinja); use a model that was trained to follow "
                "instructions."
            )
        tokenizer.padding_side = "left"
        tokenizer.pad_token = tokenizer.pad_token or tokenizer.eos_token
        self._processor, self._model = processor, model.to(self._device).eval()
        self._generation = _generation_config(model.generation_config, self.options, tokenizer, greedy=self.repeatable)
        if reason := self._refusal(self.options.system):
            if not self._refusal(""):
                raise ConfigError(f"{spec}: its chat template takes no system message ({reason}); give --system ''.")
            raise ConfigError(f"{spec}: its chat template takes no {self.what_it_takes} ({reason}).")

    def reply(self, rows: Sequence[Row], conversations: list[list[dict[str, Any]]], call: int) -> Sequence[Reply]:
        """Return the next answers, if the memory holds the batch and the processor takes the images."""
        if len(rows) > self._room.rows:
            raise BatchError(_TOO_LARGE)
        try:
            inputs = self._inputs(conversations)
            replies = self._generate(inputs, seed_of(rows, call))
        except (ValueError, IndexError) as error:
            raise BatchError(f"the model does not take this image: {first_line(error)}") from None
        except TemplateError as error:
            raise DescriberError(f"{self.files.spec}: its chat template fails: {first_line(error)}") from error
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not any(s in str(error) for s in _MEMORY_IS_FULL):
                raise DescriberError(f"{self.files.spec}: the model failed: {first_line(error)}") from error
            self._room.shrink(len(rows))
            raise BatchError(_TOO_LARGE) from None
        self._room.held(len(rows))
        return replies

    def part(self, image: Image.Image) -> dict[str, Any]:
        """Return an image as a part of a message."""
        return {"type": "image", "image": image}

    def _inputs(self, conversations: Sequence[list[dict[str, Any]]]) -> BatchFeature:
        return self._processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self._device, _DTYPES[self._precision])

    def _generate(self, inputs: BatchFeature, seed: int) -> list[Reply]:
        width = inputs["input_ids"].shape[1]
        devices = [self._device] if self._device.type == "cuda" else []
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

    def _refusal(self, system: str) -> str:
        """Return in one line why the template does not take a question, or leaves out its system message."""
        question = self.question(system)
        try:
            self._inputs([question])
            text = self._processor.apply_chat_template(question, tokenize=False)
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
            return first_line(error)
        return "" if system.strip() in text else "it leaves it out"


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


def _up_to_end(tokens: Sequence[int], ends: frozenset[int]) -> Sequence[int]:
    """Return the tokens of one answer with its end, without the padding behind it."""
    end = next((place for place, token in enumerate(tokens) if token in ends), len(tokens) - 1)
    return tokens[: end + 1]
