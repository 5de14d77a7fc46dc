"""From a turn's messages to what the Reasoner reads: token ids, and the clips behind their audio placeholders."""

import hashlib
import re
import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from tokenizers import Tokenizer
from transformers import PreTrainedTokenizerFast

from chroma_models.checkpoint.architecture import Architecture, read_json
from chroma_models.errors import CheckpointError, InvalidAudio, InvalidRequest, PromptTooLong
from chroma_models.reasoner.mel import Mel, Samples, audio_tokens
from chroma_models.reasoner.text_pieces import TextPieces, TokenBytes
from chroma_models.types import Audio, Message, Text


@dataclass(frozen=True, eq=False)
class Clip:
    """One spoken part as the model hears it. digest names the samples by content."""

    samples: Samples
    digest: str
    tokens: int


@dataclass(frozen=True, eq=False)
class Prompt:
    """ids holds each clip's placeholder as often as the clip has tokens; starts says where."""

    ids: tuple[int, ...]
    clips: tuple[Clip, ...] = ()
    starts: tuple[int, ...] = ()

    @property
    def collapsed(self) -> list[int]:
        """ids with one placeholder per clip."""
        ids: list[int] = []
        end = 0
        for start, clip in zip(self.starts, self.clips, strict=True):
            ids += self.ids[end : start + 1]
            end = start + clip.tokens
        return ids + list(self.ids[end:])


class PromptBuilder:
    """Chat template, tokenizer and feature extractor of a checkpoint. Thread-safe.

    Nobody can write a control token. The template is rendered with stand-ins for what people wrote; only the template's
    own text is searched for special tokens, and the pieces between them, with the people's text put back in, are
    encoded by a tokenizer that takes "<|im_end|>" for seven ordinary characters. For text without such strings the ids
    are the reference's, because its tokenizer, too, splits at special tokens first and encodes the pieces apart.
    """

    def __init__(
        self, folder: Path, architecture: Architecture, max_model_len: int = 8192, max_audio_parts: int = 16
    ) -> None:
        """Raises CheckpointError when tokenizer, template or extractor are absent or unfit."""
        self.mel = Mel(folder)
        self.vocab = architecture.text_vocab
        self._architecture = architecture
        self._max_model_len, self._max_audio_parts = max_model_len, max_audio_parts
        self._template_tokenizer = _load_tokenizer(folder)
        self._template = _load_template(folder, self._template_tokenizer)
        self._plain = Tokenizer.from_str(self._template_tokenizer.backend_tokenizer.to_str())
        self._plain.encode_special_tokens = True
        self._plain.no_truncation()
        self._plain.no_padding()
        added = self._template_tokenizer.added_tokens_decoder
        self._specials = {token.content: int(i) for i, token in added.items() if token.special}
        named = {architecture.im_end, architecture.audio_token, architecture.text_start, architecture.text_end}
        self._controls = frozenset(self._specials.values()) | named
        longest_first = sorted(self._specials, key=len, reverse=True)
        self._special_pattern = re.compile("(" + "|".join(map(re.escape, longest_first)) + ")")
        if architecture.audio_token not in self._specials.values():
            raise CheckpointError(f"The tokenizer has no special token {architecture.audio_token} for audio.")
        if max(self._specials.values()) >= architecture.text_vocab:
            raise CheckpointError("The tokenizer has more tokens than the embedding has rows.")
        self._bytes = TokenBytes(self._plain, self._controls)

    def build(self, messages: Sequence[Message]) -> Prompt:
        """Raises InvalidRequest, InvalidAudio, or PromptTooLong when no token of reply would fit behind the prompt."""
        if not messages:
            raise InvalidRequest("A turn needs at least one message.", "messages")
        audio = [part for message in messages for part in message.parts if isinstance(part, Audio)]
        if len(audio) > self._max_audio_parts:
            raise PromptTooLong(f"{len(audio)} spoken parts; at most {self._max_audio_parts} fit.", "messages")
        texts: list[str] = []
        nonce = secrets.token_hex(8)
        conversation = [
            {"role": message.role, "content": [_content(part, texts, nonce) for part in message.parts]}
            for message in messages
        ]
        rendered = self._template_tokenizer.apply_chat_template(
            conversation, chat_template=self._template, add_generation_prompt=True, tokenize=False
        )
        return self._expand(self._encode(rendered, texts, nonce), [self._clip(part) for part in audio])

    def voice_prompt(self, transcript: str) -> list[int]:
        """Token ids of a voice's transcript: no template, no special tokens."""
        return self._encode_plain(transcript)

    def text_pieces(self, spoken: Sequence[int] = ()) -> TextPieces:
        """Turns the tokens of one reply into text; spoken are those whose text is out already."""
        return TextPieces(self._bytes, spoken)

    def _clip(self, part: Audio) -> Clip:
        samples = np.ascontiguousarray(self.mel.cut(part.samples()))
        if not np.isfinite(samples).all():
            raise InvalidAudio("A spoken part holds samples that are not numbers.", "messages")
        tokens = audio_tokens(self.mel.frames(len(samples)))
        if tokens == 0:
            raise InvalidAudio("A spoken part is shorter than 21 ms.", "messages")
        return Clip(samples, hashlib.sha256(samples.data).hexdigest(), tokens)

    def _encode(self, rendered: str, texts: list[str], nonce: str) -> list[int]:
        """Token ids of a rendered template, the people's text put back in."""
        stand_in = re.compile(f"{nonce}:(\\d+);")
        ids: list[int] = []
        for piece in self._special_pattern.split(rendered):
            if piece in self._specials:
                ids.append(self._specials[piece])
            elif piece:
                ids += self._encode_plain(stand_in.sub(lambda match: texts[int(match[1])], piece))
        return ids

    def _encode_plain(self, text: str) -> list[int]:
        try:
            text.encode()
        except UnicodeEncodeError as error:
            raise InvalidRequest("Text holds half a character (a lone surrogate).") from error
        ids: list[int] = self._plain.encode(text, add_special_tokens=False).ids
        if not self._controls.isdisjoint(ids):  # a tokenizer that does not mark its control tokens as special
            raise InvalidRequest("Text must not hold control tokens such as <|im_end|>.")
        return ids

    def _expand(self, collapsed: list[int], clips: list[Clip]) -> Prompt:
        placeholder = self._architecture.audio_token
        if collapsed.count(placeholder) != len(clips):
            raise CheckpointError(f"The chat template placed {collapsed.count(placeholder)} of {len(clips)} clips.")
        ids: list[int] = []
        starts: list[int] = []
        for token in collapsed:
            if token == placeholder:
                starts.append(len(ids))
                ids += [placeholder] * clips[len(starts) - 1].tokens
            else:
                ids.append(token)
        if len(ids) + 1 > self._max_model_len:
            raise PromptTooLong(
                f"The conversation takes {len(ids)} of the Reasoner's {self._max_model_len} positions.", "messages"
            )
        return Prompt(tuple(ids), tuple(clips), tuple(starts))


def _content(part: Text | Audio, texts: list[str], nonce: str) -> dict[str, str]:
    if isinstance(part, Audio):
        return {"type": "audio", "audio": "clip"}
    texts.append(part.text)
    return {"type": "text", "text": f"{nonce}:{len(texts) - 1};"}


def _load_tokenizer(folder: Path) -> Any:
    if not (folder / "tokenizer.json").exists():
        raise CheckpointError(f"{folder} holds no tokenizer.json.")
    try:
        return PreTrainedTokenizerFast.from_pretrained(folder, local_files_only=True)
    except (OSError, ValueError, TypeError) as error:
        raise CheckpointError(f"The tokenizer in {folder} cannot be read: {error}.") from error


def _load_template(folder: Path, tokenizer: Any) -> str:
    """From chat_template.jinja or tokenizer_config.json, else from the older chat_template.json of processors."""
    template = tokenizer.chat_template
    if template is None and (folder / "chat_template.json").exists():
        template = read_json(folder / "chat_template.json").get("chat_template")
    if not isinstance(template, str):
        raise CheckpointError(f"{folder} holds no chat template.")
    return template
