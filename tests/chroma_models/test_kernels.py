"""The Triton kernels against what they are to compute, in Triton's interpreter where there is no GPU."""

import os
import subprocess
import sys
from importlib.util import find_spec

import pytest
import torch

from chroma_models.kernels import triton_kernels
from tests.conftest import ROOT

CASES = """
import torch
from chroma_models import token_kernels
from chroma_models.codec import ring_kernel
from tests.chroma_models import plain_kernels

torch.manual_seed(0)


def close(ours, theirs):
    assert torch.allclose(ours, theirs, atol=1e-5), (ours - theirs).abs().max()


x, weight = torch.randn(5, 80)[:, :64], torch.randn(64)
close(*(k.rms_norm(x, weight, 1e-5, torch.empty(5, 64)) for k in (token_kernels, plain_kernels)))
gate_up, mixed = torch.randn(5, 192), [torch.empty(5, 96) for _ in range(2)]
for kernels, out in zip((token_kernels, plain_kernels), mixed):
    kernels.silu_mul(gate_up, out)
close(*mixed)
rows, positions = 4, 200
for n, group, kv_heads, dim, row_step, token_step, found in (
    (1, 4, 2, 16, 1, 1, False), (3, 4, 2, 16, 3, 1, False), (2, 2, 1, 32, 1, rows, False), (1, 2, 1, 32, 1, 0, True)
):
    heads, tokens = group * kv_heads, rows * n
    starts, slots = torch.tensor([0, 5, 70, 190]), torch.arange(rows)
    at = torch.empty(tokens, dtype=torch.int64)
    writes = torch.empty(tokens, dtype=torch.int64)
    for row in range(rows):
        for i in range(n):
            token = row * row_step + i * token_step
            at[token], writes[token] = starts[row] + i, row * positions + starts[row] + i
    table = torch.randn(50 if found else tokens, (heads + 2 * kv_heads) * dim)
    queries, pairs = table[:, : heads * dim], table[:, heads * dim :]
    how = {"sources": torch.randint(0, 50, (tokens,))} if found else {
        "rope": (torch.randn(positions, dim), torch.randn(positions, dim), at)
    }
    cells = torch.randn(rows + 1, positions, 2, kv_heads, dim)
    made = []
    for kernels in (token_kernels, plain_kernels):
        mine, out = cells.clone(), torch.zeros(tokens, heads * dim)
        kernels.attend(
            queries, pairs, mine, out, n=n, scale=dim**-0.5, slots=slots, starts=starts, writes=writes,
            row_step=row_step, token_step=token_step, **how
        )
        made.append((out, mine))
    close(made[0][0], made[1][0])
    close(made[0][1], made[1][1])
for n in (2, 8):
    ring, qkv = torch.randn(3, 27, 2, 2, 16), torch.randn(2 * n, 3 * 32)
    turn = torch.polar(torch.ones(2 * n, 1, 8), torch.randn(2 * n, 1, 8))
    slots, first = torch.tensor([2, 0]), torch.tensor([3, 130])
    made = []
    for kernels in (ring_kernel, plain_kernels):
        mine, out = ring.clone(), torch.zeros(2 * n, 32)
        kernels.attend_ring(qkv, turn, mine, slots, first, out, 20)
        made.append((out, mine))
    close(made[0][0], made[1][0])
    close(made[0][1], made[1][1])
"""


@pytest.mark.skipif(find_spec("triton") is None, reason="Triton comes with CUDA builds of torch alone")
def test_kernels_compute_what_they_say() -> None:
    subprocess.run(
        [sys.executable, "-c", CASES], check=True, cwd=ROOT, env=os.environ | {"TRITON_INTERPRET": "1"}, timeout=600
    )


def test_without_cuda_there_are_none() -> None:
    assert triton_kernels("token_kernels", torch.device("cpu")) is None
