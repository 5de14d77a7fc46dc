"""Nothing of what was said is kept once it is over, but where a tenant, or a server without tenants, says so."""

import gc
from typing import Any

import pytest

from tests.deployments.ingress.conftest import Service, Start
from tests.deployments.ingress.realtime.client import Client
from tests.deployments.ingress.scripted import until

FIRST = {"role": "user", "content": "an unmistakable question"}
SPEAK = {"model": "chroma", "modalities": ["text", "audio"], "audio": {"voice": "default", "format": "wav"}}


async def said_again(service: Service, key: str = "unused") -> int:
    """The status of an answer to a conversation that names the reply before by its audio id."""
    headers = {"authorization": f"Bearer {key}"}

    async def ask(*messages: dict[str, Any]) -> Any:
        body = {**SPEAK, "messages": list(messages)}
        return await service.http.post("/v1/chat/completions", json=body, headers=headers)

    audio_id = (await ask(FIRST)).json()["choices"][0]["message"]["audio"]["id"]
    return (await ask(FIRST, {"role": "assistant", "audio": {"id": audio_id}}, FIRST)).status_code


async def test_a_reply_is_forgotten_at_once_unless_its_tenant_has_a_retention(start: Start) -> None:
    service = await start(auth=True, retention_s=3600)  # for those without tenants alone
    assert await said_again(service, await service.key("forgetful")) == 404
    assert len(service.app.services.replies) == 0
    assert await said_again(service, await service.key("keeper", retention_s=60)) == 200
    assert len(service.app.services.replies) == 2


async def test_without_tenants_the_servers_setting_counts_and_is_off(start: Start) -> None:
    assert await said_again(await start()) == 404
    assert await said_again(await start(retention_s=60)) == 200


@pytest.mark.parametrize("protocol", ["chat", "realtime"])
async def test_no_object_holds_what_was_said_when_it_is_over(protocol: str, start: Start) -> None:
    """Looked for in the whole process: messages of turns, and whatever else has the question in it."""
    service = await start()
    question = f"a question that {protocol} alone is asked"
    if protocol == "chat":
        await service.ask(messages=[{"role": "user", "content": question}])
    else:
        client = await Client.connect(service)
        await client.answered(question)
        client.told.clear()
        await client.close()

    def holders() -> list[object]:
        gc.collect()
        ours = [one for one in gc.get_objects() if str(type(one).__module__).startswith(("deployments", "chroma_mod"))]
        return [one for one in ours if question in repr(one)]

    assert holders()  # the test's own stage, which remembers its turns
    service.speaker.turns.clear()
    await until(lambda: not holders())
