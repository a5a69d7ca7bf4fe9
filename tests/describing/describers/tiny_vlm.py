"""A tiny vision-language model with random weights: a LLaVA of 0.2 million parameters, made here, without a download.

It describes nothing, but all else is real: processor, chat template with a system role, end of the answer, and
words that depend on the image. Its answers are English words without repetition loops, most of them 10 to
30 words long, so that the rules for good descriptions let them pass.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
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
SPECIAL = ("<pad>", "<bos>", "<eos>", "<image>", "<system>", "<user>", "<assistant>")
TEXT = (
    "the a an and of in on at with by from to is are its it that this there two one some near under over behind beside "
    "between while very not both against along red blue green yellow brown black white grey orange pale dark bright "
    "small large tall short round narrow wide old young soft smooth rough wet dry empty bird dog cat horse deer frog "
    "car truck ship plane tree leaf grass flower field river lake sea sky cloud hill rock road street house roof wall "
    "door window fence table chair cup plate bowl book lamp light shadow hand face eye ear tail wing leg feather fur "
    "stripe spot edge corner centre front back side top left right water sand snow wood metal glass stone stands sits "
    "runs flies looks holds carries shows hangs lies leans turns shines rests walks swims grows faces covers fills"
)
TEMPLATE = (
    "{{ bos_token }}{% for message in messages %}{{ '<' + message['role'] + '>' }}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}{{ '<image>' }}{% else %}{{ part['text'] }}{% endif %}"
    "{% endfor %}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %}{{ '<assistant>' }}{% endif %}"
)


@pytest.fixture(scope="session")
def tiny_vlm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of the model; it takes a tenth of a second to make, so that each test process makes its own."""
    return make_tiny_vlm(tmp_path_factory.mktemp("model") / "tiny-vlm")


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
    tokenizer, alphabet = Tokenizer(models.BPE()), pre_tokenizers.ByteLevel.alphabet()
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=4096, special_tokens=list(SPECIAL), initial_alphabet=alphabet, show_progress=False
    )
    tokenizer.train_from_iterator([f" {TEXT}"] * 2, trainer)
    special: Any = {"pad_token": "<pad>", "bos_token": "<bos>", "eos_token": "<eos>"}
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
    # Whole words and the end of the answer have large logits, and all else the logit 0.
    words = {tokenizer.eos_token_id, *(tokenizer.convert_tokens_to_ids("Ġ" + word) for word in TEXT.split())}
    with torch.no_grad():
        for name, weight in model.named_parameters():
            if name.endswith("bias"):
                weight.zero_()
            elif "norm" not in name:
                fan_in = weight[0].numel() if weight.ndim > 1 else len(weight)
                weight.normal_(0.0, 1.5 / math.sqrt(fan_in), generator=generator)
        model.lm_head.weight *= 4.0
        model.lm_head.weight[[token for token in range(len(tokenizer)) if token not in words]] = 0.0
    # Whatever the weights, a greedy walk over few words comes back to where it was; the penalty keeps it from looping.
    model.generation_config = GenerationConfig(do_sample=False, repetition_penalty=1.5, **ends)
    return model
