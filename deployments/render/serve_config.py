"""serveConfigV2: the graph as Ray Serve's own config, without secrets."""

from typing import Any

from chroma_models.errors import InvalidRequest
from deployments.app import deployment_options
from deployments.cluster import APP
from deployments.ingress import secret_settings
from deployments.settings import Models, Settings, StageScale

IMPORT_PATH = "deployments.app:chroma"
GROUP_LABEL = "chroma.serve/group"  # on every node of a group; Ray's own labels are not for users
SIZED = ("reasoner", "backbone", "decoder", "codec", "torch")  # told in full: slots, memory, devices


def stages(settings: Settings) -> dict[str, StageScale]:
    """What is deployed, from the model's side to the client's."""
    names = ["reasoner", "decoder", "backbone", "codec", "ingress"]
    if settings.models.placement == "fused":
        names.remove("decoder")
    return {name: getattr(settings.scale, name) for name in names}


def serve_config(settings: Settings) -> dict[str, Any]:
    """As Serve's REST API takes it. Raises InvalidRequest where the settings hold a secret."""
    encoding = "JSON" if settings.models.logs.format == "json" else "TEXT"
    application = {
        "name": APP,
        "import_path": IMPORT_PATH,
        "route_prefix": None,  # Serve's proxies are off: each ingress replica has ports of its own
        "args": _args(settings.models),
        "deployments": [_deployment(name, size, settings) for name, size in stages(settings).items()],
    }
    return {
        "proxy_location": "Disabled",
        "logging_config": {"encoding": encoding, "log_level": "WARNING", "enable_access_log": False},
        "applications": [application],
    }


def _args(models: Models) -> dict[str, Any]:
    """Sizes in full, of the rest what differs from the defaults."""
    secret = [name for name in secret_settings.NAMES if getattr(models.ingress, name) is not None]
    if secret:
        raise InvalidRequest(
            f"models.ingress.{secret[0]} is a secret and would stand in the manifest: leave it out of file and "
            f"environment, and give pods {secret_settings.variable(secret[0])} from a Secret."
        )
    told = models.model_dump(mode="json", exclude_defaults=True)
    whole = models.model_dump(mode="json", include=set(SIZED))
    return {"checkpoint": models.checkpoint, "placement": models.placement, **told, **whole}


def _deployment(name: str, size: StageScale, settings: Settings) -> dict[str, Any]:
    options = deployment_options(size)
    if size.group is not None:
        options["ray_actor_options"]["label_selector"] = {GROUP_LABEL: size.group}
    user_config = settings.serving.model_dump(mode="json")
    return {"name": name.capitalize(), **options, "user_config": user_config}
