"""Every case of a goldens folder through the real engines, compared tensor by tensor."""

import asyncio
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
import soundfile
import torch
from rich.console import Console
from rich.table import Table
from safetensors.torch import load_file, save_file
from torch import Tensor

from chroma_models.checkpoint.architecture import read_json
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.config import CodecConfig, DecoderConfig, ReasonerConfig, TorchConfig
from chroma_models.errors import InvalidRequest
from chroma_models.loading import load_decoder
from chroma_models.stages.pipeline import Pipeline
from chroma_models.teacher_forcing import teacher_forced
from chroma_models.types import (
    Admitted,
    Audio,
    EncodedVoice,
    Finished,
    Frame,
    Limits,
    Message,
    Sampling,
    Text,
    TextStep,
    Turn,
)

TOLERANCE = 1e-4
FP32 = TorchConfig(device="cpu", dtype="float32", threads=1)
Tensors = dict[str, Tensor]


@dataclass(frozen=True)
class Line:
    """One compared tensor. Ids must be equal; everything else must agree to TOLERANCE."""

    case: str
    tensor: str
    error: float
    exact: bool

    @property
    def passed(self) -> bool:
        return self.error == 0 if self.exact else self.error <= TOLERANCE


def compare(case: str, tensor: str, ours: Tensor, theirs: Tensor) -> Line:
    """Different shapes are an infinite error."""
    exact = not theirs.is_floating_point()
    if ours.shape != theirs.shape:
        return Line(case, f"{tensor} {list(ours.shape)} not {list(theirs.shape)}", float("inf"), exact)
    error = (ours.double() - theirs.double()).abs().max().item() if theirs.numel() else 0.0
    return Line(case, tensor, error, exact)


def parity(golden: Path, out: Path | None, reasoner: Literal["vllm", "torch"], errors: Path | None = None) -> int:
    """Print the largest error per tensor, and write them to the file `errors`; 1 when one is too large."""
    lines = asyncio.run(Parity(golden, out).run(reasoner))
    if errors is not None:
        errors.write_text(json.dumps([{**asdict(line), "passed": line.passed} for line in lines], indent=1))
    table = Table(title=f"parity with {golden.name}, Reasoner on {reasoner}, float32")
    for column in ("case", "tensor", "largest error", ""):
        table.add_column(column)
    for line in lines:
        table.add_row(line.case, line.tensor, f"{line.error:.2e}", "ok" if line.passed else "DIFFERS")
    Console().print(table)
    failed = sum(not line.passed for line in lines)
    print(f"{len(lines) - failed} of {len(lines)} tensors agree")
    return 1 if failed or not lines else 0


class Parity:
    def __init__(self, golden: Path, out: Path | None) -> None:
        if not (golden / "meta.json").is_file():
            raise InvalidRequest(f"{golden} is no goldens folder: it holds no meta.json.")
        self.golden, self.out = golden, out
        self.meta: dict[str, Any] = dict(read_json(golden / "meta.json"))
        self.checkpoint = Checkpoint.open(golden / "checkpoint")
        if out is not None:
            out.mkdir(parents=True, exist_ok=True)

    async def run(self, reasoner: Literal["vllm", "torch"]) -> list[Line]:
        lines: list[Line] = []
        config = ReasonerConfig(engine=reasoner, max_model_len=1024, slots=4, kv_cache_bytes=64 << 20)
        codec = CodecConfig(max_voice_s=300.0)
        async with Pipeline.open(self.checkpoint, FP32, reasoner=config, codec=codec) as pipeline:
            singles: dict[int, Tensors] = {}
            for row in (0, 1):
                singles[row] = await self.single(pipeline, row)
                lines += self.written(f"b1_row{row}", singles[row], self.expected(row))
            together = await self.together(pipeline)
            wanted = {f"row{r}.{k}": v for r in (0, 1) for k, v in self.expected(r).items()}
            lines += self.written("b2", together, wanted)
            lines += self.written("teacher_forced", await self.forced(pipeline), self.expected_forced())
            lines += await self.codec(pipeline)
        alternative = self.load("alt_positions_0to7")
        async with Pipeline.open(
            self.checkpoint, FP32, reasoner=config.model_copy(update={"engine": "torch"}), positions="contiguous"
        ) as pipeline:
            ours = {}
            for row in (0, 1):
                ours[f"b1_row{row}.codes"] = (await self.single(pipeline, row))["codes"]
            lines += self.written("alt_positions_0to7", ours, {k: v[0] for k, v in alternative.items()})
        return lines

    def load(self, case: str) -> Tensors:
        return load_file(self.golden / f"{case}.safetensors")

    def written(self, case: str, ours: Tensors, theirs: Tensors) -> list[Line]:
        if self.out is not None:
            save_file({k: v.contiguous() for k, v in ours.items()}, self.out / f"{case}.safetensors")
        return [compare(case, name, ours[name], tensor) for name, tensor in theirs.items()]

    def expected(self, row: int) -> Tensors:
        case = self.load(f"b1_row{row}")
        return {
            "reasoner_tokens": case["out.thinker_tokens"].flatten(),
            "codes": case["out.codes"][0],
            "wave": case["out.audio"].flatten(),
        }

    def expected_forced(self) -> Tensors:
        case = self.load("teacher_forced")
        return {
            "backbone_logits": case["out.backbone_logits"][0],
            "decoder_logits_published": case["out.decoder_logits_infer"],
            "decoder_logits_contiguous": case["out.decoder_logits_train"],
        }

    async def turn(self, pipeline: Pipeline, row: int) -> Turn:
        """The golden's own question and voice, at their native rates."""
        question, _ = soundfile.read(self.golden / f"user{row}.wav", dtype="float32")
        clip, _ = soundfile.read(self.golden / f"prompt{row}.wav", dtype="float32")
        codes = await pipeline.codec.encode_voice(clip.tobytes())
        transcript = self.meta["prompt_texts"][row]
        system = Message("system", (Text(self.meta["system_texts"][row]),))
        frames = int(self.meta["cases"][f"b1_row{row}"]["max_new_tokens"])
        return Turn(
            id=f"row{row}",
            affinity="parity",
            messages=(system, Message("user", (Audio(question.tobytes(), "float32"),))),
            voice=EncodedVoice(transcript, codes, hashlib.sha256(codes).hexdigest()),
            sampling=Sampling(seed=0),
            limits=Limits(max_reply_s=frames / 12.5, max_text_tokens=-(-frames // 2)),
            pace="fast",
        )

    async def single(self, pipeline: Pipeline, row: int) -> Tensors:
        return await self.spoken(pipeline, await self.turn(pipeline, row))

    async def together(self, pipeline: Pipeline) -> Tensors:
        """Both rows in one batch, twice: each joins while the other is already speaking."""
        both: Tensors = {}
        for first in (0, 1):
            turns = [await self.turn(pipeline, r) for r in (first, 1 - first)]
            speaking = asyncio.Event()
            early = asyncio.create_task(self.spoken(pipeline, turns[0], speaking))
            await asyncio.wait({early, asyncio.create_task(speaking.wait())}, return_when="FIRST_COMPLETED")
            late = await self.spoken(pipeline, turns[1])
            await early
            both |= {f"row{1 - first}.{name}": tensor for name, tensor in late.items()}
        return both

    async def spoken(self, pipeline: Pipeline, turn: Turn, speaking: asyncio.Event | None = None) -> Tensors:
        """A turn through Reasoner, Backbone, Decoder and Codec."""
        frames: list[Frame] = []
        pcm: list[bytes] = []
        async for item in pipeline.codec.speak(turn):
            if isinstance(item, Admitted | Finished):
                continue
            frames += item.frames
            pcm.append(item.pcm)
            if speaking is not None and frames:
                speaking.set()
        codes = np.frombuffer(b"".join(f.codes for f in frames), np.int16).reshape(-1, 8).astype(np.int64)
        tokens = [frame.step.token for frame in frames if frame.step is not None]
        return {
            "reasoner_tokens": torch.tensor(tokens),
            "codes": torch.from_numpy(codes),
            "wave": torch.from_numpy(np.frombuffer(b"".join(pcm), np.float32).copy()),
        }

    async def forced(self, pipeline: Pipeline) -> Tensors:
        case = self.load("teacher_forced")
        rows, tokens = case["out.thinker_hidden"][0], case["out.thinker_tokens"].flatten().tolist()
        steps = [TextStep(i, t, row.numpy().tobytes(), "") for i, (t, row) in enumerate(zip(tokens, rows, strict=True))]
        voice = await pipeline.codec.encode_voice(case["in.input_values"].numpy().tobytes())
        frames = case["in.forced_codes"][0]
        backbone = pipeline.backbone.engine.backbone
        hidden, logits = teacher_forced(
            backbone, case["in.input_ids"][0].tolist(), EncodedVoice("", voice, ""), steps, frames
        )
        depth = {
            p: load_decoder(self.checkpoint, FP32, DecoderConfig(positions=p)) for p in ("published", "contiguous")
        }
        return {
            "backbone_logits": logits,
            **{f"decoder_logits_{name}": decoder.logits(hidden, frames) for name, decoder in depth.items()},
        }

    async def codec(self, pipeline: Pipeline) -> list[Line]:
        case = self.load("codec")
        engine = pipeline.codec.engine
        encoded = [await engine.encode_voice(wave.numpy().tobytes()) for wave in case["in.wave"][:, 0]]
        codes = np.stack([np.frombuffer(c, np.int16).reshape(-1, 8) for c in encoded]).astype(np.int64)
        waves = []
        for row in case["in.codes_all"].transpose(1, 2)[..., :8].to(torch.int16).numpy():
            async with engine.slot("codec") as slot:
                parts = [await engine.decode(slot, part) for part in _groups(row)]
            waves.append(torch.from_numpy(np.frombuffer(b"".join(parts), np.float32).copy()))
        ours = {"codes": torch.from_numpy(codes), "wave": torch.stack(waves)}
        return self.written(
            "codec", ours, {"codes": case["out.codes"].transpose(1, 2), "wave": case["out.wave_8"][:, 0]}
        )


def _groups(codes: np.ndarray) -> Sequence[np.ndarray]:
    """Mixed group sizes 1, 2, 3, 4, 1, ..."""
    groups, start, size = [], 0, 1
    while start < len(codes):
        groups.append(codes[start : start + size])
        start, size = start + size, size % 4 + 1
    return groups
