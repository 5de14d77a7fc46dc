"""The id of a request: the client's own where it is sane, so that both sides' logs agree."""

import re
import uuid

HEADER = "x-request-id"
SANE = re.compile(r"[A-Za-z0-9._:-]{1,128}")


def request_id(asked: str) -> str:
    return asked if SANE.fullmatch(asked) else f"req_{uuid.uuid4().hex}"
