"""Files say what they are, `chroma verify` checks it, and the audio is what it would be without."""

import base64
import io
import json
from pathlib import Path

import numpy as np
import pytest
import soundfile
from hypothesis import given
from hypothesis import strategies as st

from chroma_models.errors import InvalidAudio, InvalidRequest
from deployments.cli.verify import verify
from deployments.ingress.audio_out import OutputFormat, encode
from deployments.ingress.provenance.files import PACKED, _commented, comment_of
from tests.deployments.ingress.provenance.replies import PCM, Signer
from tests.deployments.ingress.scripted import tone

FORMS: list[OutputFormat] = ["wav", "flac", "mp3", "opus"]


def saved(folder: Path, file: bytes, name: str = "reply") -> Path:
    path = folder / name
    path.write_bytes(file)
    return path


def with_comment(file: bytes, form: OutputFormat, comment: str) -> bytes:
    """Somebody's file, under a comment that is not its own."""
    if form in PACKED:
        return _commented(file, form, comment)
    samples, rate = soundfile.read(io.BytesIO(file), dtype="int16")
    out = io.BytesIO()
    with soundfile.SoundFile(out, "w", rate, 1, "PCM_16", format=form.upper()) as sink:
        sink.comment = comment
        sink.write(samples)
    return out.getvalue()


@pytest.mark.parametrize("samples", [1920, 24_777, 96_000])
@pytest.mark.parametrize("form", FORMS)
def test_a_reply_holds_and_sounds_as_it_would_without(
    form: OutputFormat, samples: int, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pcm = tone(samples, 24_000).astype("<f4").tobytes()
    file, statement = signer.sealed(form, pcm)
    assert verify(saved(tmp_path, file), str(signer.keys)) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in lines] == ["says", "made", "voice", "response", "tenant", "signature", "audio"]
    assert "synthetic speech" in lines[0]
    assert "'chroma'" in lines[0]
    assert "holds" in lines[5]
    assert statement["audio"]["sha256"][:16] in lines[6]
    with_it, _ = soundfile.read(io.BytesIO(file), dtype="int16")
    without, _ = soundfile.read(io.BytesIO(encode(pcm, form)), dtype="int16")
    assert len(with_it) == len(pcm) // 4
    assert np.array_equal(with_it, without)


@pytest.mark.parametrize("form", FORMS)
def test_other_audio_under_a_statement_that_holds_is_found_out(
    form: OutputFormat, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, statement = signer.sealed(form)
    other = encode(tone(24_000 + 777, 24_000, 441.0).astype("<f4").tobytes(), form)
    path = saved(tmp_path, with_comment(other, form, comment_of(statement)))
    assert verify(path, str(signer.keys)) == 1
    told = capsys.readouterr().out
    assert "holds, by key" in told
    assert "CHANGED" in told


@pytest.mark.parametrize("field", ["voice", "audio"])
def test_a_statement_that_was_altered_does_not_hold(
    field: str, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, statement = signer.sealed("wav")
    head, _, signature = statement["jws"].split(".")
    forged = {**{k: v for k, v in statement.items() if k != "jws"}, field: None}
    body = base64.urlsafe_b64encode(json.dumps(forged).encode()).rstrip(b"=").decode()
    altered = with_comment(file, "wav", comment_of({**statement, "jws": f"{head}.{body}.{signature}"}))
    assert verify(saved(tmp_path, altered), str(signer.keys)) == 1
    assert "DOES NOT HOLD" in capsys.readouterr().out


def test_another_servers_keys_vouch_for_nothing(
    signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, _ = signer.sealed("flac")
    (tmp_path / "other").mkdir()
    assert verify(saved(tmp_path, file), str(Signer(tmp_path / "other").keys)) == 1
    assert "is not among those" in capsys.readouterr().out


def test_lossless_formats_turn_into_each_other_and_still_hold(signer: Signer, tmp_path: Path) -> None:
    file, _ = signer.sealed("wav")
    with soundfile.SoundFile(io.BytesIO(file)) as source:
        flac = with_comment(file, "flac", source.comment)
    assert verify(saved(tmp_path, flac), str(signer.keys)) == 0


@pytest.mark.parametrize("form", FORMS)
def test_a_file_without_a_statement_is_told_so(
    form: OutputFormat, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert verify(saved(tmp_path, encode(PCM, form)), str(signer.keys)) == 1
    assert capsys.readouterr().out.startswith("says       nothing of where it comes from")


@pytest.mark.parametrize("claims", [b"{}", b"[]", b'{"created_at": "\x1b[2J"}', b"\xff"])
def test_what_is_no_statement_is_told_so(
    claims: bytes, signer: Signer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file, statement = signer.sealed("wav")
    head, _, signature = statement["jws"].split(".")
    body = base64.urlsafe_b64encode(claims).rstrip(b"=").decode()
    odd = with_comment(file, "wav", comment_of({**statement, "jws": f"{head}.{body}.{signature}"}))
    assert verify(saved(tmp_path, odd), str(signer.keys)) == 1
    told = capsys.readouterr().out
    assert "no statement" in told
    assert "\x1b" not in told


@pytest.mark.parametrize("file", [b"", b"RIFF", b"OggS" * 100, b"fLaC\0\0", b"no audio at all" * 100])
def test_what_is_no_audio_file_cannot_be_told(file: bytes, signer: Signer, tmp_path: Path) -> None:
    with pytest.raises(InvalidAudio):
        verify(saved(tmp_path, file), str(signer.keys))


@pytest.mark.parametrize("form", FORMS)
def test_whatever_is_done_to_a_file_is_told_or_refused(form: OutputFormat, signer: Signer, tmp_path: Path) -> None:
    file, _ = signer.sealed(form, tone(4800, 24_000).astype("<f4").tobytes())

    @given(st.lists(st.tuples(st.integers(0, len(file) - 1), st.binary(min_size=1, max_size=4)), max_size=6))
    def damaged(changes: list[tuple[int, bytes]]) -> None:
        other = bytearray(file)
        for at, what in changes:
            other[at : at + len(what)] = what
        try:
            assert verify(saved(tmp_path, bytes(other)), str(signer.keys)) in (0, 1)
        except InvalidAudio:
            assert bytes(other) != file

    damaged()


@pytest.mark.parametrize("keys", ['{"keys": [{}]}', "{}", "[", '{"keys": 3}', '{"keys": [{"kty": "RSA"}]}'])
def test_keys_that_are_none_are_refused(keys: str, signer: Signer, tmp_path: Path) -> None:
    file, _ = signer.sealed("wav")
    path = saved(tmp_path, keys.encode(), "odd.json")
    with pytest.raises(InvalidRequest, match="provenance/keys"):
        verify(saved(tmp_path, file), str(path))
