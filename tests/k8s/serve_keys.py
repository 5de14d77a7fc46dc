"""serveConfigV2, held against Ray's own schema and against what that passes over in silence."""

from typing import Any

from pydantic import BaseModel, ValidationError
from ray.serve.config import AutoscalingConfig
from ray.serve.schema import (
    DeploymentSchema,
    HTTPOptionsSchema,
    LoggingConfig,
    RayActorOptionsSchema,
    ServeApplicationSchema,
    ServeDeploySchema,
)

from chroma_models.config import TurnLimits
from deployments.ingress import secret_settings
from deployments.render.serve_config import IMPORT_PATH
from deployments.settings import Models

Json = dict[str, Any]


def complaints(config: Any) -> list[str]:
    if not isinstance(config, dict):
        return ["serveConfigV2: no mapping"]
    found = _unknown(ServeDeploySchema, config, "serveConfigV2")
    for key, schema in (("http_options", HTTPOptionsSchema), ("logging_config", LoggingConfig)):
        found += _unknown(schema, config.get(key) or {}, key)
    for application in config.get("applications", []):
        found += _unknown(ServeApplicationSchema, application, "application")
        found += _args(application)
        for deployment in application.get("deployments", []):
            found += _deployment(deployment)
    try:
        ServeDeploySchema.model_validate(config)
    except ValidationError as error:
        found.append(f"serveConfigV2: {error.errors()[0]['msg']}")
    if config.get("proxy_location") != "Disabled":
        found.append("proxy_location: live streams do not pass Serve's proxy, and it would take the ingress' port")
    return found


def _deployment(told: Json) -> list[str]:
    name = told.get("name", "?")
    found = _unknown(DeploymentSchema, told, name)
    found += _unknown(RayActorOptionsSchema, told.get("ray_actor_options") or {}, f"{name}.ray_actor_options")
    scaling = told.get("autoscaling_config")
    if scaling is not None:
        found += _unknown(AutoscalingConfig, scaling, f"{name}.autoscaling_config")
        if scaling.get("min_replicas", 1) > scaling.get("max_replicas", 1):
            found.append(f"{name}: min_replicas is above max_replicas")
        if "num_replicas" in told:
            found.append(f"{name}: num_replicas beside autoscaling_config")
    user_config = told.get("user_config") or {}
    found += [f"{name}.user_config: unknown {key}" for key in user_config if key != "limits"]
    found += _unknown(TurnLimits, user_config.get("limits") or {}, f"{name}.user_config.limits")
    return found


def _args(application: Json) -> list[str]:
    found = []
    if application.get("import_path") != IMPORT_PATH:
        found.append(f"import_path: {application.get('import_path')} is not {IMPORT_PATH}")
    try:
        models = Models.model_validate(application.get("args") or {})
    except ValidationError as error:
        first = error.errors()[0]
        return [*found, f"args.{'.'.join(map(str, first['loc']))}: {first['msg']}"]
    found += [
        f"args.ingress.{name}: a secret in the open"
        for name in secret_settings.NAMES
        if getattr(models.ingress, name) is not None
    ]
    return found


def _unknown(schema: type[BaseModel], told: Json, at: str) -> list[str]:
    return [f"{at}: unknown {key}" for key in told if key not in schema.model_fields]
