"""Tiny text models with random weights and a tokenizer of a few words, in the layout of each library."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file

WORDS = ["a", "small", "red", "dog", "cat", "runs", "sits", "under", "the", "blue", "sky", "tree", "green", "zebra"]


def make_tokenizer(folder: Path, *, max_length: int = 32, pad: bool = True, special: bool = True) -> int:
    """Save a word-level tokenizer, with ``special`` one that adds begin and end; return the size of its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", ".", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    if special:
        tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])  # pyright: ignore[reportAttributeAccessIssue]
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>"}
    if pad:
        names["pad_token"] = "<pad>"
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)
    fast.save_pretrained(folder)
    return len(vocabulary)


def make_model(folder: Path, kind: str, seed: int = 0, **options: Any) -> Path:
    """Save a model of transformers with its tokenizer: bert, roberta, clip, siglip, chinese_clip, t5 or
    llama."""
    import transformers

    torch.manual_seed(seed)
    size = make_tokenizer(folder, pad=kind != "llama", **options)
    small: dict[str, Any] = {"vocab_size": size, "hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2}
    small |= {"num_attention_heads": 2}
    special = {"pad_token_id": 0, "bos_token_id": 2, "eos_token_id": 3}
    text = {**small, **special, "max_position_embeddings": 32, "projection_dim": 12, "projection_size": 16}
    vision = {**small, "image_size": 8, "patch_size": 4, "num_channels": 3}
    match kind:
        case "bert":
            model = transformers.BertModel(
                transformers.BertConfig(**small, max_position_embeddings=64), add_pooling_layer=False
            )
        case "roberta":
            config = transformers.RobertaConfig(**small, **special, max_position_embeddings=24)
            model = transformers.RobertaModel(config)
        case "clip":
            config = transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
            model = transformers.CLIPModel(config)
        case "siglip":
            model = transformers.SiglipModel(transformers.SiglipConfig(text_config=text, vision_config=vision))
        case "chinese_clip":
            text = {**small, "pad_token_id": 0, "max_position_embeddings": 32}
            config = transformers.ChineseCLIPConfig(text_config=text, vision_config=vision, projection_dim=12)
            model = transformers.ChineseCLIPModel(config)
        case "t5":
            config = transformers.T5Config(vocab_size=size, d_model=16, d_kv=8, d_ff=32, num_layers=2, num_heads=2)
            model = transformers.T5Model(config)
        case _:
            config = transformers.LlamaConfig(**small, **special, num_key_value_heads=2, max_position_embeddings=64)
            model = transformers.LlamaForCausalLM(config)
    model.save_pretrained(folder)
    return folder


def make_sentence_transformer(folder: Path, kind: str = "bert", **options: Any) -> Path:
    """Save a SentenceTransformer with mean pooling around a tiny model of ``make_model``."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    inner = Transformer(str(make_model(folder / kind, kind, **options)))
    SentenceTransformer(modules=[inner, Pooling(16, "mean")], device="cpu").save(str(folder / "model"))
    return folder / "model"


def make_open_clip(folder: Path, name: str = "tiny-clip", width: int = 16) -> str:
    """Register a tiny CLIP with open_clip, save random weights, and return its SPEC."""
    import open_clip

    config = {
        "embed_dim": 12,
        "vision_cfg": {"image_size": 32, "layers": 1, "width": 64, "patch_size": 16},
        "text_cfg": {"context_length": 24, "vocab_size": 49408, "width": width, "heads": 2, "layers": 2},
    }
    folder.mkdir(parents=True, exist_ok=True)
    (folder / f"{name}.json").write_text(json.dumps(config))
    open_clip.add_model_config(folder / f"{name}.json")
    torch.manual_seed(0)
    model: Any = open_clip.create_model(name)
    save_file({key: value.contiguous() for key, value in model.state_dict().items()}, folder / "clip.safetensors")
    return f"open_clip:{name}/{folder / 'clip.safetensors'}"
