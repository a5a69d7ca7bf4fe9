"""A LLaVA of 0.2 million random weights, made here without a download.

It describes nothing, but all else is real: processor, chat template with a system role, end of the answer, and words
that depend on the image.
"""

import math
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import (
    CLIPImageProcessor,
    CLIPVisionConfig,
    GenerationConfig,
    LlamaConfig,
    LlavaConfig,
    LlavaForConditionalGeneration,
    LlavaProcessor,
    PreTrainedTokenizerFast,
)

SIDE, PATCH = 32, 16
SPECIAL = ("<unk>", "<pad>", "<bos>", "<eos>", "<image>", "<system>", "<user>", "<assistant>")
TEXT = """the a and of in on at with by from to is are two red blue green black white grey pale dark small large
bird dog cat horse car ship tree leaf grass river sea sky hill road house wall door table cup lamp light hand stands
sits runs Describe this image detail What each colour shape place all things"""
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


def make_tiny_vlm(folder: Path, *, template: str | None = TEMPLATE) -> Path:
    """Save model, processor with this chat template or none, and generation configuration in ``folder``; return it."""
    tokenizer = _tokenizer()
    size: Any = {"size": {"shortest_edge": SIDE}, "crop_size": {"height": SIDE, "width": SIDE}}
    LlavaProcessor(
        image_processor=CLIPImageProcessor(**size),
        tokenizer=tokenizer,
        patch_size=PATCH,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=template,
    ).save_pretrained(folder)
    model = _model(tokenizer)
    # As the published LLaVA checkpoints name their weights.
    weights = {
        name.replace("vision_tower.", "vision_tower.vision_model."): weight.contiguous()
        for name, weight in model.state_dict().items()
    }
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    model.config.architectures, model.config.dtype = [type(model).__name__], "float32"
    model.config.save_pretrained(folder)
    model.generation_config.save_pretrained(folder)
    return folder


def _tokenizer() -> PreTrainedTokenizerFast:
    vocabulary = {word: number for number, word in enumerate([*SPECIAL, *TEXT.split()])}
    tokenizer = Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    special: Any = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>", "unk_token": "<unk>"}
    special["extra_special_tokens"] = {"image_token": "<image>"}
    return PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=1024, padding_side="left", **special)


def _model(tokenizer: PreTrainedTokenizerFast) -> LlavaForConditionalGeneration:
    layers: Any = {"hidden_size": 64, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2}
    ends: Any = {name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")}
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(**layers, image_size=SIDE, patch_size=PATCH, projection_dim=64),
        text_config=LlamaConfig(**layers, **ends, vocab_size=len(tokenizer), max_position_embeddings=1024),
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_seq_length=(SIDE // PATCH) ** 2,
        vision_feature_layer=-1,
    )
    model = LlavaForConditionalGeneration(config)
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif "norm" not in name:
                weight.normal_(
                    0.0, 1.5 / math.sqrt(weight[0].numel() if weight.ndim > 1 else len(weight)), generator=generator
                )
        model.lm_head.weight *= 4.0
        model.lm_head.weight[: len(SPECIAL)] *= torch.arange(len(SPECIAL))[:, None] == SPECIAL.index("<eos>")
    # A greedy walk over few words comes back to where it was; the penalty keeps it from looping.
    model.generation_config = GenerationConfig(do_sample=False, repetition_penalty=1.5, **ends)
    return model
