"""What is right, for the fuzzers to begin from: short recordings in every format, and one of each request."""

import base64
import io
import json
from collections.abc import Iterator
from typing import Any

import av
import numpy as np
import soundfile

RATE_HZ = 16_000
CONTAINERS = (("ogg", "libopus"), ("webm", "libopus"), ("mp4", "aac"), ("adts", "aac"))

Json = dict[str, Any]


def recordings() -> Iterator[tuple[str, bytes]]:
    """Format as decode() names it, and a file of 0.2 s."""
    tone = (0.3 * np.sin(np.arange(RATE_HZ // 5) / 6)).astype(np.float32)
    for form, kind, coding in (
        ("wav", "WAV", "PCM_16"),
        ("wav", "WAV", "FLOAT"),
        ("wav", "WAV", "ULAW"),
        ("wav", "RF64", "PCM_24"),
        ("flac", "FLAC", "PCM_16"),
        ("mp3", "MP3", "MPEG_LAYER_III"),
    ):
        out = io.BytesIO()
        soundfile.write(out, tone, RATE_HZ, format=kind, subtype=coding)
        yield form, out.getvalue()
    yield "pcm16", (tone * 32767).astype("<i2").tobytes()
    for form, codec in CONTAINERS:
        yield "aac" if form == "adts" else form, _contained(tone, form, codec)


def _contained(tone: np.ndarray[Any, Any], form: str, codec: str) -> bytes:
    out = io.BytesIO()
    with av.open(out, "w", format=form) as container:
        stream = container.add_stream(codec, rate=48_000, layout="mono")
        frame = av.AudioFrame.from_ndarray((tone * 32767).astype(np.int16)[None], format="s16", layout="mono")
        frame.rate = RATE_HZ
        resampler = av.AudioResampler(stream.codec_context.format, "mono", 48_000, frame_size=960)
        for piece in [*resampler.resample(frame), *resampler.resample(None)]:
            container.mux(stream.encode(piece))
        container.mux(stream.encode(None))
    return out.getvalue()


def _wav64() -> str:
    return base64.b64encode(next(data for form, data in recordings() if form == "wav")).decode()


def chat() -> list[Json]:
    """Bodies of POST /v1/chat/completions."""
    wav = _wav64()
    spoken = {"type": "input_audio", "input_audio": {"data": wav, "format": "wav"}}
    return [
        {"model": "chroma", "messages": [{"role": "user", "content": "hello"}]},
        {
            "model": "chroma",
            "messages": [
                {"role": "system", "content": [{"type": "text", "text": "Be brief."}]},
                {"role": "user", "content": [spoken, {"type": "text", "text": "and this"}], "name": "me"},
                {"role": "assistant", "content": None, "audio": {"id": "audio_1", "transcript": "yes"}},
                {"role": "user", "content": [spoken]},
            ],
            "modalities": ["text", "audio"],
            "audio": {"voice": {"reference": {"data": wav, "format": "wav"}, "transcript": "a tone"}, "format": "wav"},
            "stream": False,
            "temperature": 0.5,
            "top_k": 40,
            "seed": 7,
            "max_completion_tokens": 9,
            "n": 1,
            "chroma": {"max_reply_s": 1.0, "text_temperature": 0.1, "codes": True},
        },
    ]


def events() -> list[Json]:
    """One of each client event of the Realtime API."""
    pcm = base64.b64encode(bytes(9_600)).decode()
    user = {"type": "message", "role": "user", "id": "mine", "content": [{"type": "input_audio", "audio": pcm}]}
    said = {"type": "message", "role": "assistant", "content": [{"type": "output_text", "text": "yes"}]}
    told = {"type": "message", "role": "system", "content": [{"type": "input_text", "text": "Be brief."}]}
    detection = {"type": "server_vad", "threshold": 0.5, "silence_duration_ms": 200, "idle_timeout_ms": 5_000}
    session = {
        "type": "realtime",
        "instructions": "Be brief.",
        "output_modalities": ["audio"],
        "audio": {
            "input": {"format": {"type": "audio/pcm", "rate": 24_000}, "turn_detection": detection},
            "output": {"format": {"type": "audio/pcmu"}, "voice": "alloy", "speed": 1.0},
        },
        "max_output_tokens": "inf",
        "truncation": {"type": "retention_ratio", "retention_ratio": 0.8},
        "chroma": {"seed": 1, "temperature": 0.0, "max_reply_s": 1.0},
    }
    response = {
        "conversation": "none",
        "input": [{"type": "item_reference", "id": "mine"}, said],
        "metadata": {"a": "b"},
    }
    return [
        {"type": "session.update", "event_id": "e1", "session": session},
        {"type": "input_audio_buffer.append", "audio": pcm},
        {"type": "conversation.item.create", "item": user, "previous_item_id": "root"},
        {"type": "conversation.item.create", "item": said},
        {"type": "conversation.item.create", "item": told},
        {"type": "input_audio_buffer.commit"},
        {"type": "input_audio_buffer.clear"},
        {"type": "output_audio_buffer.clear"},
        {"type": "conversation.item.retrieve", "item_id": "mine"},
        {"type": "conversation.item.truncate", "item_id": "mine", "content_index": 0, "audio_end_ms": 80},
        {"type": "conversation.item.delete", "item_id": "mine"},
        {"type": "response.create"},
        {"type": "response.create", "response": response},
        {"type": "response.cancel", "response_id": "resp_1"},
    ]


def settings() -> list[Json]:
    return [
        {
            "models": {
                "checkpoint": "x/y",
                "placement": "fused",
                "torch": {"device": "cpu", "dtype": "float32", "threads": 2},
                "reasoner": {"engine": "torch", "slots": 4, "company": 2},
                "backbone": {"slots": 16},
                "codec": {"slots": 16, "max_group": 4},
                "ingress": {"host": "::1", "http_port": 1, "grpc_port": None, "audio": {"max_clip_s": 9.0}},
            },
            "scale": {"codec": {"replicas": 2, "autoscaling": {"min_replicas": 1, "max_replicas": 4}}},
            "serving": {"limits": {"admit_timeout_s": 2, "max_lead_s": 4.5}},
        }
    ]


def form(boundary: bytes = b"edge") -> bytes:
    """The body of POST /v1/audio/voices."""
    wav = next(data for kind, data in recordings() if kind == "wav")
    lines = []
    for name in ("name", "consent", "transcript"):
        lines += [b"--" + boundary, f'content-disposition: form-data; name="{name}"'.encode(), b"", name.encode()]
    lines += [b"--" + boundary, b'content-disposition: form-data; name="audio_sample"; filename="a.wav"']
    lines += [b"content-type: audio/wav", b"", wav, b"--" + boundary + b"--", b""]
    return b"\r\n".join(lines)


def as_bytes(trees: list[Json]) -> list[bytes]:
    return [json.dumps(tree).encode() for tree in trees]
