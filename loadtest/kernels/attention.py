"""Candidates for a step's attention over slots of different lengths, at the published backbone's shape.

    python -m loadtest.kernels.attention --device cuda --rows 1,8,64,256

Each candidate is first compared with a plain float32 computation, then timed as one layer of a step: launched eagerly,
and on CUDA from a graph, which is what a step does. What is timed begins with one product's output and ends where the
next one reads.
"""

import argparse
import statistics
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from loadtest.machine import machine
from loadtest.timing import median_ms, write_json

KV_HEADS, GROUP, DIM, POSITIONS = 8, 4, 64, 2050


class Case:
    """Rows of random lengths up to `longest`, n new tokens each, turned already."""

    def __init__(self, rows: int, n: int, longest: int, device: torch.device, dtype: torch.dtype) -> None:
        generator = torch.Generator(device).manual_seed(rows)

        def normal(*size: int) -> Tensor:
            return torch.randn(size, generator=generator, device=device).to(dtype)

        self.rows, self.n, self.device = rows, n, device
        self.cells = normal(rows, POSITIONS, 2, KV_HEADS, DIM)
        self.queries, self.pairs = normal(rows * n, KV_HEADS * GROUP * DIM), normal(rows * n, 2 * KV_HEADS * DIM)
        self.starts = torch.randint(64, longest - n, (rows,), generator=generator, device=device)
        self.slots, self.sources = torch.arange(rows, device=device), torch.arange(rows * n, device=device)
        at = self.starts[:, None] + torch.arange(n, device=device)
        self.writes = (self.slots[:, None] * POSITIONS + at).flatten()
        self.length = longest
        ahead = torch.arange(longest, device=device) > at.repeat_interleave(GROUP, 1)[:, :, None]
        self.mask = torch.zeros(ahead.shape, dtype=dtype, device=device).masked_fill_(ahead, float("-inf"))[:, None]
        self._out = torch.zeros_like(self.queries)

    def _operands(self) -> tuple[Tensor, Tensor, Tensor]:
        """Queries [rows, kv_heads, n * GROUP, DIM], keys and values; the new ones are written."""
        self.cells.view(-1, 2 * KV_HEADS * DIM).index_copy_(0, self.writes, self.pairs)
        queries = self.queries.view(self.rows, self.n, KV_HEADS, GROUP, DIM).transpose(1, 2)
        keys, values = self.cells[:, : self.length].permute(2, 0, 3, 1, 4)
        return queries.reshape(self.rows, KV_HEADS, -1, DIM), keys, values

    def _tokens(self, attended: Tensor) -> Tensor:
        return attended.view(self.rows, KV_HEADS, self.n, GROUP, DIM).transpose(1, 2).reshape(self.queries.shape)

    def plain(self) -> Tensor:
        """The definition, in float32: [tokens, heads * DIM]."""
        q, k, v = (x.float() for x in self._operands())
        return self._tokens(torch.softmax(q @ k.transpose(2, 3) * DIM**-0.5 + self.mask.float(), -1) @ v)

    def sdpa(self) -> Tensor:
        q, k, v = self._operands()
        return self._tokens(F.scaled_dot_product_attention(q, k, v, attn_mask=self.mask, scale=DIM**-0.5))

    def triton(self) -> Tensor:
        from chroma_models.token_kernels import attend

        where: dict[str, Any] = {
            "slots": self.slots,
            "starts": self.starts,
            "writes": self.writes,
            "sources": self.sources,
        }
        steps: dict[str, Any] = {"n": self.n, "row_step": self.n, "token_step": 1}
        attend(self.queries, self.pairs, self.cells, self._out, scale=DIM**-0.5, **steps, **where)
        return self._out


def candidates(case: Case) -> dict[str, Callable[[], Tensor]]:
    """By name; Triton's only where it can run."""
    found: dict[str, Callable[[], Tensor]] = {"sdpa": case.sdpa}
    return found | {"triton": case.triton} if case.device.type == "cuda" else found


def captured(work: Callable[[], Tensor]) -> Callable[[], object]:
    """The same work as a graph of 16 launches: one launch alone would time the host."""
    for _ in range(3):
        work()
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        for _ in range(16):
            work()
    return graph.replay


def main(argv: Sequence[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="loadtest.kernels.attention", description=__doc__.split("\n")[0])
    parser.add_argument("--device", default="cuda" if torch.cuda.is_available() else "cpu")
    parser.add_argument("--rows", type=lambda s: [int(n) for n in s.split(",")], default=[1, 8, 64, 256, 512])
    parser.add_argument("--longest", type=lambda s: [int(n) for n in s.split(",")], default=[256, 1024, 2048])
    parser.add_argument("--times", type=int, default=30)
    parser.add_argument("--json", type=Path)
    args = parser.parse_args(argv)
    device = torch.device(args.device)
    cuda = device.type == "cuda"
    dtype = torch.bfloat16 if cuda else torch.float32
    results = []
    for rows in args.rows:
        for longest in args.longest:
            for n in (1, 3):
                case = Case(rows, n, longest, device, dtype)
                truth = case.plain()
                for name, work in candidates(case).items():
                    error = (work().float() - truth).abs().max().item()
                    eager = median_ms(work, device, args.times)
                    graph = median_ms(captured(work), device, args.times) / 16 if cuda else None
                    line = {"rows": rows, "longest": longest, "n": n, "candidate": name, "error": error}
                    results.append(line | {"eager_ms": eager, "graph_ms": graph})
                    shown = "-" if graph is None else f"{graph:.4f}"
                    print(
                        f"rows {rows:4} longest {longest:4} n {n} {name:7} {eager:.4f} ms, graph {shown}, {error:.1e}"
                    )
    worst = max(float(str(r["error"])) for r in results)
    mean = statistics.fmean(float(str(r["eager_ms"])) for r in results)
    print(f"largest error {worst:.1e}; mean {mean:.3f} ms eager")
    if args.json is not None:
        command = ["python", "-m", "loadtest.kernels.attention", *(argv if argv is not None else sys.argv[1:])]
        write_json(args.json, command, machine(), 0, results)
    return 0 if worst < (0.05 if cuda else 1e-4) else 1


if __name__ == "__main__":
    sys.exit(main())
