"""A headless Chromium at the page, with a file in the place of its microphone."""

import re
import shutil
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import soundfile
import soxr
from playwright.async_api import Locator, Page, async_playwright, expect

from tests.conftest import ROOT

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
QUESTION = ROOT / "deployments" / "ingress" / "voices" / "question.wav"
PICTURES = ROOT / "build" / "test-output"
MICROPHONE_HZ = 48_000
WITHIN_MS = 30_000  # for what the page does after a turn or two, on a busy machine
expect.set_options(timeout=WITHIN_MS)
QUIET = [
    "--no-sandbox",
    "--autoplay-policy=no-user-gesture-required",
    "--use-fake-device-for-media-stream",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
    "--disable-quic",
    "--disable-gpu",
]
ALLOWED = "--use-fake-ui-for-media-stream"
REFUSED = "--deny-permission-prompts"
TOLD = "document.addEventListener('securitypolicyviolation', ({ violatedDirective, blockedURI }) => " + (
    "console.error(`policy: ${violatedDirective} ${blockedURI}`))"
)


def questions(path: Path, *pauses_s: float, tail_s: float = 60.0) -> Path:
    """A recording of the question after each of the pauses, then silence."""
    clip, rate_hz = soundfile.read(QUESTION, dtype="float32")
    clip = soxr.resample(clip, rate_hz, MICROPHONE_HZ)
    parts = [part for pause_s in pauses_s for part in (np.zeros(int(pause_s * MICROPHONE_HZ), np.float32), clip)]
    soundfile.write(path, np.concatenate([*parts, np.zeros(int(tail_s * MICROPHONE_HZ), np.float32)]), MICROPHONE_HZ)
    return path


@dataclass
class Visit:
    page: Page
    complaints: list[str] = field(default_factory=list)  # errors and warnings of the console, the policy's among them

    @property
    def state(self) -> Locator:
        return self.page.locator("#state")

    @property
    def trouble(self) -> Locator:
        return self.page.locator("#trouble")

    @property
    def replies(self) -> Locator:
        return self.page.locator("#words .assistant")

    async def heard_s(self) -> float:
        """Sound that has gone to the loudspeaker, as the audio thread counts it; silence is not counted."""
        return float((await self.page.locator("#heard").inner_text()).split()[0])

    async def number(self, label: str) -> float:
        """The newest value of a row of the numbers."""
        row = self.page.locator("#numbers div", has_text=label)
        return float(re.findall(r"[\d.]+", await row.locator("output").inner_text())[0])

    async def spoken_to_the_end(self, replies: int) -> None:
        """Returns when so many replies are there and all has been said."""
        await expect(self.replies).to_have_count(replies, timeout=WITHIN_MS)
        await expect(self.replies.last).to_have_attribute("aria-busy", "false", timeout=WITHIN_MS)

    async def picture(self, name: str) -> None:
        PICTURES.mkdir(parents=True, exist_ok=True)
        await self.page.screenshot(path=PICTURES / f"{name}.png")


@asynccontextmanager
async def browse(url: str, microphone: Path | None = None, flags: Sequence[str] = (ALLOWED,)) -> AsyncIterator[Visit]:
    """The page at url. Without a recording the microphone beeps; with %noloop one is not repeated."""
    if CHROMIUM is None:
        pytest.skip("no Chromium here: apt-get install chromium")
    sound = [] if microphone is None else [f"--use-file-for-fake-audio-capture={microphone}%noloop"]
    async with async_playwright() as playwright:
        browser = await playwright.chromium.launch(executable_path=CHROMIUM, args=[*QUIET, *flags, *sound])
        page = await browser.new_page(viewport={"width": 1180, "height": 800})
        visit = Visit(page)
        page.on("console", lambda said: visit.complaints.append(said.text) if said.type != "log" else None)
        page.on("pageerror", lambda error: visit.complaints.append(str(error)))
        await page.add_init_script(TOLD)
        await page.goto(url)
        try:
            yield visit
        finally:
            await browser.close()
