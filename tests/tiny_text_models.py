"""Tiny text models with random weights and a tokenizer of a few words, in the layout of each library."""

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file

WORDS = ["a", "small", "red", "dog", "cat", "runs", "sits", "under", "the", "blue", "sky", "tree", "green", "zebra"]


def make_tokenizer(folder: Path, *, max_length: int = 32) -> int:
    """Save a word-level tokenizer, which adds begin and end; return the size of its vocabulary."""
    from tokenizers import Tokenizer
    from tokenizers.models import WordLevel
    from tokenizers.pre_tokenizers import Whitespace
    from tokenizers.processors import TemplateProcessing
    from transformers import PreTrainedTokenizerFast

    vocabulary = {word: number for number, word in enumerate(["<pad>", "<unk>", "<s>", "</s>", ".", *WORDS])}
    tokenizer = Tokenizer(WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = Whitespace()  # pyright: ignore[reportAttributeAccessIssue]
    tokenizer.post_processor = TemplateProcessing(single="<s> $A </s>", special_tokens=[("<s>", 2), ("</s>", 3)])  # pyright: ignore[reportAttributeAccessIssue]
    names: dict[str, Any] = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>"}
    fast = PreTrainedTokenizerFast(tokenizer_object=tokenizer, model_max_length=max_length, **names)
    fast.save_pretrained(folder)
    return len(vocabulary)


def make_bert(folder: Path, seed: int = 0, **options: Any) -> Path:
    """Save a BERT of transformers with its tokenizer."""
    from transformers import BertConfig, BertModel

    torch.manual_seed(seed)
    small = {"hidden_size": 16, "intermediate_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=make_tokenizer(folder, **options), **small, max_position_embeddings=64)
    BertModel(config, add_pooling_layer=False).save_pretrained(folder)
    return folder


def make_sentence_transformer(folder: Path, **options: Any) -> Path:
    """Save a SentenceTransformer with mean pooling around a tiny model BERT."""
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.sentence_transformer.modules import Pooling, Transformer

    inner = Transformer(str(make_bert(folder / "bert", **options)))
    SentenceTransformer(modules=[inner, Pooling(16, "mean")], device="cpu").save(str(folder / "model"))
    return folder / "model"


def make_open_clip(folder: Path, name: str = "tiny-clip", width: int = 16) -> str:
    """Register a tiny CLIP with open_clip, save random weights, and return its SPEC."""
    open_clip = pytest.importorskip("open_clip")
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
