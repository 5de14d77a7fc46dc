"""Tokens to text, one at a time and never half a character."""

import codecs
from collections.abc import Sequence
from collections.abc import Set as AbstractSet

from tokenizers import Tokenizer, decoders

from chroma_models.errors import CheckpointError


class TokenBytes:
    """The UTF-8 bytes behind each token of a byte-level tokenizer; none for control tokens and unused ids."""

    def __init__(self, tokenizer: Tokenizer, controls: AbstractSet[int]) -> None:
        """Raises CheckpointError when the tokenizer is not a byte-level one."""
        if not isinstance(tokenizer.decoder, decoders.ByteLevel):
            raise CheckpointError("The tokenizer is not a byte-level one, so its tokens have no bytes of their own.")
        self._tokenizer, self._controls = tokenizer, controls
        self._byte_of = _byte_alphabet()
        self._known: dict[int, bytes] = {}

    def of(self, token: int) -> bytes:
        if token not in self._known:
            self._known[token] = self._look_up(token)
        return self._known[token]

    def _look_up(self, token: int) -> bytes:
        spelled = None if token in self._controls else self._tokenizer.id_to_token(token)
        if spelled is None:
            return b""
        if all(letter in self._byte_of for letter in spelled):
            return bytes(self._byte_of[letter] for letter in spelled)
        return str(spelled).encode()  # an added token, kept as it is written


class TextPieces:
    """The text of one reply. A character is given out with the token that completes it; invalid bytes become U+FFFD.

    The pieces of a reply joined are its tokens decoded at once, except that a character cut off by the end is dropped.
    """

    def __init__(self, token_bytes: TokenBytes, spoken: Sequence[int] = ()) -> None:
        self._bytes = token_bytes
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        for token in spoken:
            self.push(token)

    def push(self, token: int) -> str:
        return self._decoder.decode(self._bytes.of(token))


def _byte_alphabet() -> dict[str, int]:
    """Byte-level BPE spells each byte as a visible letter: itself where it is one, else the next from U+0100 on."""
    visible = {*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)}
    hidden = [byte for byte in range(256) if byte not in visible]
    return {chr(byte): byte for byte in visible} | {chr(256 + i): byte for i, byte in enumerate(hidden)}
