"""The README, in parts."""

import re

from tests.conftest import ROOT

README = (ROOT / "README.md").read_text(encoding="utf-8")
LOCAL = "http://127.0.0.1:8000"  # the server of its examples


def blocks(kind: str) -> list[str]:
    """The fenced blocks of one language, or of none."""
    fences = re.split(r"^```(.*)\n", README, flags=re.MULTILINE)  # prose, language, block, "", prose, ...
    return [block for language, block in zip(fences[1::4], fences[2::4], strict=True) if language == kind]
