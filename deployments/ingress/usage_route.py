"""GET /v1/usage: what the caller's tenant used, by day and key."""

import time

from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.types import Receive, Scope, Send

from chroma_models.errors import InvalidRequest
from deployments.ingress.services import Services
from deployments.ingress.store.usage_store import DAY_S, window_begin
from deployments.ingress.tenants import day, told_day, told_list

DAYS = 30  # where the request names none
MOST_DAYS = 366


class UsageRoute:
    """Query: start_day (the first), end_day (not among them), as 2026-11-25 in UTC."""

    def __init__(self, services: Services) -> None:
        self._services = services

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        asked = Request(scope).query_params
        if unknown := set(asked) - {"start_day", "end_day"}:
            raise InvalidRequest(f"There is no parameter '{min(unknown)[:64]}'; use start_day and end_day.")
        end = day(asked["end_day"], "end_day") if "end_day" in asked else window_begin(time.time(), DAY_S) + DAY_S
        start = day(asked["start_day"], "start_day") if "start_day" in asked else end - DAYS * DAY_S
        if not 0 < end - start <= MOST_DAYS * DAY_S:
            raise InvalidRequest(f"'end_day' comes after 'start_day', by at most {MOST_DAYS} days.", "end_day")
        rows = await self._services.usage.by_day(scope["caller"].tenant, start, end)
        data = [
            {
                "object": "usage.day",
                "day": told_day(row.begins_at),
                "key_id": row.key_id,
                "responses": row.responses,
                "completed": row.completed,
                "heard_s": round(row.heard_s, 3),
                "spoken_s": round(row.spoken_s, 3),
                "prompt_tokens": row.prompt_tokens,
                "text_tokens": row.text_tokens,
            }
            for row in rows
        ]
        await JSONResponse(told_list(data))(scope, receive, send)
