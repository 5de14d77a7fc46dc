import datetime

from google.protobuf import duration_pb2 as _duration_pb2
from google.protobuf import timestamp_pb2 as _timestamp_pb2
from google.rpc import status_pb2 as _status_pb2
from google.protobuf.internal import containers as _containers
from google.protobuf.internal import enum_type_wrapper as _enum_type_wrapper
from google.protobuf import descriptor as _descriptor
from google.protobuf import message as _message
from collections.abc import Iterable as _Iterable, Mapping as _Mapping
from typing import ClassVar as _ClassVar, Optional as _Optional, Union as _Union

DESCRIPTOR: _descriptor.FileDescriptor

class AudioEncoding(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    AUDIO_ENCODING_UNSPECIFIED: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_LINEAR16: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_MULAW: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_ALAW: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_WAV: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_FLAC: _ClassVar[AudioEncoding]
    AUDIO_ENCODING_MP3: _ClassVar[AudioEncoding]

class Role(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    ROLE_UNSPECIFIED: _ClassVar[Role]
    ROLE_SYSTEM: _ClassVar[Role]
    ROLE_USER: _ClassVar[Role]
    ROLE_ASSISTANT: _ClassVar[Role]

class FinishReason(int, metaclass=_enum_type_wrapper.EnumTypeWrapper):
    __slots__ = ()
    FINISH_REASON_UNSPECIFIED: _ClassVar[FinishReason]
    FINISH_REASON_COMPLETED: _ClassVar[FinishReason]
    FINISH_REASON_LENGTH: _ClassVar[FinishReason]
    FINISH_REASON_CANCELLED: _ClassVar[FinishReason]
    FINISH_REASON_INTERRUPTED: _ClassVar[FinishReason]
    FINISH_REASON_FAILED: _ClassVar[FinishReason]
AUDIO_ENCODING_UNSPECIFIED: AudioEncoding
AUDIO_ENCODING_LINEAR16: AudioEncoding
AUDIO_ENCODING_MULAW: AudioEncoding
AUDIO_ENCODING_ALAW: AudioEncoding
AUDIO_ENCODING_WAV: AudioEncoding
AUDIO_ENCODING_FLAC: AudioEncoding
AUDIO_ENCODING_MP3: AudioEncoding
ROLE_UNSPECIFIED: Role
ROLE_SYSTEM: Role
ROLE_USER: Role
ROLE_ASSISTANT: Role
FINISH_REASON_UNSPECIFIED: FinishReason
FINISH_REASON_COMPLETED: FinishReason
FINISH_REASON_LENGTH: FinishReason
FINISH_REASON_CANCELLED: FinishReason
FINISH_REASON_INTERRUPTED: FinishReason
FINISH_REASON_FAILED: FinishReason

class AudioConfig(_message.Message):
    __slots__ = ("encoding", "sample_rate_hertz")
    ENCODING_FIELD_NUMBER: _ClassVar[int]
    SAMPLE_RATE_HERTZ_FIELD_NUMBER: _ClassVar[int]
    encoding: AudioEncoding
    sample_rate_hertz: int
    def __init__(self, encoding: _Optional[_Union[AudioEncoding, str]] = ..., sample_rate_hertz: _Optional[int] = ...) -> None: ...

class AudioClip(_message.Message):
    __slots__ = ("content", "format")
    CONTENT_FIELD_NUMBER: _ClassVar[int]
    FORMAT_FIELD_NUMBER: _ClassVar[int]
    content: bytes
    format: AudioConfig
    def __init__(self, content: _Optional[bytes] = ..., format: _Optional[_Union[AudioConfig, _Mapping]] = ...) -> None: ...

class ReferenceVoice(_message.Message):
    __slots__ = ("clip", "transcript")
    CLIP_FIELD_NUMBER: _ClassVar[int]
    TRANSCRIPT_FIELD_NUMBER: _ClassVar[int]
    clip: AudioClip
    transcript: str
    def __init__(self, clip: _Optional[_Union[AudioClip, _Mapping]] = ..., transcript: _Optional[str] = ...) -> None: ...

class Sampling(_message.Message):
    __slots__ = ("temperature", "top_k", "seed", "text_temperature")
    TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    TOP_K_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    TEXT_TEMPERATURE_FIELD_NUMBER: _ClassVar[int]
    temperature: float
    top_k: int
    seed: int
    text_temperature: float
    def __init__(self, temperature: _Optional[float] = ..., top_k: _Optional[int] = ..., seed: _Optional[int] = ..., text_temperature: _Optional[float] = ...) -> None: ...

class TurnDetection(_message.Message):
    __slots__ = ("disabled", "threshold", "silence", "prefix_padding", "create_response", "interrupt_response")
    DISABLED_FIELD_NUMBER: _ClassVar[int]
    THRESHOLD_FIELD_NUMBER: _ClassVar[int]
    SILENCE_FIELD_NUMBER: _ClassVar[int]
    PREFIX_PADDING_FIELD_NUMBER: _ClassVar[int]
    CREATE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    INTERRUPT_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    disabled: bool
    threshold: float
    silence: _duration_pb2.Duration
    prefix_padding: _duration_pb2.Duration
    create_response: bool
    interrupt_response: bool
    def __init__(self, disabled: _Optional[bool] = ..., threshold: _Optional[float] = ..., silence: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., prefix_padding: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., create_response: _Optional[bool] = ..., interrupt_response: _Optional[bool] = ...) -> None: ...

class SessionConfig(_message.Message):
    __slots__ = ("model", "voice_id", "reference_voice", "instructions", "input_audio", "output_audio", "turn_detection", "sampling", "max_text_tokens", "max_reply", "omit_audio")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOICE_ID_FIELD_NUMBER: _ClassVar[int]
    REFERENCE_VOICE_FIELD_NUMBER: _ClassVar[int]
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    TURN_DETECTION_FIELD_NUMBER: _ClassVar[int]
    SAMPLING_FIELD_NUMBER: _ClassVar[int]
    MAX_TEXT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    MAX_REPLY_FIELD_NUMBER: _ClassVar[int]
    OMIT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    model: str
    voice_id: str
    reference_voice: ReferenceVoice
    instructions: str
    input_audio: AudioConfig
    output_audio: AudioConfig
    turn_detection: TurnDetection
    sampling: Sampling
    max_text_tokens: int
    max_reply: _duration_pb2.Duration
    omit_audio: bool
    def __init__(self, model: _Optional[str] = ..., voice_id: _Optional[str] = ..., reference_voice: _Optional[_Union[ReferenceVoice, _Mapping]] = ..., instructions: _Optional[str] = ..., input_audio: _Optional[_Union[AudioConfig, _Mapping]] = ..., output_audio: _Optional[_Union[AudioConfig, _Mapping]] = ..., turn_detection: _Optional[_Union[TurnDetection, _Mapping]] = ..., sampling: _Optional[_Union[Sampling, _Mapping]] = ..., max_text_tokens: _Optional[int] = ..., max_reply: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., omit_audio: _Optional[bool] = ...) -> None: ...

class Part(_message.Message):
    __slots__ = ("text", "audio")
    TEXT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    text: str
    audio: AudioClip
    def __init__(self, text: _Optional[str] = ..., audio: _Optional[_Union[AudioClip, _Mapping]] = ...) -> None: ...

class Message(_message.Message):
    __slots__ = ("role", "parts")
    ROLE_FIELD_NUMBER: _ClassVar[int]
    PARTS_FIELD_NUMBER: _ClassVar[int]
    role: Role
    parts: _containers.RepeatedCompositeFieldContainer[Part]
    def __init__(self, role: _Optional[_Union[Role, str]] = ..., parts: _Optional[_Iterable[_Union[Part, _Mapping]]] = ...) -> None: ...

class ConverseRequest(_message.Message):
    __slots__ = ("request_id", "config", "audio", "commit_audio", "clear_audio", "add_message", "create_response", "cancel_response", "truncate_response")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    COMMIT_AUDIO_FIELD_NUMBER: _ClassVar[int]
    CLEAR_AUDIO_FIELD_NUMBER: _ClassVar[int]
    ADD_MESSAGE_FIELD_NUMBER: _ClassVar[int]
    CREATE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    CANCEL_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    TRUNCATE_RESPONSE_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    config: SessionConfig
    audio: bytes
    commit_audio: CommitAudio
    clear_audio: ClearAudio
    add_message: Message
    create_response: CreateResponse
    cancel_response: CancelResponse
    truncate_response: TruncateResponse
    def __init__(self, request_id: _Optional[str] = ..., config: _Optional[_Union[SessionConfig, _Mapping]] = ..., audio: _Optional[bytes] = ..., commit_audio: _Optional[_Union[CommitAudio, _Mapping]] = ..., clear_audio: _Optional[_Union[ClearAudio, _Mapping]] = ..., add_message: _Optional[_Union[Message, _Mapping]] = ..., create_response: _Optional[_Union[CreateResponse, _Mapping]] = ..., cancel_response: _Optional[_Union[CancelResponse, _Mapping]] = ..., truncate_response: _Optional[_Union[TruncateResponse, _Mapping]] = ...) -> None: ...

class CommitAudio(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class ClearAudio(_message.Message):
    __slots__ = ()
    def __init__(self) -> None: ...

class CreateResponse(_message.Message):
    __slots__ = ("instructions", "out_of_band", "messages", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    INSTRUCTIONS_FIELD_NUMBER: _ClassVar[int]
    OUT_OF_BAND_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    instructions: str
    out_of_band: bool
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, instructions: _Optional[str] = ..., out_of_band: _Optional[bool] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class CancelResponse(_message.Message):
    __slots__ = ("response_id",)
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    def __init__(self, response_id: _Optional[str] = ...) -> None: ...

class TruncateResponse(_message.Message):
    __slots__ = ("response_id", "heard")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    HEARD_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    heard: _duration_pb2.Duration
    def __init__(self, response_id: _Optional[str] = ..., heard: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class ConverseResponse(_message.Message):
    __slots__ = ("session_ready", "speech_started", "speech_stopped", "audio_committed", "response_started", "response_delta", "response_done", "error")
    SESSION_READY_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STARTED_FIELD_NUMBER: _ClassVar[int]
    SPEECH_STOPPED_FIELD_NUMBER: _ClassVar[int]
    AUDIO_COMMITTED_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_STARTED_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_DELTA_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_DONE_FIELD_NUMBER: _ClassVar[int]
    ERROR_FIELD_NUMBER: _ClassVar[int]
    session_ready: SessionReady
    speech_started: SpeechStarted
    speech_stopped: SpeechStopped
    audio_committed: AudioCommitted
    response_started: ResponseStarted
    response_delta: ResponseDelta
    response_done: ResponseDone
    error: RequestError
    def __init__(self, session_ready: _Optional[_Union[SessionReady, _Mapping]] = ..., speech_started: _Optional[_Union[SpeechStarted, _Mapping]] = ..., speech_stopped: _Optional[_Union[SpeechStopped, _Mapping]] = ..., audio_committed: _Optional[_Union[AudioCommitted, _Mapping]] = ..., response_started: _Optional[_Union[ResponseStarted, _Mapping]] = ..., response_delta: _Optional[_Union[ResponseDelta, _Mapping]] = ..., response_done: _Optional[_Union[ResponseDone, _Mapping]] = ..., error: _Optional[_Union[RequestError, _Mapping]] = ...) -> None: ...

class SessionReady(_message.Message):
    __slots__ = ("session_id", "config", "longest")
    SESSION_ID_FIELD_NUMBER: _ClassVar[int]
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    LONGEST_FIELD_NUMBER: _ClassVar[int]
    session_id: str
    config: SessionConfig
    longest: _duration_pb2.Duration
    def __init__(self, session_id: _Optional[str] = ..., config: _Optional[_Union[SessionConfig, _Mapping]] = ..., longest: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpeechStarted(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: _duration_pb2.Duration
    def __init__(self, offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class SpeechStopped(_message.Message):
    __slots__ = ("offset",)
    OFFSET_FIELD_NUMBER: _ClassVar[int]
    offset: _duration_pb2.Duration
    def __init__(self, offset: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...

class AudioCommitted(_message.Message):
    __slots__ = ("message_id",)
    MESSAGE_ID_FIELD_NUMBER: _ClassVar[int]
    message_id: str
    def __init__(self, message_id: _Optional[str] = ...) -> None: ...

class ResponseStarted(_message.Message):
    __slots__ = ("response_id", "metadata")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    metadata: _containers.ScalarMap[str, str]
    def __init__(self, response_id: _Optional[str] = ..., metadata: _Optional[_Mapping[str, str]] = ...) -> None: ...

class ResponseDelta(_message.Message):
    __slots__ = ("response_id", "text", "audio")
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    TEXT_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    text: str
    audio: bytes
    def __init__(self, response_id: _Optional[str] = ..., text: _Optional[str] = ..., audio: _Optional[bytes] = ...) -> None: ...

class RequestError(_message.Message):
    __slots__ = ("request_id", "status")
    REQUEST_ID_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    request_id: str
    status: _status_pb2.Status
    def __init__(self, request_id: _Optional[str] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ...) -> None: ...

class ResponseDone(_message.Message):
    __slots__ = ("response_id", "finish_reason", "status", "usage", "statistics", "metadata", "provenance")
    class MetadataEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: str
        def __init__(self, key: _Optional[str] = ..., value: _Optional[str] = ...) -> None: ...
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    FINISH_REASON_FIELD_NUMBER: _ClassVar[int]
    STATUS_FIELD_NUMBER: _ClassVar[int]
    USAGE_FIELD_NUMBER: _ClassVar[int]
    STATISTICS_FIELD_NUMBER: _ClassVar[int]
    METADATA_FIELD_NUMBER: _ClassVar[int]
    PROVENANCE_FIELD_NUMBER: _ClassVar[int]
    response_id: str
    finish_reason: FinishReason
    status: _status_pb2.Status
    usage: Usage
    statistics: Statistics
    metadata: _containers.ScalarMap[str, str]
    provenance: Provenance
    def __init__(self, response_id: _Optional[str] = ..., finish_reason: _Optional[_Union[FinishReason, str]] = ..., status: _Optional[_Union[_status_pb2.Status, _Mapping]] = ..., usage: _Optional[_Union[Usage, _Mapping]] = ..., statistics: _Optional[_Union[Statistics, _Mapping]] = ..., metadata: _Optional[_Mapping[str, str]] = ..., provenance: _Optional[_Union[Provenance, _Mapping]] = ...) -> None: ...

class Provenance(_message.Message):
    __slots__ = ("model", "voice", "created", "tenant", "response_id", "audio_sha256", "jws")
    MODEL_FIELD_NUMBER: _ClassVar[int]
    VOICE_FIELD_NUMBER: _ClassVar[int]
    CREATED_FIELD_NUMBER: _ClassVar[int]
    TENANT_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_ID_FIELD_NUMBER: _ClassVar[int]
    AUDIO_SHA256_FIELD_NUMBER: _ClassVar[int]
    JWS_FIELD_NUMBER: _ClassVar[int]
    model: str
    voice: str
    created: _timestamp_pb2.Timestamp
    tenant: str
    response_id: str
    audio_sha256: str
    jws: str
    def __init__(self, model: _Optional[str] = ..., voice: _Optional[str] = ..., created: _Optional[_Union[datetime.datetime, _timestamp_pb2.Timestamp, _Mapping]] = ..., tenant: _Optional[str] = ..., response_id: _Optional[str] = ..., audio_sha256: _Optional[str] = ..., jws: _Optional[str] = ...) -> None: ...

class Usage(_message.Message):
    __slots__ = ("input_tokens", "input_audio_tokens", "cached_tokens", "output_tokens", "output_audio_tokens")
    INPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    INPUT_AUDIO_TOKENS_FIELD_NUMBER: _ClassVar[int]
    CACHED_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_TOKENS_FIELD_NUMBER: _ClassVar[int]
    OUTPUT_AUDIO_TOKENS_FIELD_NUMBER: _ClassVar[int]
    input_tokens: int
    input_audio_tokens: int
    cached_tokens: int
    output_tokens: int
    output_audio_tokens: int
    def __init__(self, input_tokens: _Optional[int] = ..., input_audio_tokens: _Optional[int] = ..., cached_tokens: _Optional[int] = ..., output_tokens: _Optional[int] = ..., output_audio_tokens: _Optional[int] = ...) -> None: ...

class Statistics(_message.Message):
    __slots__ = ("first_audio", "audio", "real_time_factor", "seed", "stages")
    class StagesEntry(_message.Message):
        __slots__ = ("key", "value")
        KEY_FIELD_NUMBER: _ClassVar[int]
        VALUE_FIELD_NUMBER: _ClassVar[int]
        key: str
        value: _duration_pb2.Duration
        def __init__(self, key: _Optional[str] = ..., value: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ...) -> None: ...
    FIRST_AUDIO_FIELD_NUMBER: _ClassVar[int]
    AUDIO_FIELD_NUMBER: _ClassVar[int]
    REAL_TIME_FACTOR_FIELD_NUMBER: _ClassVar[int]
    SEED_FIELD_NUMBER: _ClassVar[int]
    STAGES_FIELD_NUMBER: _ClassVar[int]
    first_audio: _duration_pb2.Duration
    audio: _duration_pb2.Duration
    real_time_factor: float
    seed: int
    stages: _containers.MessageMap[str, _duration_pb2.Duration]
    def __init__(self, first_audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., audio: _Optional[_Union[datetime.timedelta, _duration_pb2.Duration, _Mapping]] = ..., real_time_factor: _Optional[float] = ..., seed: _Optional[int] = ..., stages: _Optional[_Mapping[str, _duration_pb2.Duration]] = ...) -> None: ...

class GenerateRequest(_message.Message):
    __slots__ = ("config", "messages")
    CONFIG_FIELD_NUMBER: _ClassVar[int]
    MESSAGES_FIELD_NUMBER: _ClassVar[int]
    config: SessionConfig
    messages: _containers.RepeatedCompositeFieldContainer[Message]
    def __init__(self, config: _Optional[_Union[SessionConfig, _Mapping]] = ..., messages: _Optional[_Iterable[_Union[Message, _Mapping]]] = ...) -> None: ...

class GenerateResponse(_message.Message):
    __slots__ = ("response_started", "response_delta", "response_done")
    RESPONSE_STARTED_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_DELTA_FIELD_NUMBER: _ClassVar[int]
    RESPONSE_DONE_FIELD_NUMBER: _ClassVar[int]
    response_started: ResponseStarted
    response_delta: ResponseDelta
    response_done: ResponseDone
    def __init__(self, response_started: _Optional[_Union[ResponseStarted, _Mapping]] = ..., response_delta: _Optional[_Union[ResponseDelta, _Mapping]] = ..., response_done: _Optional[_Union[ResponseDone, _Mapping]] = ...) -> None: ...
