"""A checkpoint opens when it is whole, says by name what is wrong when it is not, and gives every tensor unchanged."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file

from chroma_models.checkpoint.layout import LM_HEAD, TEXT_EMBEDDING, optional_shapes, tensor_shapes
from chroma_models.checkpoint.weights import Checkpoint
from chroma_models.errors import CheckpointError
from tests.chroma_models.checkpoint.copies import Tensors, copy, edit_config

CPU, F32 = torch.device("cpu"), torch.float32
BACKBONE_EMBEDDING = "backbone.audio_embedding.embed_audio_tokens.weight"
DECODER_EMBEDDING = "decoder.audio_embedding.embed_audio_tokens.weight"
NORM = "backbone.model.norm.weight"


def test_a_golden_opens_and_gives_its_tensors(golden: Path) -> None:
    checkpoint = Checkpoint.open(golden / "checkpoint")
    stored = load_file(golden / "checkpoint" / "model.safetensors")
    assert checkpoint.tied_lm_head == (golden.name == "A")
    used = {name for name in stored if not name.startswith("thinker.visual.")}
    assert len(used) < len(stored)
    assert {n for part in ("thinker", "backbone", "decoder", "codec_model") for n in checkpoint.names(part)} == used
    for name in used:
        assert torch.equal(checkpoint.tensor(name, CPU, F32), stored[name])


def test_names_and_shapes_are_those_of_the_reference(goldens: Path) -> None:
    listed = dict(
        re.match(r"(\S+)\tF32\t\[(.*)\]", line).groups()  # type: ignore[union-attr]
        for line in (goldens / "C" / "state_dict.txt").read_text().splitlines()
    )
    architecture = Checkpoint.open(goldens / "C" / "checkpoint").architecture
    expected = tensor_shapes(architecture) | optional_shapes(architecture)
    del expected[BACKBONE_EMBEDDING]  # the reference stores one of the two
    spelled = {name: ", ".join(map(str, shape)) for name, shape in expected.items()}
    assert spelled == {name: shape for name, shape in listed.items() if not name.startswith("thinker.visual.")}


def test_sharding_changes_nothing(tiny: Path, tmp_path: Path) -> None:
    single = Checkpoint.open(tiny)
    sharded = Checkpoint.open(copy(tiny, tmp_path / "sharded", shards=3))
    assert sharded.digest == single.digest
    assert sharded.names("thinker") == single.names("thinker")
    for name in single.names("decoder"):
        assert torch.equal(sharded.tensor(name, CPU, F32), single.tensor(name, CPU, F32))


def test_source_reads_below_its_prefix_on_device_and_dtype(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    for prefix in ("backbone.model", "backbone.model."):
        norm = checkpoint.source(prefix, CPU, torch.bfloat16)("norm.weight")
        assert norm.dtype == torch.bfloat16
        assert torch.equal(norm, checkpoint.tensor(NORM, CPU, F32).bfloat16())
    assert checkpoint.names("backbone.model.norm") == [NORM]


@pytest.mark.parametrize(
    ("absent", "stand_in"),
    [
        (LM_HEAD, TEXT_EMBEDDING),
        (BACKBONE_EMBEDDING, DECODER_EMBEDDING),
        (DECODER_EMBEDDING, BACKBONE_EMBEDDING),
    ],
)
def test_a_tie_holds_only_while_the_tensor_is_absent(absent: str, stand_in: str, tiny: Path, tmp_path: Path) -> None:
    def both(tensors: Tensors) -> None:
        present = tensors.get(stand_in, tensors.get(absent))
        assert present is not None
        tensors[stand_in] = present
        tensors[absent] = present + 1

    def one(tensors: Tensors) -> None:
        both(tensors)
        del tensors[absent]

    untied = Checkpoint.open(copy(tiny, tmp_path / "both", both))
    assert torch.equal(untied.tensor(absent, CPU, F32), untied.tensor(stand_in, CPU, F32) + 1)
    tied = Checkpoint.open(copy(tiny, tmp_path / "one", one))
    assert torch.equal(tied.tensor(absent, CPU, F32), tied.tensor(stand_in, CPU, F32))
    assert tied.has(absent)
    assert absent not in tied.names(absent.split(".", maxsplit=1)[0])
    assert tied.tied_lm_head == (absent == LM_HEAD)
    assert tied.digest != untied.digest


def test_tensors_nothing_computes_with_may_be_absent(tiny: Path, tmp_path: Path) -> None:
    def strip(tensors: Tensors) -> None:
        for name in [n for n in tensors if n.endswith(".initialized") or "audio_bos_eos_token" in n]:
            del tensors[name]

    Checkpoint.open(copy(tiny, tmp_path / "stripped", strip))


def _both_embeddings_gone(tensors: Tensors) -> None:
    tensors.pop(BACKBONE_EMBEDDING, None)
    del tensors[DECODER_EMBEDDING]


def _transposed(tensors: Tensors) -> None:
    tensors["decoder.codebook_head.weight"] = tensors["decoder.codebook_head.weight"].transpose(1, 2).contiguous()


DEFECTS: dict[str, tuple[Callable[[Tensors], object], str]] = {
    "missing": (lambda t: t.pop(NORM), rf"1 missing: {NORM}\."),
    "both ends of a tie missing": (_both_embeddings_gone, f"2 missing: {BACKBONE_EMBEDDING}, {DECODER_EMBEDDING}"),
    "leftover": (lambda t: t.update({"backbone.model.extra": torch.ones(1)}), r"1 leftover: backbone\.model\.extra"),
    "a layer too many": (
        lambda t: t.update({n.replace("layers.1", "layers.2"): x.clone() for n, x in t.items() if "layers.1." in n}),
        r"leftover: .* and \d+ more",
    ),
    "wrongly shaped": (
        _transposed,
        r"1 wrongly shaped: decoder\.codebook_head\.weight \[7, 67, 32\] instead of \[7, 32, 67\]",
    ),
    "quantized": (lambda t: t.update({NORM: t[NORM].to(torch.int8)}), rf"{NORM} stored as I8"),
}


@pytest.mark.parametrize("defect", DEFECTS)
def test_a_defect_is_named(defect: str, tiny: Path, tmp_path: Path) -> None:
    edit, message = DEFECTS[defect]
    with pytest.raises(CheckpointError, match=message):
        Checkpoint.open(copy(tiny, tmp_path / "bad", edit))


def test_all_kinds_of_defect_are_told_at_once(tiny: Path, tmp_path: Path) -> None:
    def spoil(tensors: Tensors) -> None:
        del tensors[NORM]
        tensors["stray"] = torch.ones(1)
        _transposed(tensors)

    with pytest.raises(CheckpointError, match=r"1 missing: .* 1 leftover: .* 1 wrongly shaped: "):
        Checkpoint.open(copy(tiny, tmp_path / "bad", spoil))


@pytest.mark.parametrize("kept", [0, 7, 1000, -1])
def test_a_file_cut_short_is_said_to_be(kept: int, tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad")
    weights = bad / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:kept])
    with pytest.raises(CheckpointError, match="is cut short"):
        Checkpoint.open(bad)


def test_a_git_lfs_pointer_gets_advice(tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad")
    (bad / "model.safetensors").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 1\n")
    with pytest.raises(CheckpointError, match="git lfs pull"):
        Checkpoint.open(bad)


def test_an_absent_shard_is_named(tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad", shards=3)
    (bad / "part-1.safetensors").unlink()
    with pytest.raises(CheckpointError, match=r"part-1\.safetensors is missing"):
        Checkpoint.open(bad)


def test_a_tensor_in_two_shards_is_refused(tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad", shards=2)
    (bad / "part-1.safetensors").write_bytes((bad / "part-0.safetensors").read_bytes())
    with pytest.raises(CheckpointError, match="in two files"):
        Checkpoint.open(bad)


def test_a_shard_of_the_vision_tower_alone_is_never_looked_for(tiny: Path, tmp_path: Path) -> None:
    checkpoint = copy(tiny, tmp_path / "seeing", shards=2)
    index = checkpoint / "model.safetensors.index.json"
    listed = json.loads(index.read_text())
    listed["weight_map"]["thinker.visual.merger.ln_q.weight"] = "vision.safetensors"
    index.write_text(json.dumps(listed))
    assert Checkpoint.open(checkpoint).digest == Checkpoint.open(tiny).digest


def test_the_vision_tower_does_not_count(tiny: Path, tmp_path: Path) -> None:
    seeing = copy(tiny, tmp_path / "seeing", lambda t: t.update({"thinker.visual.x": torch.ones(3)}))
    checkpoint = Checkpoint.open(seeing)
    assert not checkpoint.has("thinker.visual.x")
    assert checkpoint.digest == Checkpoint.open(tiny).digest


@pytest.mark.parametrize("content", ["", "[]", '{"weight_map": []}', '{"weight_map": {"a": 1}}'])
def test_a_broken_index_is_refused(content: str, tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad", shards=2)
    (bad / "model.safetensors.index.json").write_text(content)
    with pytest.raises(CheckpointError, match=r"model\.safetensors\.index\.json"):
        Checkpoint.open(bad)


def test_a_folder_without_weights_or_config_is_refused(tiny: Path, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"config\.json is missing"):
        Checkpoint.open(tmp_path)
    bad = copy(tiny, tmp_path / "bad")
    (bad / "model.safetensors").unlink()
    with pytest.raises(CheckpointError, match="holds neither"):
        Checkpoint.open(bad)


def test_a_config_without_the_audio_encoder_is_refused(tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad")
    edit_config(bad, lambda config: config["thinker_config"].pop("audio_config"))
    with pytest.raises(CheckpointError, match="audio_config"):
        Checkpoint.open(bad)


def test_more_quantizers_than_the_file_holds_are_missed_by_name(tiny: Path, tmp_path: Path) -> None:
    bad = copy(tiny, tmp_path / "bad")
    edit_config(bad, lambda config: config["codec_config"].update(num_quantizers=9))
    with pytest.raises(CheckpointError, match=r"2 missing: \S*acoustic_residual_vector_quantizer\.layers\.7\."):
        Checkpoint.open(bad)


def test_asking_for_an_unknown_tensor_names_it(tiny: Path) -> None:
    checkpoint = Checkpoint.open(tiny)
    assert not checkpoint.has("backbone.model.norm.bias")
    with pytest.raises(CheckpointError, match=r"backbone\.model\.norm\.bias"):
        checkpoint.tensor("backbone.model.norm.bias", CPU, F32)


@pytest.mark.parametrize("name", [NORM, "codec_model.upsample.conv.weight", TEXT_EMBEDDING])
def test_the_digest_sees_a_changed_tensor(name: str, tiny: Path, tmp_path: Path) -> None:
    changed = copy(tiny, tmp_path / "changed", lambda t: t.update({name: t[name] + 1}))
    assert Checkpoint.open(changed).digest != Checkpoint.open(tiny).digest


def test_the_digest_sees_the_config(tiny: Path, tmp_path: Path) -> None:
    changed = copy(tiny, tmp_path / "changed")
    edit_config(changed, lambda config: config["decoder_config"]["rope_parameters"].update(factor=16.0))
    assert Checkpoint.open(changed).digest != Checkpoint.open(tiny).digest
