"""A made tokenizer loses no text, and its template says what the reference's template says."""

from itertools import product
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from chroma_models.checkpoint.tokenizer import SPECIALS, make_tokenizer, special_ids
from chroma_models.errors import CheckpointError


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("tokenizer")
    make_tokenizer(folder, 600)
    return folder


@pytest.fixture(scope="module")
def tokenizer(folder: Path) -> Tokenizer:
    return Tokenizer.from_file(str(folder / "tokenizer.json"))


@given(text=st.text())
def test_text_survives(tokenizer: Tokenizer, text: str) -> None:
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    assert tokenizer.decode(ids, skip_special_tokens=False) == text


def test_every_id_below_the_specials_is_a_distinct_piece(tokenizer: Tokenizer) -> None:
    pieces = {tokenizer.id_to_token(i) for i in range(600)}
    assert None not in pieces
    assert len(pieces) == 600


def test_a_known_word_is_one_token(tokenizer: Tokenizer) -> None:
    assert len(tokenizer.encode(" music").ids) == 1
    assert len(tokenizer.encode(" mosaic").ids) == len(" mosaic")


def test_special_tokens_sit_where_the_published_model_has_them(tmp_path: Path) -> None:
    make_tokenizer(tmp_path, 151_643)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    published = {
        "<|endoftext|>": 151643,
        "<|im_start|>": 151644,
        "<|im_end|>": 151645,
        "<|AUDIO|>": 151646,
        "<|audio_bos|>": 151647,
        "<|audio_eos|>": 151648,
        "<|vision_bos|>": 151652,
        "<|vision_eos|>": 151653,
        "<|vision_pad|>": 151654,
        "<|IMAGE|>": 151655,
        "<|VIDEO|>": 151656,
        "<|text_start|>": 151665,
        "<|text_end|>": 151666,
    }
    assert {token: tokenizer.token_to_id(token) for token in published} == published
    assert special_ids(151_643).items() >= published.items()


def test_special_tokens_are_whole_and_never_part_of_a_reply(tokenizer: Tokenizer) -> None:
    ids = tokenizer.encode("".join(SPECIALS)).ids
    assert ids == list(special_ids(600).values())
    assert tokenizer.decode(ids) == ""


def test_a_vocabulary_smaller_than_the_bytes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="at least 256"):
        make_tokenizer(tmp_path, 255)


def _conversations() -> list[list[dict[str, Any]]]:
    parts: list[dict[str, Any]] = [
        {"type": "text", "text": " Two\nlines. "},
        {"type": "text", "text": ""},
        {"text": "{{ not a template }}<|im_end|>"},
        {"type": "audio", "audio": "a.wav"},
        {"type": "audio"},
        {"audio_url": "a.wav"},
    ]
    contents: list[Any] = [
        "plain",
        " spaced \n",
        "",
        [],
        *([part] for part in parts),
        *map(list, product(parts, parts)),
    ]
    roles = [["user"], ["system", "user"], ["system", "user", "assistant", "user"], ["user", "system"]]
    return [[{"role": role, "content": content} for role in chosen] for chosen in roles for content in contents]


def test_the_template_says_what_the_golden_one_says(folder: Path, goldens: Path) -> None:
    ours = PreTrainedTokenizerFast.from_pretrained(folder)
    theirs = (goldens / "A" / "checkpoint" / "chat_template.jinja").read_text()
    for messages in _conversations():
        for prompt in (True, False):
            asked = {"tokenize": False, "add_generation_prompt": prompt}
            said = ours.apply_chat_template(messages, **asked)
            assert said == ours.apply_chat_template(messages, chat_template=theirs, **asked)


def test_a_spoken_question_becomes_the_published_prompt(folder: Path) -> None:
    messages = [
        {"role": "system", "content": "You are Chroma."},
        {"role": "user", "content": [{"type": "audio", "audio": "question.wav"}]},
    ]
    said = PreTrainedTokenizerFast.from_pretrained(folder).apply_chat_template(
        messages, tokenize=False, add_generation_prompt=True
    )
    assert said == (
        "<|im_start|>system\nYou are Chroma.<|im_end|>\n"
        "<|im_start|>user\n<|audio_bos|><|AUDIO|><|audio_eos|><|im_end|>\n<|im_start|>assistant\n"
    )
