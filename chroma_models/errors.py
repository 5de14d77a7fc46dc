"""What can go wrong, in the model's words. How a protocol spells it is the ingress's business.

Constructors are positional, so every error survives pickling between replicas; `code` is stable and public.
"""

from typing import ClassVar


class ChromaError(Exception):
    """Anything this project raises on purpose. The message says what to change."""

    code: ClassVar[str] = "internal_error"

    def __init__(self, message: str, retry_after_s: float | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.message = message
        self.retry_after_s = retry_after_s

    def __str__(self) -> str:
        return self.message


class InvalidRequest(ChromaError):
    """The caller asked for something that cannot be."""

    code = "invalid_request"

    def __init__(self, message: str, param: str | None = None) -> None:
        super().__init__(message)
        self.args = (message, param)
        self.param = param


class InvalidAudio(InvalidRequest):
    code = "invalid_audio"


class InvalidVoice(InvalidRequest):
    code = "invalid_voice"


class PromptTooLong(InvalidRequest):
    """Voice prompt or conversation exceed the positions of the Backbone or the Reasoner."""

    code = "prompt_too_long"


class TooLarge(InvalidRequest):
    code = "too_large"


class Unauthenticated(ChromaError):
    code = "invalid_api_key"


class Forbidden(ChromaError):
    code = "forbidden"


class UnknownVoice(InvalidRequest):
    code = "voice_not_found"


class UnknownModel(InvalidRequest):
    code = "model_not_found"


class Overloaded(ChromaError):
    """No slot within admit_timeout_s. Carries retry_after_s."""

    code = "overloaded"


class QuotaExceeded(ChromaError):
    """A tenant has what it may have. quota names which share that is. Carries retry_after_s."""

    code = "insufficient_quota"

    def __init__(self, message: str, retry_after_s: float | None = None, quota: str | None = None) -> None:
        super().__init__(message, retry_after_s)
        self.args = (message, retry_after_s, quota)
        self.quota = quota


class StageUnavailable(ChromaError):
    """A stage could not be reached, or stopped answering. Carries retry_after_s."""

    code = "stage_unavailable"


class Lost(StageUnavailable):
    """The replica that a call went to has died, hangs, or gave the call up: another one may go on.

    It concerns one hop. Whoever gives up after that says StageUnavailable.
    """


class TurnTimeout(ChromaError):
    """The turn outlived one of its named limits."""

    code = "turn_timeout"


class CheckpointError(ChromaError):
    """The weights are not what the configuration says: names what is missing, left over or wrongly shaped."""

    code = "bad_checkpoint"


class InvalidCodes(ChromaError):
    """Codes that Mimi has no vectors for, or frames of another shape. Nothing a client sends causes this."""

    code = "invalid_codes"
