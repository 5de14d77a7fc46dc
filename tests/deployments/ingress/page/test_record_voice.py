"""A voice is recorded at the page with its owner's consent, answers at once, and is deleted there."""

from pathlib import Path

from playwright.async_api import expect

from tests.deployments.ingress.conftest import Service
from tests.deployments.ingress.page.browser import WITHIN_MS, Visit, browse, questions
from tests.deployments.ingress.page.test_talk import type_in, url_of
from tests.deployments.ingress.scripted import reply


async def record(visit: Visit, what: str, least_s: float) -> None:
    button = visit.page.locator(f"[data-take={what}]")
    await button.click()
    await visit.page.wait_for_function(
        "([what, least]) => parseFloat(document.querySelector(`[data-take=${what}] + span`).textContent) > least",
        arg=[what, least_s],
    )
    await button.click()
    await expect(button).to_have_text(f"Record {what}")


async def test_a_voice_is_recorded_with_consent_used_and_deleted(service: Service, tmp_path: Path) -> None:
    service.speaker.script = reply(12)
    async with browse(url_of(service), questions(tmp_path / "microphone.wav", 0.1, 0.1, 0.1, 0.1)) as visit:
        page = visit.page
        await page.get_by_role("button", name="Record…").click()
        await page.get_by_label("Its name").fill("Ada")
        await record(visit, "consent", 3.5)
        await page.get_by_label("It is my own voice").check()
        keep = page.get_by_role("button", name="Keep this voice")
        await keep.click()
        problem = page.locator("#recorder-trouble")
        await expect(problem).to_have_text("Record the sample first.")
        await record(visit, "sample", 1.0)
        await keep.click()
        await expect(problem).to_contain_text("3 to 30 s")
        await record(visit, "sample", 4.5)
        await expect(problem).to_have_text("")
        await visit.picture("page-record")
        await keep.click()
        await expect(page.locator("#recorder")).to_be_hidden(timeout=WITHIN_MS)
        await expect(page.get_by_label("Voice", exact=True).locator("option:checked")).to_have_text("Ada")
        await type_in(visit, "hello")
        await visit.spoken_to_the_end(1)
        await page.get_by_role("button", name="Delete").click()
        await expect(page.get_by_role("button", name="Delete")).to_be_hidden()
        await type_in(visit, "and now")
        await visit.spoken_to_the_end(2)
    refused = [said for said in visit.complaints if "400 (Bad Request)" not in said]  # the sample that was too short
    assert refused == []
    own, built_in = (turn.voice.transcript for turn in service.speaker.turns)
    assert own.startswith("The harbour was quiet")
    assert built_in.startswith("Hello, and thank you for calling")
    assert (await service.http.get("/v1/audio/voices")).json()["data"] == []
    assert len((await service.http.get("/v1/audio/voice_consents")).json()["data"]) >= 1


async def test_nothing_is_kept_without_the_owners_word(service: Service, tmp_path: Path) -> None:
    """The browser itself asks for the name and the tick."""
    async with browse(url_of(service), questions(tmp_path / "microphone.wav", 0.1, 0.1)) as visit:
        page = visit.page
        await page.get_by_role("button", name="Record…").click()
        await page.get_by_label("Its name").fill("Ada")
        await record(visit, "consent", 0.2)
        await record(visit, "sample", 0.2)
        await page.get_by_role("button", name="Keep this voice").click()
        assert await page.locator("#recorder input:invalid").count() == 1
        await page.keyboard.press("Escape")
        await expect(page.locator("#recorder")).to_be_hidden()
    assert service.speaker.clips == []
