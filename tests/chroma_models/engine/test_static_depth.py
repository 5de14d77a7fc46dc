"""The Decoder's pass of fixed shapes, run as ordinary calls, against the ordinary frame: the same codes, row by row."""

import logging
from pathlib import Path
from random import Random

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from torch import Tensor

from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import DecoderConfig, TorchConfig
from chroma_models.decoder import DepthDecoder
from chroma_models.engine.cuda_graph import Graphs
from chroma_models.engine.decoder_engine import DecoderBatch, DecoderEngine, unpack_codes
from chroma_models.engine.row_buffers import WIDEST_K
from chroma_models.engine.static_depth import StaticDepth
from chroma_models.loading import load_decoder
from chroma_models.sampling import RowSampling
from chroma_models.types import CODEBOOKS, Sampling
from tests.chroma_models.captures import NoCapture

ROWS = 6
Batch = tuple[Tensor, Tensor, RowSampling]


@pytest.fixture(scope="module")
def depth(tiny: Path) -> DepthDecoder:
    return load(tiny, "cpu")


def load(tiny: Path, device: str) -> DepthDecoder:
    return load_decoder(Checkpoint.open(tiny), TorchConfig(device=device, dtype="float32"), DecoderConfig())


def batch(depth: DepthDecoder, rows: int, top_k: list[int], random: Random) -> Batch:
    """top_k below 0 is a greedy row."""
    generator = torch.Generator().manual_seed(random.getrandbits(60))
    hidden = torch.randn((rows, depth.projection.shape[0]), generator=generator)
    code0 = torch.randint(0, depth.codebook_size, (rows,), generator=generator)
    kinds = [random.choice(top_k) for _ in range(rows)]
    drawing = [Sampling(random.getrandbits(62), temperature=0.8 * (k >= 0), top_k=max(k, 0)) for k in kinds]
    sampling = RowSampling.of(drawing, [random.randrange(2000) for _ in range(rows)], depth.device)
    return hidden.to(depth.device), code0.to(depth.device), sampling


@settings(max_examples=25, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    sizes=st.lists(st.integers(1, 2 * ROWS + 1), min_size=1, max_size=8),
    top_k=st.lists(st.sampled_from([-1, 0, 5, WIDEST_K, WIDEST_K + 1]), min_size=1, max_size=3),
    seed=st.integers(0, 2**32),
)
def test_any_run_of_batches_has_the_ordinary_codes(
    depth: DepthDecoder, sizes: list[int], top_k: list[int], seed: int
) -> None:
    static, random = StaticDepth(depth, ROWS), Random(seed)
    batches = [batch(depth, rows, top_k, random) for rows in sizes]
    expected = [depth.complete(*each) for each in batches]
    made = [static.complete(*each) for each in batches]  # compared at the end: no batch may change an earlier one's
    for ours, theirs in zip(made, expected, strict=True):
        assert torch.equal(ours, theirs)


def test_what_an_earlier_batch_left_behind_changes_no_code(depth: DepthDecoder) -> None:
    static, random = StaticDepth(depth, ROWS), Random(1)
    hidden, code0, sampling = batch(depth, ROWS, [-1], random)
    static.complete(hidden * float("nan"), code0, sampling)
    small = batch(depth, 3, [-1], random)
    assert torch.equal(static.complete(*small), depth.complete(*small))


def test_the_engine_answers_the_same_bytes(depth: DepthDecoder) -> None:
    engine = DecoderEngine(StaticDepth(depth, ROWS))
    engine.prepare(lambda made, of: None)
    given_batch = batch(depth, 5, [-1, 5], Random(2))
    answer = engine.complete(DecoderBatch.pack(*given_batch))
    assert torch.equal(unpack_codes(answer, depth.device), depth.complete(*given_batch))
    assert engine.ran.rows == 5


def test_an_empty_batch_has_no_codes(depth: DepthDecoder) -> None:
    hidden, code0, sampling = batch(depth, 0, [-1], Random(3))
    assert StaticDepth(depth, ROWS).complete(hidden, code0, sampling).shape == (0, CODEBOOKS)


def test_where_capture_fails_plain_calls_go_on(
    depth: DepthDecoder, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr("chroma_models.engine.cuda_graph.Graph", NoCapture(after=2))
    static, random = StaticDepth(depth, ROWS), Random(4)
    with caplog.at_level(logging.ERROR):
        for rows in (1, 2, 4, 6, 1):
            given_batch = batch(depth, rows, [5], random)
            assert torch.equal(static.complete(*given_batch), depth.complete(*given_batch))
    assert static.graphs.failed
    assert len(static.graphs) == 0
    assert sum("graph capture failed" in record.message for record in caplog.records) == 1


def test_a_graph_is_made_once_for_each_shape() -> None:
    graphs = Graphs("Decoder", torch.device("cpu"))
    first = graphs.get((4, -1), lambda: torch.ones(1))
    assert graphs.get((4, -1), lambda: torch.zeros(1)) is first
    assert graphs.get((8, -1), lambda: torch.zeros(1)) is not first
    assert len(graphs) == 2


@pytest.mark.gpu
def test_captured_passes_have_the_ordinary_codes(tiny: Path) -> None:
    if not torch.cuda.is_available():
        pytest.skip("graphs are captured on an NVIDIA GPU, and there is none")
    depth, random = load(tiny, "cuda"), Random(5)
    static = StaticDepth(depth, ROWS)
    told: list[tuple[int, int]] = []
    static.prepare(lambda made, of: told.append((made, of)))
    assert not static.graphs.failed
    assert told[-1][0] == told[-1][1] == len(static.graphs) == len(told)
    for rows, top_k in [(1, -1), (6, 5), (3, -1), (13, 0), (2, WIDEST_K + 1), (6, -1)]:
        given_batch = batch(depth, rows, [top_k], random)
        assert torch.equal(static.complete(*given_batch), depth.complete(*given_batch))
