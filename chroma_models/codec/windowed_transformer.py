"""Mimi's decoder transformer: every position attends to the last `context` ones, over rings of keys and values."""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

from chroma_models.checkpoint.architecture import CodecShape
from chroma_models.codec.stream_state import StreamState
from chroma_models.engine.kv_cache import contiguous_runs
from chroma_models.kernels import triton_kernels
from chroma_models.layers import TensorSource


@dataclass(frozen=True)
class Layer:
    norm1: tuple[Tensor, Tensor]
    qkv: Tensor  # [3 * heads * head_dim, hidden]; halves of queries and keys interleaved
    out: Tensor  # [heads * head_dim, hidden], scaled
    norm2: tuple[Tensor, Tensor]
    wide: Tensor  # [intermediate, hidden]
    narrow: Tensor  # [intermediate, hidden], scaled

    @classmethod
    def load(cls, shape: CodecShape, get: TensorSource, prefix: str) -> "Layer":
        """Layer scales go into the weights before them; rope's two halves become neighbours, as complex numbers are."""

        def norm(name: str) -> tuple[Tensor, Tensor]:
            return get(f"{prefix}.{name}.weight"), get(f"{prefix}.{name}.bias")

        def turned(name: str) -> Tensor:
            weight = get(f"{prefix}.self_attn.{name}_proj.weight")
            return weight.view(shape.heads, 2, shape.head_dim // 2, -1).transpose(1, 2).reshape(weight.shape)

        def scaled(name: str, scale: str) -> Tensor:
            return (get(f"{prefix}.{name}.weight") * get(f"{prefix}.{scale}.scale")[:, None]).t()

        return cls(
            norm1=norm("input_layernorm"),
            qkv=torch.cat([turned("q"), turned("k"), get(f"{prefix}.self_attn.v_proj.weight")]),
            out=scaled("self_attn.o_proj", "self_attn_layer_scale"),
            norm2=norm("post_attention_layernorm"),
            wide=get(f"{prefix}.mlp.fc1.weight"),
            narrow=scaled("mlp.fc2", "mlp_layer_scale"),
        )


class WindowedTransformer:
    """Weights of the layers below a prefix, and two passes over them: a step of many streams, a span of one."""

    def __init__(self, shape: CodecShape, get: TensorSource, prefix: str) -> None:
        self.shape = shape
        self.layers = [Layer.load(shape, get, f"{prefix}.layers.{i}") for i in range(shape.layers)]
        device = self.layers[0].qkv.device
        half = torch.arange(0, shape.head_dim, 2, dtype=torch.int64).float() / shape.head_dim
        self._frequencies = (1.0 / shape.rope_theta**half).to(device)
        self._ones = torch.ones((), device=device)
        self._kernels = triton_kernels("codec.ring_kernel", device)

    def step(self, state: StreamState, slots: list[int], x: Tensor) -> Tensor:
        """Advance several streams by the same number of positions, in place.

        slots  distinct, ascending is fastest
        x      [rows, n, hidden], n no more than the room the state was made for
        """
        rows, n = x.shape[:2]
        first = torch.tensor([state.positions[slot] for slot in slots], device=x.device)
        positions = first[:, None] + torch.arange(n, device=x.device)
        begin = torch.tensor([slot * state.cells for slot in slots], device=x.device)
        cells = (positions % state.cells + begin[:, None]).view(-1)
        length = min(state.cells, max(state.positions[slot] for slot in slots) + n)
        mask = self._ring_mask(positions, length, state.cells)
        turn = self._turn(positions.view(-1))
        runs = contiguous_runs(slots)
        flat, width = x.view(rows * n, -1), self.shape.heads * self.shape.head_dim
        attended = state.scratch("attended", rows, n, width)
        for layer, ring in zip(self.layers, state.ring, strict=True):
            h = self._qkv(layer, flat, turn)
            ring.view(-1, 2 * width).index_copy_(0, cells, h[:, width:])
            queries = h.view(rows, n, 3, self.shape.heads, -1)[:, :, 0].transpose(1, 2)
            for a, b, slot in runs:
                cached = ring[slot : slot + b - a, :length].permute(2, 0, 3, 1, 4)
                y = F.scaled_dot_product_attention(queries[a:b], cached[0], cached[1], mask[a:b])
                attended[a:b] = y.transpose(1, 2).flatten(2)
            self._finish(layer, flat, attended.view(rows * n, width))
        for slot in slots:
            state.positions[slot] += n
        return x

    def step_at(self, state: StreamState, slots: Tensor, first: Tensor, x: Tensor) -> Tensor:
        """As step, where slots and first positions are int64 [rows] on the device and nothing depends on their values
        but what is computed. A slot that several rows name holds nothing of worth afterwards. Leaves state.positions.
        """
        rows, n = x.shape[:2]
        positions = first[:, None] + torch.arange(n, device=x.device)
        turn = self._turn(positions.view(-1))
        flat, width = x.view(rows * n, -1), self.shape.heads * self.shape.head_dim
        attended = state.scratch("attended", rows, n, width)
        if self._kernels is not None:
            for layer, ring in zip(self.layers, state.ring, strict=True):
                h = self._product(layer, flat)
                self._kernels.attend_ring(h, turn, ring, slots, first, attended, self.shape.context)
                self._finish(layer, flat, attended.view(rows * n, width))
            return x
        cells = (positions % state.cells + slots[:, None] * state.cells).view(-1)
        mask = self._ring_mask(positions, state.cells, state.cells)
        rings = state.scratch("rings", rows, *state.ring.shape[2:])
        for layer, ring in zip(self.layers, state.ring, strict=True):
            h = self._qkv(layer, flat, turn)
            ring.view(-1, 2 * width).index_copy_(0, cells, h[:, width:])
            queries = h.view(rows, n, 3, self.shape.heads, -1)[:, :, 0].transpose(1, 2)
            cached = torch.index_select(ring, 0, slots, out=rings).permute(2, 0, 3, 1, 4)
            y = F.scaled_dot_product_attention(queries, cached[0], cached[1], mask)
            attended.copy_(y.transpose(1, 2).flatten(2))
            self._finish(layer, flat, attended.view(rows * n, width))
        return x

    def span(self, state: StreamState, x: Tensor, first: int, keep: int) -> Tensor:
        """Run a long stretch of one stream in one pass and leave its keys and values in slot 0 of a state.

        x        [n, hidden] at positions first..; what came before it must be out of reach, or not exist
        returns  [up to keep, hidden]: the last rows. Layers compute no more than these and the ring will read.
        """
        shape, end = self.shape, first + x.shape[0]
        width = shape.heads * shape.head_dim
        for i, (layer, ring) in enumerate(zip(self.layers, state.ring, strict=True)):
            n = x.shape[0]
            wanted = min(n, keep + (shape.layers - 1 - i) * (shape.context - 1))
            positions = torch.arange(end - n, end, device=x.device)
            h = self._qkv(layer, x, self._turn(positions))
            tail = min(n, state.cells)
            ring.view(-1, 2 * width).index_copy_(0, positions[-tail:] % state.cells, h[-tail:, width:])
            q, k, v = h.view(n, 3, shape.heads, -1).permute(1, 2, 0, 3)
            behind = positions[-wanted:, None] - positions
            mask = x.new_zeros(behind.shape).masked_fill_((behind < 0) | (behind >= shape.context), float("-inf"))
            attended = F.scaled_dot_product_attention(q[None, :, -wanted:], k[None], v[None], mask[None, None])[0]
            x = x[-wanted:].clone()
            self._finish(layer, x, attended.transpose(0, 1).reshape(wanted, width))
        state.positions[0] = end
        return x

    def _qkv(self, layer: Layer, x: Tensor, turn: Tensor) -> Tensor:
        """Queries, keys (both rotated) and values of [n, hidden], side by side in one row each."""
        h = self._product(layer, x)
        heads = 2 * self.shape.heads
        turning = h[:, : heads * self.shape.head_dim].view(len(h), heads, -1, 2)
        torch.view_as_complex(turning).mul_(turn)
        return h

    def _product(self, layer: Layer, x: Tensor) -> Tensor:
        """Queries, keys and values, none of them rotated."""
        return F.linear(F.layer_norm(x, x.shape[-1:], *layer.norm1, self.shape.norm_eps), layer.qkv)

    def _finish(self, layer: Layer, x: Tensor, attended: Tensor) -> None:
        """Add the attention output and then the MLP's to x [n, hidden], in place."""
        x.addmm_(attended, layer.out)
        h = F.linear(F.layer_norm(x, x.shape[-1:], *layer.norm2, self.shape.norm_eps), layer.wide)
        x.addmm_(F.gelu(h), layer.narrow)

    def _turn(self, positions: Tensor) -> Tensor:
        """Rope of int64 positions [n] as unit complex numbers [n, 1, head_dim / 2]."""
        angles = positions[:, None].float() * self._frequencies
        return torch.polar(self._ones.expand_as(angles), angles)[:, None]

    def _ring_mask(self, positions: Tensor, length: int, cells: int) -> Tensor:
        """Additive mask [rows, 1, n, length] of the ring's first cells once the positions [rows, n] are written."""
        last = positions[:, -1:]
        held = last - (last - torch.arange(length, device=positions.device)) % cells  # the position in each cell
        behind = positions[:, :, None] - held[:, None]
        hidden = (behind < 0) | (behind >= self.shape.context) | (held < 0)[:, None]
        return torch.zeros(hidden.shape, device=hidden.device).masked_fill_(hidden, float("-inf"))[:, None]
