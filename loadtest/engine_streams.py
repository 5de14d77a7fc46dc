"""Random weights of one size and turns in the step loop over them: what the engine benchmark times."""

import argparse
import time
from collections import deque
from collections.abc import Sequence
from concurrent.futures import Future, ThreadPoolExecutor

import numpy as np
import torch
from torch import Tensor

from chroma_models.backbone import Backbone
from chroma_models.checkpoint.in_memory import RandomWeights
from chroma_models.checkpoint.sizes import Size
from chroma_models.codebooks import Codebooks
from chroma_models.codec.static_decoder import StaticDecoder
from chroma_models.codec.stream_decoder import StreamDecoder
from chroma_models.decoder import DepthDecoder
from chroma_models.eager_reference import EagerReference
from chroma_models.engine.decoder_engine import DecoderBatch, DecoderEngine, FusedDecoder, unpack_codes
from chroma_models.engine.static_depth import StaticDepth
from chroma_models.engine.static_step import StaticStep
from chroma_models.engine.step import SPARE_POSITIONS, FrameStep
from chroma_models.interleave import segment_positions, wants_pair
from chroma_models.sampling import RowSampling
from chroma_models.types import Sampling, TextStep


class HopDecoder:
    """The split placement without a network: batches packed to bytes, another thread, codes back as bytes."""

    def __init__(self, depth: DepthDecoder | StaticDepth) -> None:
        self._engine = DecoderEngine(depth)
        self._thread = ThreadPoolExecutor(1, initializer=torch.set_num_threads, initargs=(torch.get_num_threads(),))

    def complete(self, hidden: Tensor, code0: Tensor, sampling: RowSampling) -> "Future[Tensor]":
        batch = DecoderBatch.pack(hidden, code0, sampling)
        return self._thread.submit(lambda: unpack_codes(self._engine.complete(batch), hidden.device))


class Model:
    """Everything that is measured, with random weights."""

    def __init__(self, size: Size, seed: int, device: torch.device, dtype: torch.dtype) -> None:
        self.weights = RandomWeights(size, seed, quick=size == "full")
        self.device, self.dtype = device, dtype
        a = self.architecture = self.weights.architecture
        get = self.weights.tensor
        table = get("decoder.audio_embedding.embed_audio_tokens.weight", device, dtype)
        text = get("thinker.model.embed_tokens.weight", device, dtype)
        books = Codebooks(table)
        self.backbone = Backbone(a, self.weights.source("backbone", device, dtype), books, text, SPARE_POSITIONS)
        self.decoder = DepthDecoder(a, self.weights.source("decoder", device, dtype), books)

    def codec(self, slots: int, *, graphs: bool) -> StreamDecoder:
        get = self.weights.source("codec_model", self.device, torch.float32)
        return (StaticDecoder if graphs else StreamDecoder)(self.architecture.codec, get, slots)

    def prompt(self, stream: int, positions: int) -> Tensor:
        """A stream's context before its first frame: [positions, hidden]."""
        generator = torch.Generator().manual_seed(stream)
        ids = torch.randint(0, len(self.backbone.text_table), (positions,), generator=generator)
        return self.backbone.text_table[ids.to(self.device)]

    def text_step(self, stream: int, index: int) -> TextStep:
        rng = np.random.default_rng((stream, index))
        row = rng.standard_normal(self.backbone.hidden).astype(np.float32)
        token = int(rng.integers(0, self.architecture.im_end))
        return TextStep(index, token, row.tobytes(), "")


class Streams:
    """A batch of turns in the step loop, half of them one frame ahead: a step has rows of 1 and of 3 positions."""

    def __init__(self, model: Model, args: argparse.Namespace, batch: int, frames: int) -> None:
        self._model, self.batch = model, batch
        context, top_k, fused = args.context, args.top_k, args.placement == "fused"
        split = StaticDepth(model.decoder, batch) if args.graphs else model.decoder
        decoder = FusedDecoder(model.decoder) if fused else HopDecoder(split)
        if args.graphs:
            self.step: FrameStep = StaticStep(model.backbone, decoder, batch, model.decoder if fused else None)
        else:
            self.step = FrameStep(model.backbone, decoder, batch)
        self.launch_s: list[float] = []  # how long the host was at work, step by step
        self._slots = list(range(batch))
        # As the step loop: the next frame is launched before the last one is read. Not where others run in between.
        self._ahead = fused and args.graphs and not args.baseline
        self._pending: deque[tuple[list[int], Future[Tensor]]] = deque()
        self._positions = [context] * batch
        self._frames = [0] * batch
        temperature = 0.7 if top_k else 0.0
        self._sampling = [Sampling(seed=i, temperature=temperature, top_k=top_k) for i in range(batch)]
        self._text = [[model.text_step(i, k) for k in range(frames // 2 + 3)] for i in range(batch)]
        for slot in self._slots:
            self.step.prefill(slot, 0, model.prompt(slot, context))
        if batch > 1:
            self._propose(self._slots[: batch // 2])
            self._commit()
        self.advance()

    def advance(self) -> np.ndarray:
        """One frame of all rows: int16 [rows, CODEBOOKS]."""
        self._propose(self._slots)
        if self._ahead and len(self._pending) == 1:
            self._propose(self._slots)
        return self._commit()

    def _propose(self, rows: list[int]) -> None:
        frames = [self._frames[i] for i in rows]
        steps = [self._text[i][f // 2] if wants_pair(f) else None for i, f in zip(rows, frames, strict=True)]
        sampling = [self._sampling[i] for i in rows]
        started = time.perf_counter()
        proposed = self.step.propose(rows, [self._positions[i] for i in rows], frames, steps, sampling)
        self.launch_s.append(time.perf_counter() - started)
        self._pending.append((rows, proposed))
        for i, frame, step in zip(rows, frames, steps, strict=True):
            self._positions[i] += segment_positions(frame, step is not None)
            self._frames[i] += 1

    def _commit(self) -> np.ndarray:
        rows, proposed = self._pending.popleft()
        return self.step.commit(rows, proposed.result())


class Baseline:
    """One stream the public reference's way."""

    def __init__(self, model: Model, reference: EagerReference, context: int) -> None:
        self._model = model
        self._turn = reference.open(model.prompt(0, context))
        self._frame = 0

    def advance(self) -> np.ndarray:
        """One frame: int16 [1, CODEBOOKS]."""
        backbone, frame = self._model.backbone, self._frame
        pair: Sequence[Tensor] = ()
        if wants_pair(frame):
            pair = list(backbone.embed_pairs([self._model.text_step(0, frame // 2)])[0])
        self._frame += 1
        return self._turn.frame(frame, pair).to("cpu", torch.int16).numpy()
