"""What a line of the log is about: set where a request is let in, and found by every line written for it."""

import logging
from contextvars import Context, ContextVar

from deployments.ingress.reply_span import PARENT

REQUEST: ContextVar[str | None] = ContextVar("request_id", default=None)
TENANT: ContextVar[str | None] = ContextVar("tenant", default=None)


class About(logging.Filter):
    """Adds request_id and tenant to every record; a handler's filter, so that other libraries' lines have them too."""

    def filter(self, record: logging.LogRecord) -> bool:
        record.request_id, record.tenant = REQUEST.get(), TENANT.get()
        return True


def bare_context() -> Context:
    """An empty context but for what log lines and traces say: for tasks that shall not inherit a request of Serve."""
    context = Context()
    context.run(REQUEST.set, REQUEST.get())
    context.run(TENANT.set, TENANT.get())
    context.run(PARENT.set, PARENT.get())
    return context
