"""Pieces of text are whole characters, and joined they are the text."""

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.checkpoint.architecture import Architecture
from chroma_models.reasoner.prompts import PromptBuilder

_BUILDERS: dict[Path, PromptBuilder] = {}


def builder_of(folder: Path) -> PromptBuilder:
    """hypothesis examples share it; a fixture of the function's scope could not be."""
    return _BUILDERS.setdefault(folder, PromptBuilder(folder, Architecture.read(folder)))


@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=60), cut=st.integers(0, 60))
def test_joined_pieces_are_the_text_also_when_resumed_anywhere(tiny: Path, text: str, cut: int) -> None:
    builder = builder_of(tiny)
    tokens = builder.voice_prompt(text)
    normal = builder._plain.decode(tokens, skip_special_tokens=False)
    pieces = builder.text_pieces()
    spoken = [pieces.push(token) for token in tokens]
    assert "".join(spoken) == normal
    resumed = builder.text_pieces(tokens[:cut])
    assert [resumed.push(token) for token in tokens[cut:]] == spoken[cut:]


@given(tokens=st.lists(st.integers(0, 511), max_size=40))
def test_any_tokens_at_all_decode_as_the_tokenizer_decodes_them(tiny: Path, tokens: list[int]) -> None:
    """But for a character that the end cuts off: the tokenizer shows it as U+FFFD, a stream waits for the rest."""
    builder = builder_of(tiny)
    pieces = builder.text_pieces()
    joined = "".join(pieces.push(token) for token in tokens)
    whole = builder._plain.decode([t for t in tokens if t not in builder._controls], skip_special_tokens=False)
    assert whole == joined or whole == joined + "\N{REPLACEMENT CHARACTER}"


def test_a_split_character_comes_with_its_last_token(tiny: Path) -> None:
    builder = builder_of(tiny)
    tokens = builder.voice_prompt("😀")
    assert len(tokens) > 1
    pieces = builder.text_pieces()
    assert [pieces.push(token) for token in tokens] == [""] * (len(tokens) - 1) + ["😀"]


@pytest.mark.parametrize("control", ["<|im_end|>", "<|AUDIO|>", "<|endoftext|>", "<|text_start|>"])
def test_control_tokens_and_unused_ids_have_no_text(tiny: Path, control: str) -> None:
    builder = builder_of(tiny)
    pieces = builder.text_pieces()
    assert pieces.push(builder._specials[control]) == ""
    assert pieces.push(10**6) == ""
