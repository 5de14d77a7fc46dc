"""A person at the page talks, listens, interrupts, types. Browser and server are real; the model is not."""

from pathlib import Path

import pytest
from playwright.async_api import expect

from chroma_models.errors import Overloaded
from chroma_models.types import Text
from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.page.browser import REFUSED, WITHIN_MS, Visit, browse, questions
from tests.deployments.ingress.scripted import items, reply

LONG = 125  # frames: 10 s, so that the second question falls into the first reply
SHORT = 25  # 2 s


def url_of(service: Service) -> str:
    return f"http://127.0.0.1:{service.server.port}/"


async def type_in(visit: Visit, text: str) -> None:
    await visit.page.get_by_label("Type instead of talking").fill(text)
    await visit.page.keyboard.press("Enter")


def words_of(service: Service, turn: int, role: str) -> list[str]:
    messages = service.speaker.turns[turn].messages
    return [part.text for said in messages if said.role == role for part in said.parts if isinstance(part, Text)]


async def test_two_turns_by_voice_with_an_interruption(service: Service, tmp_path: Path) -> None:
    """The second question comes while the first is being answered; what was not heard is not in the conversation."""
    service.speaker.script = reply(LONG, pause_s=0.02)
    async with browse(url_of(service), questions(tmp_path / "microphone.wav", 1.0, 4.0)) as visit:
        await visit.page.get_by_role("button", name="Talk").click()
        await expect(visit.replies).to_have_count(1, timeout=WITHIN_MS)
        await expect(visit.replies.first).to_contain_text("interrupted", timeout=WITHIN_MS)
        heard_s = await visit.heard_s()
        service.speaker.script = reply(SHORT, pause_s=0.02)  # at once would round to an RTF of 0.00
        await visit.spoken_to_the_end(2)
        await visit.picture("page")
        assert 0.5 < heard_s < LONG * 0.08
        assert heard_s + 1.5 < await visit.heard_s() <= heard_s + SHORT * 0.08 + 0.3
        assert await visit.page.locator("#words .user").all_inner_texts() != []
        assert await visit.number("First audio after you stop") > await visit.number("First audio after commit")
        assert await visit.number("RTF") > 0
        assert "backbone 100 %" in await visit.page.locator("#legend").inner_text()
        shown = await visit.replies.first.locator("p").inner_text()
    assert visit.complaints == []
    (kept,) = words_of(service, 1, "assistant")
    assert 0 < len(kept.split()) < LONG / 2
    assert abs(len(kept.split()) - len(shown.split())) <= 4  # words of one list of frames more or less
    await service.speaker.all_closed()


async def test_by_keyboard_alone_and_with_visible_focus(service: Service) -> None:
    service.speaker.script = reply(LONG, pause_s=0.02)
    async with browse(url_of(service)) as visit:
        keys = visit.page.keyboard
        stops = []
        for _ in range(5):
            await keys.press("Tab")
            focus = visit.page.locator(":focus")
            stops.append(await focus.evaluate("(element) => element.id || element.textContent"))
            assert await focus.evaluate("(element) => getComputedStyle(element).outlineStyle") == "solid"
        assert stops == ["voice", "record-voice", "talk", "text", "Send"]
        await keys.press("Shift+Tab")
        await keys.type("Tell me about the sea.")
        await keys.press("Enter")
        await expect(visit.state).to_have_text("Speaking", timeout=WITHIN_MS)
        await expect(visit.replies.first.locator("p")).to_contain_text("sunny", timeout=WITHIN_MS)
        await keys.press("Escape")
        await expect(visit.replies.first).to_contain_text("interrupted")
        await expect(visit.state).to_have_text("Ready when you are")
        before_s = await visit.heard_s()
        service.speaker.script = reply(SHORT)
        await keys.type("And the boats?")
        await keys.press("Enter")
        await visit.spoken_to_the_end(2)
        assert await visit.heard_s() > before_s + 1.5
    assert visit.complaints == []
    assert words_of(service, 1, "user") == ["Tell me about the sea.", "And the boats?"]
    (kept,) = words_of(service, 1, "assistant")
    assert 0 < len(kept.split()) < LONG / 2


@pytest.mark.parametrize(("name", "scheme", "width"), [("dark", "dark", 1180), ("phone", "light", 390)])
async def test_looks(service: Service, name: str, scheme: str, width: int) -> None:
    """Nothing hangs over the edge, and the words stand out from the paper in either scheme."""
    service.speaker.script = reply(SHORT)
    async with browse(url_of(service)) as visit:
        await visit.page.emulate_media(color_scheme=scheme)
        await visit.page.set_viewport_size({"width": width, "height": 844})
        for text in ("What is the weather like?", "Tell me more, and take your time about it; I am listening."):
            await type_in(visit, text)
            await expect(visit.replies.last).to_have_attribute("aria-busy", "false", timeout=WITHIN_MS)
        await visit.spoken_to_the_end(2)
        await visit.picture(f"page-{name}")
        assert await visit.page.evaluate("document.documentElement.scrollWidth") <= width
        contrast = await visit.page.evaluate(
            """() => {
              const light = (color) => color.match(/[\\d.]+/g).slice(0, 3)
                .map((c) => c / 255).map((c) => (c <= 0.04 ? c / 12.92 : ((c + 0.055) / 1.055) ** 2.4))
                .reduce((sum, c, i) => sum + c * [0.2126, 0.7152, 0.0722][i], 0.05);
              const style = getComputedStyle(document.body);
              const pair = [light(style.color), light(style.backgroundColor)];
              return Math.max(...pair) / Math.min(...pair);
            }"""
        )
        assert contrast > 7
    assert visit.complaints == []


async def test_the_page_does_not_hear_itself(service: Service) -> None:
    """The microphone is asked for with echo cancellation and noise suppression, and is closed when it is muted."""
    async with browse(url_of(service)) as visit:
        await visit.page.evaluate(
            """() => {
              const open = navigator.mediaDevices.getUserMedia.bind(navigator.mediaDevices);
              navigator.mediaDevices.getUserMedia = async (asked) => {
                window.asked = asked.audio;
                return (window.stream = await open(asked));
              };
            }"""
        )
        await visit.page.get_by_role("button", name="Talk").click()
        await visit.page.get_by_role("button", name="Mute").click()
        asked = await visit.page.evaluate("window.asked")
        assert asked["echoCancellation"] is asked["noiseSuppression"] is True
        assert await visit.page.evaluate("window.stream.getTracks().map((track) => track.readyState)") == ["ended"]
    assert visit.complaints == []


async def test_a_refused_microphone_is_explained_and_typing_still_works(service: Service) -> None:
    service.speaker.script = reply(SHORT)
    async with browse(url_of(service), flags=[REFUSED]) as visit:
        await visit.page.get_by_role("button", name="Talk").click()
        await expect(visit.trouble).to_contain_text("The microphone is blocked. Allow it")
        await expect(visit.page.get_by_role("button", name="Talk")).to_be_visible()
        await visit.page.wait_for_timeout(500)  # by now the session is set up, which is no reason to forget
        await expect(visit.trouble).to_be_visible()
        await type_in(visit, "hello")
        await visit.spoken_to_the_end(1)
        assert await visit.heard_s() > 1.5


async def test_a_lost_server_is_found_again_and_told_what_was_said(start: Start, tmp_path: Path) -> None:
    """Words typed and words spoken alike; the question that nobody answered is answered."""
    first = await start()
    first.speaker.script = reply(SHORT)
    async with browse(url_of(first), questions(tmp_path / "microphone.wav", 1.0)) as visit:
        await type_in(visit, "Remember the number seven.")
        await visit.spoken_to_the_end(1)
        await visit.page.get_by_role("button", name="Talk").click()
        await visit.spoken_to_the_end(2)
        port = first.server.port
        await first.server.drain()
        await expect(visit.trouble).to_contain_text("The server is being restarted. Trying again")
        await type_in(visit, "Which number was it?")
        second = await start(http_port=port)
        await visit.spoken_to_the_end(3)
        await expect(visit.trouble).to_be_hidden()
    (turn,) = second.speaker.turns
    assert [message.role for message in turn.messages] == ["user", "assistant", "user", "assistant", "user"]
    assert words_of(second, 0, "user") == ["Remember the number seven.", "Which number was it?"]
    assert words_of(second, 0, "assistant")[0].startswith("It is sunny")
    spoken = turn.messages[2].parts[0]
    assert 1.0 < len(spoken.pcm) / 2 / 16_000 < 5.0  # type: ignore[union-attr]


async def test_a_failed_turn_says_what_to_do_and_the_next_one_works(service: Service) -> None:
    service.speaker.by_word["busy"] = items(Overloaded("All slots are taken; please try again.", 1.0))
    service.speaker.script = reply(SHORT)
    async with browse(url_of(service)) as visit:
        await type_in(visit, "busy now")
        await expect(visit.trouble).to_contain_text("All slots are taken; please try again. Please ask again.")
        await type_in(visit, "hello")
        await visit.spoken_to_the_end(1)
        await expect(visit.trouble).to_be_hidden()
    assert visit.complaints == []


async def test_an_api_key_is_asked_for_where_the_server_wants_one(start: Start) -> None:
    """It opens the conversation by a client secret, and is gone with the tab."""
    service = await start(auth=True)
    key = await service.key()
    service.speaker.script = reply(SHORT)
    async with browse(url_of(service)) as visit:
        field = visit.page.get_by_label("This server asks for an API key")
        await field.fill("wrong")
        await visit.page.keyboard.press("Enter")
        await expect(visit.trouble).to_contain_text("The API key is not known here")
        await expect(visit.state).to_have_text("Not connected")
        await field.fill(key)
        await visit.page.keyboard.press("Enter")
        await expect(field).to_be_hidden()
        await expect(visit.trouble).to_be_hidden()
        await type_in(visit, "hello")
        await visit.spoken_to_the_end(1)
        assert await visit.page.evaluate("localStorage.length") == 0
        assert "ck_live" not in await visit.page.evaluate("document.cookie")


@pytest.mark.parametrize("rate_hz", [16_000, 44_100, 48_000, 96_000])
async def test_the_microphones_rate_becomes_ours_without_aliases(service: Service, rate_hz: int) -> None:
    """A tone that both rates can carry keeps its height; one that ours cannot is gone."""
    async with browse(url_of(service)) as visit:
        heights = await visit.page.evaluate(
            """async (rate) => {
              const { Resampler } = await import("/page/resampler.js");
              const height = (hz) => {
                const resampler = new Resampler(rate, 24000);
                const out = [];
                for (let block = 0; block * 128 < rate / 4; block++)
                  out.push(...resampler.push(Float32Array.from({ length: 128 },
                    (_, i) => Math.sin((2 * Math.PI * hz * (block * 128 + i)) / rate))));
                const steady = out.slice(1000);
                return [out.length / 24000, Math.sqrt((2 * steady.reduce((sum, x) => sum + x * x, 0)) / steady.length)];
              };
              return [height(1000), height(6000), height(15000)];
            }""",
            rate_hz,
        )
    (lasts_s, low), (_, middle), (_, high) = heights
    assert lasts_s == pytest.approx(0.25, abs=0.01)
    assert low == pytest.approx(1, abs=0.01)
    assert middle == pytest.approx(1, abs=0.02)
    assert rate_hz < 30_000 or high < 0.003
