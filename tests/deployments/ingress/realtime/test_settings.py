"""session.update: merged deeply, null is off, what means nothing here is put right and never an error."""

from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from openai.types.realtime import RealtimeSessionCreateRequest
from pydantic import TypeAdapter

from chroma_models.errors import InvalidRequest
from deployments.ingress.realtime.session_shape import SessionShape
from deployments.ingress.session.settings import SessionSettings, TurnDetection
from tests.deployments.ingress.realtime.conftest import Dial

Json = dict[str, Any]
SDK = TypeAdapter(RealtimeSessionCreateRequest)


def after(*updates: Json) -> SessionShape:
    shape = SessionShape.default("chroma")
    for update in updates:
        shape = shape.updated(update)
        SDK.validate_python(shape.told(), strict=True)
    return shape


def listening(detection: Json | None) -> Json:
    return {"audio": {"input": {"turn_detection": detection}}}


def heard(*detections: Json | None) -> TurnDetection | None:
    return after(*map(listening, detections)).settings(None).turn_detection


def test_a_session_begins_with_the_defaults_of_the_api() -> None:
    assert SessionShape.default("chroma").settings(None) == SessionSettings()


def test_only_what_is_named_changes() -> None:
    shape = after(
        {"instructions": "Be brief.", "audio": {"output": {"voice": "marin"}}},
        listening({"type": "server_vad", "threshold": 0.7}),
        listening({"type": "server_vad", "silence_duration_ms": 900}),
        {"audio": {"input": {"format": {"type": "audio/pcmu"}}}},
    )
    found = shape.settings(None)
    assert found.instructions == "Be brief."
    assert found.turn_detection == TurnDetection(threshold=0.7, silence_duration_ms=900)
    assert found.input.encoding == "mulaw"
    assert found.output.encoding == "pcm16"


def test_null_is_off_and_naming_it_again_is_on() -> None:
    assert heard(None) is None
    assert heard(None, {"type": "server_vad"}) == TurnDetection()
    assert after({"audio": None}, {"audio": {"input": None, "output": None}}).told() == after().told()


def test_another_kind_of_turn_detection_begins_anew() -> None:
    """eagerness is a length of silence, as the README says."""
    eager = {kind: heard({"threshold": 0.9}, {"type": "semantic_vad", "eagerness": kind}) for kind in ("low", "high")}
    assert {kind: found and found.silence_duration_ms for kind, found in eager.items()} == {"low": 1500, "high": 500}
    plain = heard({"type": "semantic_vad"})
    assert plain == TurnDetection(silence_duration_ms=800)
    low, medium = ({"type": "semantic_vad", "eagerness": eagerness} for eagerness in ("low", "medium"))
    assert plain == heard(low, medium)
    assert heard({"type": "semantic_vad", "interrupt_response": False, "create_response": False}) == TurnDetection(
        silence_duration_ms=800, create_response=False, interrupt_response=False
    )


def test_what_the_model_cannot_do_is_shown_as_it_is() -> None:
    told = after(
        {
            "type": "realtime",
            "model": "gpt-realtime",
            "tools": [{"type": "function", "name": "sing", "parameters": {}}],
            "tool_choice": "required",
            "tracing": "auto",
            "prompt": {"id": "pmpt_1"},
            "include": ["item.input_audio_transcription.logprobs"],
            "output_modalities": ["text", "audio"],
            "reasoning": {"effort": "low"},
            "temperature": -1,
            "audio": {
                "input": {"transcription": {"model": "whisper-1"}, "noise_reduction": {"type": "near_field"}},
                "output": {"speed": 1.5, "voice": "alloy"},
            },
        }
    ).told()
    assert told["model"] == "chroma"
    assert (told["tools"], told["tool_choice"], told["tracing"], told["include"]) == ([], "none", None, None)
    assert told["output_modalities"] == ["audio"]
    assert told["audio"]["input"]["transcription"] is None
    assert told["audio"]["input"]["noise_reduction"] is None
    assert told["audio"]["output"] == {"format": {"type": "audio/pcm", "rate": 24000}, "voice": "default", "speed": 1.0}


def test_numbers_out_of_range_are_brought_into_it() -> None:
    detection = {"type": "server_vad", "threshold": 7, "prefix_padding_ms": -5, "silence_duration_ms": 0}
    assert heard(detection) == TurnDetection(threshold=1.0, prefix_padding_ms=0, silence_duration_ms=64)
    assert after({"max_output_tokens": 0}).settings(None).max_text_tokens == 1
    assert after({"max_output_tokens": "inf"}).settings(None).max_text_tokens is None


@pytest.mark.parametrize(
    ("update", "param"),
    [
        ({"type": "transcription"}, "session.type"),
        (listening({"type": "server_vad", "threshold": "loud"}), "session.audio.input.turn_detection.threshold"),
        ({"audio": {"input": {"format": {"type": "audio/opus"}}}}, "session.audio.input.format.type"),
        ({"audio": {"output": {"format": {"type": "audio/pcm", "rate": 8000}}}}, "session.audio.output.format"),
        ({"audio": {"output": {"voice": {"name": "x"}}}}, "session.audio.output.voice"),
        ({"audio": 7}, "session.audio"),
        ({"instructions": ["a"]}, "session.instructions"),
        ({"truncation": {"type": "retention_ratio", "retention_ratio": 2}}, "session.truncation"),
        ({"chroma": {"tempo": 1}}, "session.chroma.tempo"),
    ],
)
def test_what_is_wrong_in_itself_is_told_by_name_and_changes_nothing(update: Json, param: str) -> None:
    with pytest.raises(InvalidRequest) as raised:
        after({"instructions": "Be brief."}, update)
    assert raised.value.param == param


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["audio", "input", "output", "turn_detection", "type", "voice", "id"]), inner)
    ),
    max_leaves=8,
)
FIELDS = ["type", "audio", "instructions", "max_output_tokens", "output_modalities", "truncation", "chroma", "tools"]


@given(st.lists(st.dictionaries(st.sampled_from(FIELDS), JSON, max_size=3), max_size=3))
@settings(suppress_health_check=[HealthCheck.too_slow])
def test_no_update_is_a_fault_of_ours(updates: list[Json]) -> None:
    shape = SessionShape.default("chroma")
    for update in updates:
        try:
            shape = shape.updated(update)
        except InvalidRequest:
            continue
        SDK.validate_python(shape.told(), strict=True)
        shape.settings(None)


async def test_an_update_is_answered_with_the_whole_session(dial: Dial) -> None:
    client = await dial()
    created = client.told[0]["session"]
    await client.send("session.update", session={"type": "realtime", "instructions": "Be brief."})
    updated = (await client.one("session.updated"))["session"]
    assert updated == {**created, "instructions": "Be brief."}
    await client.answered()
    (system, _) = client.service.speaker.turns[0].messages
    assert system.role == "system"
    assert system.parts[0].text == "Be brief."


async def test_a_refused_update_changes_nothing(dial: Dial) -> None:
    client = await dial()
    wrong = {"type": "realtime", "instructions": "Be brief.", "audio": {"output": {"voice": {"id": "voice_0"}}}}
    await client.send("session.update", session=wrong, event_id="mine")
    error = (await client.one("error"))["error"]
    assert (error["code"], error["param"], error["event_id"]) == (
        "voice_not_found",
        "session.audio.output.voice",
        "mine",
    )
    await client.send("session.update", session={"type": "realtime"})
    assert (await client.one("session.updated"))["session"]["instructions"] == ""
