"""Events of the Realtime API, read without decoding the audio in them: most of what comes is audio."""

import json
from typing import Any

AUDIO = '"response.output_audio.delta"'
DELTA = '"delta":"'
HEAD_CHARS = 64  # of an event, its type among them


def opened(text: str) -> tuple[dict[str, Any], int]:
    """The event, its audio left out, and how many bytes of audio that was."""
    if AUDIO not in text[:HEAD_CHARS]:
        return json.loads(text), 0
    head, _, rest = text.partition(DELTA)
    return json.loads(head + DELTA + '"}'), (len(rest) - len('"}')) * 3 // 4
