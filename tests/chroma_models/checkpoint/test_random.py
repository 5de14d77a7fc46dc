"""Random checkpoints have the published layout, load everywhere, and behave like something trained."""

import dataclasses
from collections import Counter
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor
from transformers import (
    LlamaConfig,
    LlamaModel,
    MimiConfig,
    MimiModel,
    PreTrainedTokenizerFast,
    Qwen2_5OmniThinkerConfig,
    Qwen2_5OmniThinkerForConditionalGeneration,
    WhisperFeatureExtractor,
)

from chroma_models.checkpoint import random as random_module
from chroma_models.checkpoint.layout import BACKBONE_AUDIO_EMBEDDING, LM_HEAD
from chroma_models.checkpoint.random import Plan, make_checkpoint
from chroma_models.checkpoint.sizes import BLUEPRINTS
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import CheckpointError

CPU, F32 = torch.device("cpu"), torch.float32


@pytest.fixture(scope="module")
def opened(tiny: Path) -> Checkpoint:
    return Checkpoint.open(tiny)


def load(model: Any, checkpoint: Checkpoint, prefix: str, allowed_missing: tuple[str, ...] = ()) -> Any:
    """transformers' module with a part's tensors; nothing missing but what is allowed, nothing left over."""
    tensors = {name.removeprefix(f"{prefix}."): checkpoint.tensor(name, CPU, F32) for name in checkpoint.names(prefix)}
    result = model.load_state_dict(tensors, strict=False)
    assert result.unexpected_keys == []
    assert [name for name in result.missing_keys if not name.startswith(allowed_missing)] == []
    return model.eval()


def thinker(checkpoint: Checkpoint) -> Any:
    config = Qwen2_5OmniThinkerConfig(**checkpoint.architecture.raw["thinker_config"])
    model = Qwen2_5OmniThinkerForConditionalGeneration(config).float()
    return load(model, checkpoint, "thinker", ("visual.",))


def mimi(checkpoint: Checkpoint) -> Any:
    return load(MimiModel(MimiConfig(**checkpoint.architecture.codec.raw)), checkpoint, "codec_model")


def llama(checkpoint: Checkpoint, part: str) -> Any:
    config = {**checkpoint.architecture.raw[f"{part}_config"], "model_type": "llama", "vocab_size": 3}
    return load(LlamaModel(LlamaConfig(**config)), checkpoint, f"{part}.model", ("embed_tokens.",))


def test_full_has_the_published_parts() -> None:
    """Parameters per part as counted on the public model; the lm_head is tied, the vision tower left out."""
    plan = Plan.of("full")
    counted: Counter[str] = Counter()
    for name, shape in (item for shard in plan.shards for item in shard.items()):
        part = name.split(".")[0] if name.startswith("codec_model") else ".".join(name.split(".")[:2])
        part += ".codebooks" if ".codebook." in name else ""
        counted[f"{part}.embed_tokens" if "embed_tokens" in name else part] += prod(shape)
    assert counted == {
        "thinker.audio_tower": 637_676_544,
        "thinker.model.embed_tokens": 311_164_928,
        "thinker.model": 2_774_773_760,
        "backbone.model": 973_146_112,
        "backbone.codebook0_head": 4_200_448,
        "decoder.audio_embedding": 33_603_584,
        "decoder.projection": 2_097_152,
        "decoder.model": 111_158_272,
        "decoder.codebook_head": 14_701_568,
        "codec_model": 79_308_609,
        "codec_model.codebooks": 32 * (2048 * 256 + 2048 + 1),
    }
    codebooks = counted["codec_model.codebooks"]
    assert plan.parameters - codebooks == pytest.approx(4.94e9, rel=1e-3)
    assert plan.bytes == 2 * plan.parameters  # bf16


def test_full_is_written_in_shards_that_fit_in_memory() -> None:
    plan = Plan.of("full")
    sizes = [sum(2 * prod(shape) for shape in shard.values()) for shard in plan.shards]
    assert max(sizes) <= 1_000_000_000
    names = [name for _, shard in plan.files() for name in shard]
    assert len(names) == len(set(names))
    assert {LM_HEAD, BACKBONE_AUDIO_EMBEDDING}.isdisjoint(names)


@pytest.mark.parametrize(("size", "millions"), [("tiny", 0.48), ("mid", 125.0)])
def test_the_small_sizes_are_about_as_large_as_named(size: Any, millions: float) -> None:
    plan = Plan.of(size)
    assert plan.parameters / 1e6 == pytest.approx(millions, rel=0.06)
    assert len(plan.shards) == 1


def test_mid_speaks_through_the_published_codec() -> None:
    mid, full = Plan.of("mid").architecture, Plan.of("full").architecture
    assert mid.codec.raw == full.codec.raw
    assert (mid.audio_vocab, mid.codec.quantizers) == (2051, 32)


def test_full_has_the_published_ids() -> None:
    full = Plan.of("full").architecture
    ids = (full.text_start, full.text_end, full.im_end, full.audio_token, full.codebook_pad, full.codebook_eos)
    assert ids == (151665, 151666, 151645, 151646, 2050, 0)
    assert (full.text_vocab, full.audio_vocab, full.backbone.positions) == (151936, 2051, 2048)


def test_equal_seeds_give_equal_weights(opened: Checkpoint, tmp_path: Path) -> None:
    make_checkpoint(tmp_path / "same", "tiny", seed=0)
    make_checkpoint(tmp_path / "other", "tiny", seed=1)
    assert Checkpoint.open(tmp_path / "same").digest == opened.digest
    assert Checkpoint.open(tmp_path / "other").digest != opened.digest


def test_sharding_changes_no_weight(opened: Checkpoint, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_module, "SHARD_BYTES", 200_000)
    told: list[str] = []
    make_checkpoint(tmp_path / "sharded", "tiny", seed=0, progress=told.append)
    shards = sorted((tmp_path / "sharded").glob("model-*.safetensors"))
    assert len(shards) == len(told) > 5
    assert Checkpoint.open(tmp_path / "sharded").digest == opened.digest


def test_a_checkpoint_appears_whole_or_not_at_all(tmp_path: Path) -> None:
    def interrupt(_: str) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        make_checkpoint(tmp_path / "new", "tiny", progress=interrupt)
    assert list(tmp_path.iterdir()) == []


def test_a_full_disk_is_told_before_anything_is_drawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = random_module.shutil.disk_usage(tmp_path)._replace(free=1_000_000)
    monkeypatch.setattr(random_module.shutil, "disk_usage", lambda _: usage)
    with pytest.raises(CheckpointError, match=r"needs 9\.9 GB of disk"):
        make_checkpoint(tmp_path / "new", "full")
    assert list(tmp_path.iterdir()) == []


def test_a_folder_with_content_is_left_alone(tiny: Path) -> None:
    before = {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()}
    with pytest.raises(CheckpointError, match="not empty"):
        make_checkpoint(tiny, "tiny")
    assert {path.name: path.stat().st_mtime_ns for path in tiny.iterdir()} == before


@pytest.mark.parametrize("quantizers", [8, 32])
def test_transformers_loads_the_codec_with_any_number_of_quantizers(
    quantizers: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    codec = BLUEPRINTS["tiny"].codec | {"num_quantizers": quantizers}
    monkeypatch.setitem(BLUEPRINTS, "tiny", dataclasses.replace(BLUEPRINTS["tiny"], codec=codec))
    make_checkpoint(tmp_path / "made", "tiny")
    checkpoint = Checkpoint.open(tmp_path / "made")
    assert checkpoint.architecture.codec.quantizers == quantizers
    assert mimi(checkpoint).config.num_quantizers == quantizers


def test_llama_loads_backbone_and_decoder_stretched(opened: Checkpoint) -> None:
    for part in ("backbone", "decoder"):
        assert llama(opened, part).rotary_emb.rope_type == "llama3"


def margins(logits: Tensor) -> Tensor:
    best = logits.topk(2).values
    return best[..., 0] - best[..., 1]


@torch.inference_mode()
def say(model: Any, tokenizer: Any, im_end: int, question: str, steps: int = 40) -> tuple[list[int], float]:
    """Greedy tokens and their smallest margin."""
    messages = [{"role": "user", "content": question}]
    prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
    ids = tokenizer(prompt, return_tensors="pt", add_special_tokens=False).input_ids
    said: list[int] = []
    smallest = float("inf")
    while len(said) < steps and im_end not in said:
        logits = model(input_ids=torch.cat([ids, torch.tensor([said], dtype=torch.long)], 1)).logits[0, -1]
        smallest = min(smallest, float(margins(logits)))
        said.append(int(logits.argmax()))
    return said, smallest


def test_the_reasoner_speaks_various_words_and_stops_in_time(opened: Checkpoint) -> None:
    model, tokenizer = thinker(opened), PreTrainedTokenizerFast.from_pretrained(opened.folder)
    im_end = opened.architecture.im_end
    questions = ["hello", "tell me about music", "why is the moon cold?", "say a word", "1 2 3", "good morning"]
    replies = [say(model, tokenizer, im_end, question) for question in questions]
    tokens = [token for said, _ in replies for token in said]
    assert len({tuple(said) for said, _ in replies}) == len(questions)
    assert len(set(tokens)) > 30
    assert min(len(said) for said, _ in replies) > 5  # a second of speech
    assert tokens.count(im_end) > 0
    assert min(smallest for _, smallest in replies) > 1e-4
    words = tokenizer.decode([token for token in tokens if token != im_end]).split()
    assert len(words) > 0.9 * len(tokens)


@torch.inference_mode()
def test_the_reasoner_hears_the_difference(opened: Checkpoint) -> None:
    extractor = WhisperFeatureExtractor.from_pretrained(opened.folder)
    tower = thinker(opened).audio_tower
    time = np.arange(32_000) / 16_000
    clips = [0.1 * np.sin(2 * np.pi * hz * time) for hz in (200.0, 900.0)]
    heard = []
    for clip in clips:
        mel = extractor(clip, sampling_rate=16_000, padding=False, return_tensors="pt").input_features[0]
        lengths = torch.tensor([mel.shape[1]])
        heard.append(tower(mel, feature_lens=lengths, aftercnn_lens=(lengths - 1) // 2 + 1).last_hidden_state)
    assert 0.2 < heard[0].std() < 2
    assert (heard[0] - heard[1]).std() > 0.1


@torch.inference_mode()
def test_speech_is_audible_and_never_clipped_throughout(opened: Checkpoint) -> None:
    model = mimi(opened)
    codes = torch.randint(0, 64, (1, 8, 50), generator=torch.Generator().manual_seed(0))
    wave = model.decode(codes).audio_values[0, 0]
    assert 0.02 < wave.square().mean().sqrt() < 0.2
    assert (wave.abs() > 1).float().mean() < 0.001


@torch.inference_mode()
def test_different_voices_have_different_codes(opened: Checkpoint) -> None:
    model = mimi(opened)
    time = torch.arange(24_000) / 24_000
    clips = [(0.2 * torch.sin(2 * torch.pi * hz * time) * torch.sin(9 * time))[None, None] for hz in (150.0, 400.0)]
    codes = [model.encode(clip, num_quantizers=8).audio_codes[0] for clip in clips]
    for row in codes[0]:
        assert len(row.unique()) > 3
    assert (codes[0] != codes[1]).float().mean() > 0.3


@torch.inference_mode()
def test_frames_vary_and_do_not_end_at_once(opened: Checkpoint) -> None:
    """Greedy speech of the backbone and the depth decoder, from transformers' Llama."""
    shape = opened.architecture
    backbone, decoder = llama(opened, "backbone"), llama(opened, "decoder")
    table = opened.tensor(BACKBONE_AUDIO_EMBEDDING, CPU, F32)
    first_head = opened.tensor("backbone.codebook0_head.weight", CPU, F32)
    heads = opened.tensor("decoder.codebook_head.weight", CPU, F32)
    projection = opened.tensor("decoder.projection.weight", CPU, F32)
    inputs = torch.randn(1, 5, shape.backbone.hidden, generator=torch.Generator().manual_seed(0))
    frames, smallest = [], float("inf")
    for _ in range(40):
        hidden = backbone(inputs_embeds=inputs).last_hidden_state[:, -1:]
        logits = (hidden[0, 0] @ first_head.T)[: shape.codebook_size]
        codes, read = [int(logits.argmax())], [hidden, table[logits.argmax()][None, None]]
        smallest = min(smallest, float(margins(logits)))
        for book, head in enumerate(heads, 1):
            out = decoder(inputs_embeds=torch.cat(read, 1) @ projection.T).last_hidden_state[0, -1]
            logits = (out @ head)[: shape.codebook_size]
            smallest = min(smallest, float(margins(logits)))
            codes.append(int(logits.argmax()))
            read.append(table[codes[-1] + book * shape.audio_vocab][None, None])
        frames.append(codes)
        frame = table[torch.tensor(codes) + torch.arange(8) * shape.audio_vocab].sum(0)
        inputs = torch.cat([inputs, frame[None, None]], 1)
    spoken = torch.tensor(frames)
    assert (spoken[:, :7] != 0).any(1).all()
    assert all(len(row.unique()) > 10 for row in spoken.T)
    assert smallest > 1e-4
