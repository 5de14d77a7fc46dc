"""What an operator chooses about the doors of the service: addresses, sizes and times."""

from pathlib import Path

from pydantic import Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from chroma_models.config import Config, TurnLimits
from deployments.ingress.sanity import SanityLimits


class AudioLimits(Config):
    """What a clip may be before it is decoded, so that no request costs more than it should."""

    min_rate_hz: PositiveInt = 4_000  # below this there is no speech left
    max_rate_hz: PositiveInt = 384_000  # above this the header is wrong
    max_channels: PositiveInt = 2  # mono or stereo; stereo is averaged
    min_clip_s: PositiveFloat = 0.1  # below this the Reasoner's extractor has no frame to give
    max_clip_s: PositiveFloat = 600.0  # a longer clip is refused, before it is decoded
    max_clip_samples: PositiveInt = 1 << 26  # over all channels: 600 s of 48 kHz stereo; bounds the time of a decode
    max_audio_s: PositiveFloat = 300.0  # spoken history that is kept; the oldest is dropped (conversation.py)
    max_audio_parts: PositiveInt = 16  # spoken parts that are kept; the Reasoner reads as many
    max_voice_s: PositiveFloat = 30.0  # longest reference clip: 375 frames of the Backbone's positions
    min_voice_s: PositiveFloat = 3.0  # shortest clip a voice is stored from; less tells too little of it
    min_voice_sound_s: PositiveFloat = 2.0  # of it above silence_dbfs, counted in pieces of 20 ms
    silence_dbfs: float = Field(-50.0, le=-20, ge=-100)  # quieter than speech in any usable recording
    max_voice_clipped: PositiveFloat = 0.002  # share of samples in flat tops; more is heard in every reply
    min_voice_rate_hz: PositiveInt = 16_000  # a telephone's 8 kHz lacks half of what makes a voice known
    min_voice_correlation: float = Field(0.2, ge=-1, le=1)  # of two channels; below, averaging them spoils the voice
    max_transcript_chars: PositiveInt = 2_000  # of a reference clip
    threads: PositiveInt = 4  # decode and encode audio beside the event loop; a long clip occupies one for about 1 s


class VadSettings(Config):
    """How voice activity is listened for; when a turn begins and ends is each session's own choice."""

    tick_s: PositiveFloat = 0.016  # sound is gathered this long, so that sessions share a pass of the network
    max_waiting_s: PositiveFloat = 10.0  # sound of one session not heard yet; beyond, its client is read no further


class SessionLimits(Config):
    """What one live conversation may hold."""

    max_session_s: PositiveFloat = 3600.0  # announced as expires_at; the connection is closed then
    max_items: PositiveInt = 1000  # beyond, the oldest is forgotten
    max_text_chars: PositiveInt = 1 << 18  # of all items together; beyond, the oldest is forgotten
    max_input_s: PositiveFloat = 300.0  # audio appended and not committed; as much as a turn may hear
    max_silence_s: PositiveFloat = 15.0  # of it, what turn detection keeps while nobody speaks
    max_responses: PositiveInt = 4  # out-of-band, at once, beside the conversation's


class RealtimeLimits(Config):
    """What a WebSocket client may cost."""

    max_sessions: PositiveInt = 256  # open on this replica; then Overloaded, before the upgrade
    max_event_bytes: PositiveInt = 16 << 20  # of one client event; beyond, close 1009. 4 minutes of audio/pcm in base64
    max_events_per_s: PositiveInt = 1000  # over time; a client that sends faster is read no faster
    burst_events: PositiveInt = 2000  # that may come at once
    ping_interval_s: PositiveFloat = 20.0  # transport pings, so that half-open connections are found
    ping_timeout_s: PositiveFloat = 20.0  # without a pong for this long the connection is closed, 1011


class GrpcLimits(Config):
    """What a gRPC client may cost before anybody has looked at what it sends."""

    max_message_bytes: PositiveInt = 32 << 20  # 17 minutes of 16 kHz samples; one message of Generate holds it all
    max_requests_per_s: PositiveInt = 1000  # of one conversation, over time; who sends faster is read no faster
    burst_requests: PositiveInt = 2000  # that may come at once
    max_live_bytes: PositiveInt = 1 << 20  # of one piece of a microphone's audio; 20 s at 24 kHz
    max_calls: PositiveInt = 1024  # running on this replica, idle conversations among them; then RESOURCE_EXHAUSTED
    max_connection_calls: PositiveInt = 256  # of one connection; more wait there
    keepalive_s: PositiveFloat = 20.0  # a silent connection is asked whether it lives
    keepalive_timeout_s: PositiveFloat = 20.0  # and closed without an answer
    min_ping_s: PositiveFloat = 5.0  # clients that ask more often are told to calm down, and cut


class IngressSizes(Config):
    host: str = "127.0.0.1"  # the loopback unless an operator opens it
    http_port: int = Field(8000, ge=0, le=65_535)  # shared by every replica of a node; 0 takes a free one
    grpc_port: int | None = Field(8001, ge=0, le=65_535)  # as http_port; None: no gRPC
    grpc: GrpcLimits = GrpcLimits()
    tls_cert_file: Path | None = None  # PEM chain for HTTPS, WSS and gRPC; None: no TLS, something before us does it
    tls_key_file: Path | None = None  # its key, not encrypted
    model_id: str = Field("chroma", min_length=1)  # the name clients ask for
    affinity_key: str | None = (
        None  # secret of the affinity hash, equal on all replicas; None: random with every deployment
    )

    auth: bool = True  # False: everybody is one tenant, on the loopback alone
    key_secret: str | None = None  # API keys are hashed under it; None: a file beside SQLite's, PostgreSQL needs one
    key_cache: PositiveInt = 4096  # keys that are remembered
    key_cache_s: PositiveFloat = Field(2.0, le=5)  # and how long: a revoked one works no longer than that
    admin_key: str | None = Field(None, min_length=32)  # opens /v1/admin; None: nobody may
    permit_ttl_s: PositiveFloat = 15.0  # streams of a replica that died count for so long
    permit_renew_s: PositiveFloat = 2.0  # live streams say so; those of a revoked key end then
    usage_flush_s: PositiveFloat = 2.0  # what live responses have delivered is written down
    usage_lost_s: PositiveFloat = 30.0  # a response nobody touched for so long has ended with its replica
    metric_tenants: NonNegativeInt = 50  # told apart in metrics; further ones are "other"
    token_secret: str | None = None  # signs client secrets; None: as above, and they end with it
    client_secret_ttl_s: float = Field(600.0, ge=10, le=7200)  # where its request names no time, as OpenAI has it

    signing_key: str | None = None  # Ed25519, PEM; signs what replies say of themselves; None: as token_secret
    signing_key_file: Path | None = None  # the same from a file
    retired_keys_file: Path | None = None  # JWK set of public keys that signed before, published beside it

    watermark: str | None = None  # package.module:factory of a mark in every reply (watermark.py); None: none
    sanity: SanityLimits = SanityLimits()  # what a reply sounds like, when it is counted as faulty
    probe_interval_s: NonNegativeFloat = 0.0  # between two turns of each replica's own, from end to end; 0: none

    max_body_bytes: PositiveInt = 32 << 20  # 13 minutes of 16 kHz wav in base64
    max_pending_bytes: PositiveInt = 256 << 20  # bodies being read or parsed at once, all requests together
    body_timeout_s: PositiveFloat = 30.0  # from the headers to the last byte of the body
    discard_s: NonNegativeFloat = 5.0  # a refused body is read and dropped this long, so that the answer arrives
    max_json_depth: PositiveInt = 16  # the deepest legal request is 8
    max_json_tokens: PositiveInt = 200_000  # commas, colons and brackets; bounds the objects a body may become
    max_messages: PositiveInt = 512  # of one conversation, and parts of one message
    audio: AudioLimits = AudioLimits()

    session: SessionLimits = SessionLimits()
    vad: VadSettings = VadSettings()
    realtime: RealtimeLimits = RealtimeLimits()

    max_concurrent: PositiveInt = 256  # turns of this replica, then Overloaded
    max_send_s: PositiveFloat = 60.0  # a client that takes nothing for this long has gone
    send_buffer_bytes: PositiveInt = 128 << 10  # the kernel holds for a client that does not read, not its own 4 MB
    pause_above_s: PositiveFloat = 10.0  # audio a live client has not taken; beyond, the turn behind is given back
    resume_below_s: PositiveFloat = 2.0  # and taken up again when so little is left; more than a resume takes
    max_reply_s: PositiveFloat = 60.0  # longest reply; a request may ask for less
    max_text_tokens: PositiveInt = 1024  # longest text of a reply; a request may ask for less

    database_url: str | None = None  # postgresql://..., sqlite:///FILE; None: voices.db in the user's data folder
    database_timeout_s: PositiveFloat = 5.0  # for a look-up or a change, waiting included
    max_upload_bytes: PositiveInt = 10 << 20  # of a recording, as OpenAI has it
    max_name_chars: PositiveInt = Field(256, le=256)  # of a voice or a consent
    reference_voices: bool = (
        True  # a clip in a request is answered in its voice; False: stored ones alone, with consent
    )
    voice_cache: PositiveInt = 256  # encoded clips that came with requests; each is about 2 KB per 10 s
    voice_cache_idle_s: PositiveFloat = Field(45.0, le=50)  # without a use, then one is forgotten
    replies: PositiveInt = 4096  # transcripts kept for assistant messages that name an audio id, at most
    retention_s: NonNegativeFloat = 0.0  # and how long, where no tenant has a setting of its own; 0: not at all

    max_connections: PositiveInt = 8192  # HTTP and WebSocket, of this replica; each idle one is about 20 KB
    max_header_bytes: PositiveInt = 32 << 10  # request line and headers; a client secret takes up to 8 KB of them
    max_headers: PositiveInt = 100
    header_timeout_s: PositiveFloat = 10.0  # from the connection, or the first byte of a next request, to their end
    keepalive_s: PositiveInt = 75  # an idle connection is closed; longer than usual load balancers' 60 s
    drain_linger_s: NonNegativeFloat = 4.0  # still accepting while load balancers see us drain
    drain_quiet_s: NonNegativeFloat = 1.0  # without a turn, then a live session is sent away; who just came may speak
    drain_wait_s: NonNegativeFloat = 60.0  # for live requests to end, then they are cut
    backlog: PositiveInt = 2048  # connections the kernel holds for us


class IngressConfig(IngressSizes, TurnLimits):
    """All the ingress needs: what is fixed while it runs, and the limits every stage shares."""

    context_tokens: PositiveInt = 8192  # prompt and reply; what the Reasoner's settings say

    @property
    def admission_s(self) -> float:
        """To the first item of a turn: Codec, Backbone, perhaps a second Backbone, and Reasoner admit one by one."""
        return 4 * self.admit_timeout_s
