"""Ask a running server one spoken question, as any OpenAI client would."""

import base64
import os
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import httpx
import openai
import soundfile

from chroma_models.errors import InvalidRequest, StageUnavailable
from chroma_models.types import SAMPLE_RATE_HZ
from deployments.ingress.provenance.files import comment_of

FORMATS = ("wav", "mp3", "flac")


@dataclass
class Reply:
    words: str
    first_audio_s: float
    audio_s: float
    total_s: float
    chroma: dict[str, Any]  # our extension: the server's own timing

    @property
    def rtf(self) -> float:
        return self.total_s / self.audio_s if self.audio_s else float("nan")


def ask(
    question: Path, out: Path, url: str, *, voice: Path | None, transcript: str | None, max_reply_s: float | None = None
) -> Reply:
    """Stream the reply into a wav file and print what happened. Raises what the server says, typed."""
    body = _request(question, voice, transcript, max_reply_s)
    if not out.parent.is_dir():
        raise InvalidRequest(f"{out} cannot be written: {out.parent} is no folder.")
    client = openai.OpenAI(base_url=f"{url}/v1", api_key=os.environ.get("CHROMA_API_KEY") or "none", max_retries=0)
    words: list[str] = []
    first: float | None = None
    samples = 0
    extension: dict[str, Any] = {}
    try:
        started = time.monotonic()
        chunks = client.chat.completions.create(**body)  # raises before an earlier reply is overwritten
        with _wav(out) as sink:
            for chunk in chunks:
                said = chunk.model_dump()
                extension = said.get("chroma") or extension
                audio = said["choices"][0]["delta"].get("audio") if said["choices"] else None
                if not audio:
                    continue
                if audio.get("transcript"):
                    words.append(audio["transcript"])
                    print(audio["transcript"], end="", flush=True)
                if audio.get("data"):
                    first = first or time.monotonic()
                    pcm = base64.b64decode(audio["data"])
                    sink.buffer_write(pcm, "int16")
                    samples += len(pcm) // 2
            if statement := extension.get("provenance"):
                sink.comment = comment_of(statement)
    except openai.APIStatusError as error:
        raise InvalidRequest(f"The server refused: {_message(error)}") from error
    except (openai.APIConnectionError, httpx.TransportError) as error:
        raise StageUnavailable(f"No server answers at {url}: start one with `chroma serve`.") from error
    except openai.APIError as error:
        raise StageUnavailable(f"The reply broke off: {error.message}") from error
    if first is None:
        raise StageUnavailable("The server sent no audio.")
    reply = Reply("".join(words), first - started, samples / SAMPLE_RATE_HZ, time.monotonic() - started, extension)
    show(reply, out)
    return reply


def _wav(out: Path) -> soundfile.SoundFile:
    try:
        return soundfile.SoundFile(out, "w", SAMPLE_RATE_HZ, 1, "PCM_16", format="WAV")
    except soundfile.LibsndfileError as error:
        raise InvalidRequest(f"{out} cannot be written: {error.error_string}") from error


def _message(error: openai.APIStatusError) -> str:
    body = error.body
    return str(body.get("message", body)) if isinstance(body, dict) else error.message


def _request(question: Path, voice: Path | None, transcript: str | None, max_reply_s: float | None) -> dict[str, Any]:
    spoken: Any = "default"
    if voice is not None:
        if transcript is None:
            raise InvalidRequest("--voice needs --transcript: the words spoken in the reference clip.")
        spoken = {"reference": _clip(voice), "transcript": transcript}
    return {
        "model": "chroma",
        "messages": [{"role": "user", "content": [{"type": "input_audio", "input_audio": _clip(question)}]}],
        "modalities": ["text", "audio"],
        "audio": {"voice": spoken, "format": "pcm16"},
        "stream": True,
        "stream_options": {"include_usage": True},
        "extra_body": {"chroma": {"max_reply_s": max_reply_s}} if max_reply_s else {},
    }


def _clip(path: Path) -> dict[str, str]:
    kind = path.suffix.lower().lstrip(".")
    if kind not in FORMATS:
        raise InvalidRequest(f"{path} is no {', '.join(FORMATS)} file; convert it first.")
    try:
        return {"data": base64.b64encode(path.read_bytes()).decode(), "format": kind}
    except OSError as error:
        raise InvalidRequest(f"{path} cannot be read: {error.strerror}.") from error


def show(reply: Reply, out: Path) -> None:
    """Figures a listener feels, then where the time went."""
    print(f"\nwrote          {out}: {reply.audio_s:.2f} s of speech")
    print(f"first audio    {reply.first_audio_s * 1000:.0f} ms after the request")
    print(f"RTF            {reply.rtf:.3f} (paced at most 4 s ahead of playback)")
    for name, seconds in (reply.chroma.get("stages") or {}).items():
        print(f"  {name:<20} {seconds * 1000:8.1f} ms")
