"""The page's files: exactly those, with headers that keep them to themselves, and small enough to read."""

import re
from pathlib import Path

import pytest

from deployments.ingress.web_page import FOLDER
from tests.deployments.ingress.conftest import Service

FILES = sorted(path.name for path in FOLDER.iterdir() if path.name != "index.html")
SOURCES = [path for path in FOLDER.iterdir() if path.suffix in (".html", ".css", ".js")]


async def test_the_page_lets_nothing_in_but_its_own_files(direct: Service) -> None:
    answer = await direct.http.get("/")
    assert answer.status_code == 200
    assert answer.headers["content-type"] == "text/html; charset=utf-8"
    policy = dict(part.split(" ", 1) for part in answer.headers["content-security-policy"].split("; "))
    assert policy["default-src"] == policy["script-src"] == policy["style-src"] == "'self'"
    assert policy["frame-ancestors"] == policy["object-src"] == "'none'"
    assert "unsafe" not in answer.headers["content-security-policy"]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["permissions-policy"].startswith("microphone=(self)")


@pytest.mark.parametrize("name", FILES)
async def test_every_file_is_served_with_its_type_and_asked_again_by_its_tag(direct: Service, name: str) -> None:
    answer = await direct.http.get(f"/page/{name}")
    assert answer.content == (FOLDER / name).read_bytes()
    kinds = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
    assert answer.headers["content-type"].split(";")[0] == kinds[Path(name).suffix]
    assert answer.headers["x-content-type-options"] == "nosniff"
    assert answer.headers["cache-control"] == "no-cache"
    again = await direct.http.get(f"/page/{name}", headers={"if-none-match": answer.headers["etag"]})
    assert (again.status_code, again.content) == (304, b"")
    stale = await direct.http.get(f"/page/{name}", headers={"if-none-match": '"older"'})
    assert stale.status_code == 200


@pytest.mark.parametrize("path", ["/page/", "/page/index.html", "/page/..%2fapp.py", "/page/../app.py", "/page/x.js"])
async def test_nothing_else_is_there(direct: Service, path: str) -> None:
    answer = await direct.http.get(path)
    assert answer.status_code == 404
    assert answer.json()["error"]["code"] == "unknown_url"


async def test_the_page_is_only_read(direct: Service) -> None:
    assert (await direct.http.post("/")).status_code == 405


def test_the_page_is_plain_and_small() -> None:
    """No build step, nothing from elsewhere, nothing inline that the policy would refuse."""
    text = {path.name: path.read_text("utf-8") for path in SOURCES}
    assert sum(len(lines.splitlines()) for lines in text.values()) < 800
    assert max(len(line) for name in text if name.endswith(".js") for line in text[name].splitlines()) <= 120
    assert not re.search(r"<style|\sstyle=|\son\w+=|<script(?![^>]* src=)", text["index.html"])
    links = re.findall(r"https?://[^\"'\s]+", "".join(text.values()))
    assert set(links) == {"http://www.w3.org/2000/svg"}  # a name, never fetched
