"""The graph, from the settings: Ingress(Codec(Backbone(Reasoner, Decoder)))."""

import secrets
from dataclasses import fields
from typing import Any

from ray import serve
from ray.serve import Application, Deployment
from ray.serve.config import RequestRouterConfig

from chroma_models.errors import InvalidRequest
from deployments.autoscaling.slack import Goals
from deployments.backbone import Backbone
from deployments.codec import Codec
from deployments.decoder import Decoder
from deployments.ingress import secret_settings
from deployments.ingress.provenance.keys import draw
from deployments.ingress.store.address import database_url, is_sqlite
from deployments.ingress_stage import Ingress
from deployments.reasoner import Reasoner
from deployments.settings import Autoscaling, Models, Settings, StageScale

AFFINITY_ROUTER = "ray.serve.experimental.consistent_hash_router:ConsistentHashRouter"
SLACK_POLICY = "deployments.autoscaling.slack:SlackPolicy"


def build(settings: Settings) -> Application:
    """The whole application. `placement: fused` has no Decoder deployment."""
    models, scale = with_secrets(settings.models), settings.scale
    user_config = settings.serving.model_dump(mode="json")

    def stage(cls: type, size: StageScale, **more: Any) -> Deployment:
        return serve.deployment(cls, name=cls.__name__, **deployment_options(size), **more)

    affinity = RequestRouterConfig(request_router_class=AFFINITY_ROUTER)
    reasoner = stage(Reasoner, scale.reasoner, user_config=user_config, request_router_config=affinity).bind(models)
    upstream = [reasoner]
    if models.placement == "split":
        upstream.append(stage(Decoder, scale.decoder, user_config=user_config).bind(models))
    backbone = stage(Backbone, scale.backbone, user_config=user_config).bind(models, *upstream)
    codec = stage(Codec, scale.codec, user_config=user_config).bind(models, backbone)
    return stage(Ingress, scale.ingress, user_config=user_config).bind(models, codec)


def chroma(args: Models) -> Application:
    """The application of a Serve config: its args are `models`, its deployments' overrides say the rest.

    Secrets are not among the args: each ingress replica finds them in its own environment.
    """
    return build(Settings.load().model_copy(update={"models": args}))


def check_database(settings: Settings, nodes: int) -> None:
    """nodes: machines of the cluster. Raises InvalidRequest where replicas would have databases of their own."""
    ingress = settings.scale.ingress
    most = ingress.autoscaling.max_replicas if ingress.autoscaling else ingress.replicas
    if nodes > 1 and most > 1 and is_sqlite(database_url(settings.models.ingress.database_url)):
        raise InvalidRequest(
            f"SQLite is for one machine, and {most} ingress replicas may run on {nodes}: set "
            "models.ingress.database_url to postgresql://..., or scale.ingress.replicas to 1."
        )


def with_secrets(models: Models) -> Models:
    """Secrets nobody chose are drawn here, once: every replica of this deployment then has the same."""
    chosen = {name for name in secret_settings.NAMES if getattr(models.ingress, name)} | set(secret_settings.told())
    drawn = {name: secrets.token_hex() for name in ("affinity_key", "token_secret") if name not in chosen}
    if "signing_key" not in chosen and models.ingress.signing_key_file is None:
        drawn["signing_key"] = draw()
    return models.model_copy(update={"ingress": models.ingress.model_copy(update=drawn)})


def deployment_options(size: StageScale) -> dict[str, Any]:
    """What scale says, in the words of Serve's config. Groups are of Kubernetes: see render/serve_config.py."""
    options: dict[str, Any] = {
        "max_ongoing_requests": size.max_ongoing_requests,
        "max_queued_requests": size.max_ongoing_requests,  # per caller; more would wait for longer than anybody does
        "ray_actor_options": {"num_cpus": size.num_cpus, "num_gpus": size.num_gpus},
        "graceful_shutdown_timeout_s": size.graceful_shutdown_timeout_s,
        "graceful_shutdown_wait_loop_s": 0.5,
        "health_check_period_s": size.health_check_period_s,
        "health_check_timeout_s": size.health_check_timeout_s,
    }
    if size.max_replicas_per_node is not None:
        options["max_replicas_per_node"] = size.max_replicas_per_node
    if size.autoscaling is None:
        return {**options, "num_replicas": size.replicas}
    return {**options, "autoscaling_config": autoscaling_config(size.autoscaling)}


def autoscaling_config(told: Autoscaling) -> dict[str, Any]:
    """In the words of Serve's config. Scaling down stops a replica as an update does: turns end, or go on elsewhere."""
    config: dict[str, Any] = {
        "min_replicas": told.min_replicas,
        "max_replicas": told.max_replicas,
        "look_back_period_s": told.look_back_s,
        "upscale_delay_s": told.upscale_delay_s,
        "downscale_delay_s": told.downscale_delay_s,
    }
    if told.by == "requests":
        return {**config, "target_ongoing_requests": told.target_ongoing_requests}
    goals = {goal.name: getattr(told, goal.name) for goal in fields(Goals)}
    return {**config, "policy": {"policy_function": SLACK_POLICY, "policy_kwargs": goals}}


def fit_to_gpu(settings: Settings) -> Settings:
    """Where the settings ask for no GPU at all and this machine has one, share it between the stages.

    The Reasoner's KV cache is sized in bytes (models.reasoner.kv_cache_bytes), so the shares only place replicas.
    """
    import torch

    stages = {"codec": 0.1, "backbone": 0.3, "decoder": 0.1, "reasoner": 0.5}
    asked = any(getattr(settings.scale, name).num_gpus for name in stages)
    if asked or not torch.cuda.is_available():
        return settings
    shares = {name: getattr(settings.scale, name).model_copy(update={"num_gpus": g}) for name, g in stages.items()}
    return settings.model_copy(update={"scale": settings.scale.model_copy(update=shares)})
