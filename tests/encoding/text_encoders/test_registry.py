"""Text encoders by SPEC, and the one that made some vectors."""

from __future__ import annotations

import pytest

from gpt4image.base.errors import ConfigError, ModelError
from gpt4image.encoding.text_encoders.registry import load_known_encoder, load_text_encoder


def test_the_spec_of_an_encoder_finds_it_again() -> None:
    encoder = load_text_encoder("bag-of-words:32")
    again = load_text_encoder(encoder.spec)
    assert (again.spec, again.revision, again.width) == (encoder.spec, encoder.revision, 32)


@pytest.mark.parametrize(
    ("spec", "reason"),
    [
        ("minillm", "Did you mean 'minilm'"),
        ("", "Unknown text encoder: '' is not one of"),
        ("minilm:large", "without a name; got 'minilm:large'"),
    ],
)
def test_specs_that_name_no_encoder_are_refused(spec: str, reason: str) -> None:
    with pytest.raises(ConfigError, match=reason):
        load_text_encoder(spec)


def test_vectors_of_another_revision_or_width_are_not_mixed_with_its_own() -> None:
    spec, whose = "bag-of-words:32", "The table t was made with"
    revision = load_text_encoder(spec).revision
    assert load_known_encoder(spec, "cpu", revision=revision, width=32, whose=whose).width == 32
    assert load_known_encoder(spec, "cpu", revision="", width=None, whose=whose).spec == spec
    with pytest.raises(ModelError, match=rf"The table t was made with {spec} \(revision 0000"):
        load_known_encoder(spec, "cpu", revision="0" * 64, width=32, whose=whose)
    with pytest.raises(ModelError, match="has vectors of 64 numbers, and that encoder gives 32"):
        load_known_encoder(spec, "cpu", revision=revision, width=64, whose=whose)
