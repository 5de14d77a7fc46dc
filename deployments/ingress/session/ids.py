"""Names that the server gives."""

import secrets


def new_session_id() -> str:
    return f"sess_{secrets.token_hex(12)}"


def new_item_id() -> str:
    return f"item_{secrets.token_hex(12)}"
