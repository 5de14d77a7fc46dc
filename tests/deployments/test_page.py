"""The page before the real graph, with the tiny checkpoint."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from tests.deployments.graph import Graph
from tests.deployments.ingress.page.browser import WITHIN_MS, browse, questions

pytestmark = pytest.mark.serve


async def test_a_spoken_question_is_answered_aloud(graph: Graph, tmp_path: Path) -> None:
    """The weights are random, so a reply may be long: it is interrupted, and that frees every stage."""
    async with browse(graph.url, questions(tmp_path / "microphone.wav", 1.0)) as visit:
        await visit.page.get_by_role("button", name="Talk").click()
        await expect(visit.state).to_have_text("Speaking", timeout=WITHIN_MS)
        await visit.page.wait_for_function("() => parseFloat(document.querySelector('#heard').value) > 0.5")
        assert await visit.number("First audio after commit") > 0
        if await visit.page.locator("#interrupt").is_enabled():
            await visit.page.keyboard.press("Escape")
        await visit.spoken_to_the_end(1)
        await visit.picture("page-graph")
    assert visit.complaints == []
    await graph.idle()
