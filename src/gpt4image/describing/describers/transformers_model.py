"""Any image-text-to-text model of the transformers library, on this machine, in batches.

A batch that the memory does not hold is halved.
"""

import copy
import hashlib
import itertools
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

import torch
from jinja2 import TemplateError
from PIL import Image
from transformers import AutoModelForImageTextToText, AutoProcessor, GenerationConfig
from transformers.models.auto.modeling_auto import MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES

from gpt4image.base.errors import ConfigError, DecodeError, DescriberError, first_line
from gpt4image.base.files import file_digest, fingerprint, read_json
from gpt4image.config import DescriberOptions
from gpt4image.data.dataset import Dataset
from gpt4image.describing.describers.base import Answer, FreeDescriber, Report, Request
from gpt4image.describing.describers.images import pictures, why_unusable
from gpt4image.models.hugging_face import find_folder, loading
from gpt4image.parallel.devices import choose_device, computes_bf16

_DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_WEIGHTS = "*.safetensors"
_FILES_THAT_COUNT = (_WEIGHTS, "*.json", "*.jinja", "*.txt", "*.model")
_CHANGE_THE_TEXT = ("system", "temperature", "max_tokens", "max_side", "per_call")
_TOO_LARGE = "the memory does not hold this image and its answer; lower --max-side or --max-tokens"
# Messages of libraries whose error for a full memory is no torch.OutOfMemoryError (CPU, MPS, cuBLAS).
_MEMORY_IS_FULL = ("out of memory", "can't allocate memory", "CUBLAS_STATUS_ALLOC_FAILED")


class BatchError(Exception):
    """A batch cannot be answered together; smaller ones may. The message says why, in one line."""


_Shown = tuple[Request, Sequence[Image.Image]]
"""A request, with its image (RGB) or the frames of its clip."""


class TransformersDescriber(FreeDescriber):
    """A model with its own processor and chat template; it is loaded when it is first asked."""

    def __init__(self, name: str, options: DescriberOptions) -> None:
        """Find the model ``name``, a folder or a Hugging Face id. Raises ConfigError."""
        self._spec, self._options = f"transformers:{name}", options
        try:
            self._folder = find_folder(name, _FILES_THAT_COUNT)
        except LookupError as error:
            raise ConfigError(f"{self._spec}: {error.args[0]}.") from error
        if next(self._folder.glob(_WEIGHTS), None) is None:
            raise ConfigError(
                f"{self._spec}: there is no .safetensors file in {self._folder}; pickled weights are never loaded, "
                "because loading them can run any code. Use a model that has .safetensors files."
            )
        kind = str(self._json("config.json").get("model_type", ""))
        if kind not in MODEL_FOR_IMAGE_TEXT_TO_TEXT_MAPPING_NAMES:
            raise ConfigError(
                f"{self._spec}: {kind or 'this'} is no image-text-to-text model that transformers knows; use one, "
                "e.g. of the kinds llava, qwen2_5_vl, smolvlm, gemma3. Code that comes with a model is never run."
            )
        own = self._json("generation_config.json") if (self._folder / "generation_config.json").is_file() else {}
        self.repeatable = not own.get("do_sample") if options.temperature is None else options.temperature == 0
        self._device = choose_device(options.device)
        precision = "bf16" if computes_bf16(self._device.type) else "fp32"
        self._dtype = _DTYPES[precision]
        # A folder may move and a hub repository may change its README: the model is known by the content of its files.
        files = sorted({file for pattern in _FILES_THAT_COUNT for file in self._folder.glob(pattern)})
        self.settings: Mapping[str, Any] = {
            "kind": "transformers",
            "model": self._folder.resolve().name if Path(name).expanduser().is_dir() else name,
            "fingerprint": fingerprint({file.name: _digest(file, file.stat().st_mtime_ns) for file in files}),
            **{name: getattr(options, name) for name in _CHANGE_THE_TEXT},
            **options.clip_settings,
            "precision": precision,
        }
        self._rows_at_once = options.batch_size
        self._calls = 0
        self._model: Any = None

    def _json(self, name: str) -> dict[str, Any]:
        try:
            return dict(read_json(self._folder / name))
        except (OSError, ValueError, TypeError) as error:
            reason = f"{self._folder / name} cannot be read as JSON ({first_line(error)}); give the folder of a model."
            raise ConfigError(f"{self._spec}: {reason}") from None

    def describe(self, requests: Iterable[Request]) -> Iterator[Sequence[Answer]]:
        """Yield the answers batch by batch; halves of a batch if it cannot be answered together.

        Raises ConfigError where the model or its chat template does not take the questions, else DescriberError.
        """
        requests = iter(requests)
        if self._model is None:
            if (first := next(requests, None)) is None:
                return
            self._load(self._options.frames if first.clips and not self._options.contact_sheet else 1)
            requests = itertools.chain([first], requests)
        while asked := list(itertools.islice(requests, self._options.batch_size)):
            batch, failed = list[_Shown](), list[Answer]()
            for request in asked:
                try:
                    batch.append((request, pictures(request, self._options)))
                except (OSError, DecodeError) as error:
                    failed.append(Answer(request=request, error=why_unusable(error)))
            if failed:
                yield failed
            pending = [batch] if batch else []
            while pending:
                batch = pending.pop()
                try:
                    yield self._answers(batch)
                except BatchError as error:
                    if len(batch) == 1:
                        yield [Answer(request=batch[0][0], error=str(error))]
                    else:
                        half = (len(batch) + 1) // 2
                        pending += [batch[half:], batch[:half]]

    def report(self, images: Dataset) -> Report:
        """Return the batch size that the memory held, if that was less than asked for."""
        at_once = self._rows_at_once
        return Report(facts={"batch_size_used": at_once} if at_once < self._options.batch_size else {})

    def _load(self, images_at_once: int) -> None:
        local: dict[str, Any] = {"local_files_only": True, "trust_remote_code": False}
        folder, spec = self._folder, self._spec
        with loading(f"{spec}: {folder} cannot be loaded as an image-text-to-text model", DescriberError):
            processor: Any = AutoProcessor.from_pretrained(folder, **local)
            model: Any = AutoModelForImageTextToText.from_pretrained(
                folder, use_safetensors=True, dtype=self._dtype, **local
            )
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
        self._generation = self._generation_config(model.generation_config, tokenizer)
        grey = [Image.new("RGB", (64, 64), "grey")] * images_at_once
        asked = messages("What is this?", grey, self._options.system)
        try:
            self._inputs([asked])
            if self._options.system.strip() not in processor.apply_chat_template(asked, tokenize=False):
                raise ValueError("it leaves out the system message")
        except (TemplateError, ValueError, TypeError, LookupError, AttributeError) as error:
            way = "--system ''" + (" or --contact-sheet" if images_at_once > 1 else "")
            what = f"its chat template does not take the question ({first_line(error)})"
            raise ConfigError(f"{spec}: {what}; try {way}, or another model.") from None

    def _generation_config(self, own: GenerationConfig, tokenizer: Any) -> GenerationConfig:
        config = copy.deepcopy(own)
        config.do_sample, config.num_return_sequences = not self.repeatable, 1
        config.max_length, config.max_new_tokens = None, self._options.max_tokens
        for name in ("eos_token_id", "pad_token_id"):
            if getattr(config, name) is None:
                setattr(config, name, getattr(tokenizer, name))
        if self.repeatable:
            config.temperature = config.top_p = config.top_k = None
        elif self._options.temperature is not None:
            config.temperature = self._options.temperature
        return config

    def _answers(self, batch: Sequence[_Shown]) -> list[Answer]:
        """Return the answers of a batch. Raises BatchError: the memory does not hold it, or an image is refused."""
        if len(batch) > self._rows_at_once:
            raise BatchError(_TOO_LARGE)
        start = time.perf_counter()
        try:
            inputs = self._inputs([messages(one.question, images, self._options.system) for one, images in batch])
            found = self._generate(batch, inputs)
        except (ValueError, IndexError, TemplateError) as error:
            raise BatchError(f"the model does not take this image: {first_line(error)}") from None
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and not any(s in str(error) for s in _MEMORY_IS_FULL):
                raise DescriberError(f"{self._spec}: the model failed: {first_line(error)}") from error
            self._rows_at_once = min(self._rows_at_once, (len(batch) + 1) // 2)
            raise BatchError(_TOO_LARGE) from None
        latency = time.perf_counter() - start
        return [
            Answer(request=request, cost_usd=0.0, latency_s=latency, **fields)
            for (request, _), fields in zip(batch, found, strict=True)
        ]

    def _inputs(self, conversations: Sequence[list[dict[str, Any]]]) -> Any:
        return self._processor.apply_chat_template(
            list(conversations),
            add_generation_prompt=True,
            tokenize=True,
            return_dict=True,
            return_tensors="pt",
            processor_kwargs={"padding": True},
        ).to(self._device, self._dtype)

    def _generate(self, batch: Sequence[_Shown], inputs: Any) -> list[dict[str, Any]]:
        width = inputs["input_ids"].shape[1]
        devices = [self._device] if self._device.type == "cuda" else []
        self._calls += 1  # another seed in the same run; the same run gives the same answers
        asked = repr((self._calls, [(request.digest, request.question) for request, _ in batch]))
        with torch.random.fork_rng(devices), torch.inference_mode():
            torch.manual_seed(int.from_bytes(hashlib.sha256(asked.encode()).digest()[:4]))
            tokens = self._model.generate(**inputs, generation_config=self._generation)[:, width:].tolist()
        eos = self._generation.eos_token_id
        ends = frozenset([eos] if isinstance(eos, int) else eos or ())
        answers = [  # each up to its end, without the padding behind it
            own[: next((place for place, token in enumerate(own, 1) if token in ends), None)] for own in tokens
        ]
        texts = self._processor.batch_decode(answers, skip_special_tokens=True)
        tokens_in = inputs["attention_mask"].sum(dim=1).tolist()
        reasons = ["stop" if answer and answer[-1] in ends else "length" for answer in answers]
        columns = zip(texts, reasons, tokens_in, map(len, answers), strict=True)
        return [dict(zip(("text", "finish_reason", "tokens_in", "tokens_out"), row, strict=True)) for row in columns]


def messages(question: str, images: Sequence[Image.Image], system: str) -> list[dict[str, Any]]:
    """Return the messages that ask about images."""
    content = [*({"type": "image", "image": image} for image in images), {"type": "text", "text": question}]
    asked: list[dict[str, Any]] = [{"role": "user", "content": content}]
    return [{"role": "system", "content": [{"type": "text", "text": system}]}, *asked] if system else asked


@cache  # a large model takes a while
def _digest(file: Path, _changed: int) -> str:
    return file_digest(file)
