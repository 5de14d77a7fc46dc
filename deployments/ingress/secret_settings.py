"""Settings that nobody may read: each replica of the ingress takes them from its own environment.

In a manifest or in the arguments of a deployment they would be seen by whoever may look at those, and kept by Ray.
"""

import os
from collections.abc import Mapping

from deployments.ingress.config import IngressSizes

NAMES = ("database_url", "key_secret", "admin_key", "token_secret", "affinity_key", "signing_key")
PREFIX = "CHROMA_MODELS__INGRESS__"  # as in every other setting's variable


def variable(name: str) -> str:
    return f"{PREFIX}{name.upper()}"


def told(environment: Mapping[str, str] = os.environ) -> dict[str, str]:
    """Those that the environment holds, by name."""
    return {name: value for name in NAMES if (value := environment.get(variable(name)))}


def filled(ingress: IngressSizes, environment: Mapping[str, str] = os.environ) -> IngressSizes:
    """With the environment's word where the arguments have none. Raises pydantic's ValidationError."""
    missing = {name: value for name, value in told(environment).items() if getattr(ingress, name) is None}
    return IngressSizes.model_validate({**ingress.model_dump(), **missing}) if missing else ingress
