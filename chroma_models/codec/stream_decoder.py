"""Mimi's decoder for many streams at once, each a few frames at a time."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.codec.causal_conv import CausalConv
from chroma_models.codec.codebook_table import codebook_table
from chroma_models.codec.stream_state import StreamState
from chroma_models.codec.windowed_transformer import WindowedTransformer
from chroma_models.engine.cuda_graph import Progress
from chroma_models.errors import CheckpointError
from chroma_models.layers import TensorSource
from chroma_models.types import CODEBOOKS, FRAME_SAMPLES

FULL_ROWS_CPU = 16  # ms a frame, tiny, groups of 4: 1.25 alone, 0.49 with 8 rows, 0.45 with 16, 0.44 with 64


@dataclass(frozen=True)
class Stage:
    """Upsample, then a residual block: a convolution over time and one per position."""

    up: CausalConv
    over_time: CausalConv
    per_position: CausalConv


class StreamDecoder:
    """Decodes codes to 24 kHz speech, float32. A stream decoded in any groups equals one-shot decode of its codes.

    get gives the tensors below "codec_model", in float32 on their device.
    """

    def __init__(self, shape: CodecShape, get: TensorSource, slots: int, max_group: int = 4, scratch: int = 0) -> None:
        """scratch: slots beyond the last one, for what is computed and not wanted."""
        _check(shape)
        self.shape, self.slots, self.max_group = shape, slots, max_group
        self._table = codebook_table(shape, get)  # [CODEBOOKS * codebook_size, hidden]
        self.device = self._table.device
        self._offsets = torch.arange(CODEBOOKS, device=self.device) * shape.codebook_size

        def conv(name: str) -> CausalConv:
            return CausalConv.plain(get(f"{name}.conv.weight"), get(f"{name}.conv.bias"))

        groups = int(shape.raw.get("upsample_groups", shape.hidden))
        self._stretch = CausalConv.transposed(get("upsample.conv.weight"), None, groups)
        self._transformer = WindowedTransformer(shape, get, "decoder_transformer")
        self._head = conv("decoder.layers.0")
        self._stages: list[Stage] = []
        at = 1
        for ratio in shape.ratios:  # an activation, the upsampling, the block
            name = f"decoder.layers.{at + 1}.conv"
            up = CausalConv.transposed(get(f"{name}.weight"), get(f"{name}.bias"))
            if up.stride != ratio:
                raise CheckpointError(f"codec_model.{name} upsamples by {up.stride}, config.json says {ratio}.")
            block = f"decoder.layers.{at + 2}.block"
            self._stages.append(Stage(up, conv(f"{block}.1"), conv(f"{block}.3")))
            at += 3
        self._tail = conv(f"decoder.layers.{at + 1}")
        self._convs = [self._stretch, self._head, *(c for s in self._stages for c in (s.up, s.over_time)), self._tail]
        self.state = self._new_state(slots + scratch)

    def _new_state(self, slots: int) -> StreamState:
        sizes = [(conv.history, conv.inputs) for conv in self._convs]
        return StreamState(self.shape, sizes, slots, self._stretch.stride * self.max_group, self.device)

    @property
    def reach_positions(self) -> int:
        """Transformer outputs that the convolutions after it remember something of."""
        need = 0
        for conv in reversed(self._convs[1:]):
            need = -(-need // conv.stride) + conv.history
        return need

    @property
    def reach_frames(self) -> int:
        """Frames back from which a code may still change what comes next."""
        positions = self.reach_positions + self.shape.layers * (self.shape.context - 1)
        return -(-positions // self._stretch.stride) + self._stretch.history

    @property
    def full_rows(self) -> int:
        """Rows beyond which a step's cost grows as they do: no reason to let an urgent row wait for a longer one."""
        return FULL_ROWS_CPU if self.device.type == "cpu" else self.slots

    @property
    def positions_per_frame(self) -> int:
        """Transformer positions that a frame is."""
        return self._stretch.stride

    def warm_up(self, progress: Progress) -> None:
        """Decode once in every group length, before the first stream. progress is told of captured graphs."""
        for group in range(1, self.max_group + 1):
            self.step([0], torch.zeros((1, group, CODEBOOKS), dtype=torch.int64, device=self.device))
        self.reset([0])

    @torch.inference_mode()
    def reset(self, slots: list[int]) -> None:
        """Forget what the slots have heard."""
        self.state.reset(slots)

    @torch.inference_mode()
    def step(self, slots: list[int], codes: Tensor) -> Tensor:
        """Decode the next frames of several streams.

        slots    distinct; ascending and without gaps is fastest
        codes    int64 [rows, group, CODEBOOKS], each 0 .. codebook_size - 1 (not checked here), group <= max_group
        returns  float32 [rows, group * FRAME_SAMPLES]
        """
        self._check_group(codes.shape[1])
        index = torch.tensor(slots, device=codes.device)
        x = self._stretched(self.state, index, codes)
        return self._convolved(self.state, index, self._transformer.step(self.state, slots, x))

    @torch.inference_mode()
    def prepare(self, codes: Tensor) -> StreamState:
        """The state of a stream that was fed codes int64 [frames, CODEBOOKS], computed in one wide pass.

        Touches no slot, so that it may run in another thread while step() runs; restore() puts it in its slot.
        """
        state = self._new_state(1)
        total = codes.shape[0]
        codes = codes[-self.reach_frames :]
        if not len(codes):
            return state
        index = torch.zeros(1, dtype=torch.int64, device=codes.device)
        # Where earlier frames were cut off, the first one is stretched without its neighbour: that is out of reach too.
        x = self._stretched(state, index, codes[None])[0]
        first = (total - len(codes)) * self._stretch.stride
        tail = self._transformer.span(state, x, first, self.reach_positions)
        self._convolved(state, index, tail[None])
        return state

    @torch.inference_mode()
    def restore(self, slot: int, state: StreamState) -> None:
        """Put what prepare() returned in a slot."""
        self.state.copy_from(slot, state)

    def rebuild(self, slot: int, codes: Tensor) -> None:
        """Leave a slot as if codes int64 [frames, CODEBOOKS] had been streamed through it since its reset."""
        self.restore(slot, self.prepare(codes))

    def _check_group(self, group: int) -> None:
        if not 1 <= group <= self.max_group:
            raise ValueError(f"A group of {group} frames; this decoder takes 1 to {self.max_group}.")

    def _stretched(self, state: StreamState, index: Tensor, codes: Tensor) -> Tensor:
        """Codes [rows, group, CODEBOOKS] as transformer inputs [rows, group * stretch, hidden]."""
        rows, group = codes.shape[:2]
        x = F.embedding_bag((codes + self._offsets).reshape(-1, CODEBOOKS), self._table, mode="sum")
        window, fresh = self._open(state, 0, index, group)
        fresh.copy_(x.view(rows, group, -1))
        return self._close(state, 0, index, window, "x")

    def _convolved(self, state: StreamState, index: Tensor, x: Tensor) -> Tensor:
        """Transformer outputs [rows, n, hidden] as samples [rows, n * ...], by way of Mimi's SEANet decoder."""
        window, fresh = self._open(state, 1, index, x.shape[1])
        fresh.copy_(x)
        x = self._close(state, 1, index, window, "x")
        added: Tensor | None = None
        for i, stage in enumerate(self._stages):
            x = self._activated(state, 2 + 2 * i, index, x, added, "y")
            h = F.elu_(self._activated(state, 3 + 2 * i, index, x, None, "h"))
            added = state.scratch("x", *x.shape)
            stage.per_position.apply(h, h, added)
        samples = self._activated(state, len(self._convs) - 1, index, x, added, "pcm")
        return samples.flatten(1).clone()

    def _activated(
        self, state: StreamState, at: int, index: Tensor, x: Tensor, added: Tensor | None, out: str
    ) -> Tensor:
        """A convolution of elu(x + added)."""
        window, fresh = self._open(state, at, index, x.shape[1])
        if added is None:
            fresh.copy_(x)
        else:
            torch.add(x, added, out=fresh)
        F.elu_(fresh)
        return self._close(state, at, index, window, out)

    def _open(self, state: StreamState, at: int, index: Tensor, length: int) -> tuple[Tensor, Tensor]:
        """Input of a convolution: the history of some slots, and the place for what is new."""
        conv = self._convs[at]
        window = state.scratch("window", len(index), conv.history + length, conv.inputs)
        window[:, : conv.history] = state.histories[at][index]
        return window, window[:, conv.history :]

    def _close(self, state: StreamState, at: int, index: Tensor, window: Tensor, out: str) -> Tensor:
        conv = self._convs[at]
        rows, length = window.shape[0], window.shape[1] - conv.history
        state.histories[at].index_copy_(0, index, window[:, length:])
        scratch = state.scratch("spread", conv.windows(rows, length))
        return conv.apply(window, scratch, state.scratch(out, rows * length, conv.weight.shape[1]))


def _check(shape: CodecShape) -> None:
    """Raises CheckpointError for a Mimi this decoder would get wrong."""
    raw, samples = shape.raw, 1
    for ratio in shape.ratios:
        samples *= ratio
    wrong = []
    if FRAME_SAMPLES % samples:
        wrong.append(f"upsampling_ratios {list(shape.ratios)} do not divide {FRAME_SAMPLES}")
    if shape.quantizers < CODEBOOKS:
        wrong.append(f"num_quantizers {shape.quantizers} is less than {CODEBOOKS}")
    if int(raw.get("num_key_value_heads") or shape.heads) != shape.heads:
        wrong.append("num_key_value_heads differs from num_attention_heads")
    if raw.get("attention_bias"):
        wrong.append("attention_bias is set")
    if raw.get("hidden_act", "gelu") != "gelu":
        wrong.append(f"hidden_act is {raw['hidden_act']!r}")
    if wrong:
        raise CheckpointError(f"codec_config: {'; '.join(wrong)}. This decoder cannot stream such a Mimi.")
