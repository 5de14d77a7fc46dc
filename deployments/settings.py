"""One frozen tree of what an operator chooses; a file or environment away from its defaults.

`models` becomes the arguments of the app (a change is a redeploy), `scale` the deployments' overrides, `serving` their
user_config (applied by reconfigure, without a restart), `kubernetes` the pods of a manifest. What the checkpoint
dictates is read from the checkpoint.
"""

import os
from pathlib import Path
from typing import Any, Literal

import yaml
from pydantic import Field, HttpUrl, NonNegativeFloat, PositiveFloat, PositiveInt, ValidationError, model_validator
from pydantic_settings import BaseSettings, PydanticBaseSettingsSource, SettingsConfigDict, SettingsError

from chroma_models.config import (
    BackboneSizes,
    CodecSizes,
    Config,
    DecoderConfig,
    ReasonerSizes,
    TorchConfig,
    TurnLimits,
)
from chroma_models.errors import InvalidRequest
from deployments.ingress.config import IngressSizes
from deployments.pods import Kubernetes

PREFIX = "CHROMA_"  # of variables of the environment


class Logs(Config):
    format: Literal["text", "json"] = "text"  # json: a line an event, with stage, request_id and tenant
    level: Literal["debug", "info", "warning", "error"] = "warning"  # of our own lines; info has one for each request


class Traces(Config):
    endpoint: HttpUrl | None = None  # an OpenTelemetry collector's, http://HOST:4318 as a rule; None: no traces
    share: float = Field(1.0, gt=0, le=1)  # of replies that are traced


class Models(Config):
    """Which weights, in which engines. On every replica of every stage the same."""

    checkpoint: str = "FlashLabs/Chroma-4B"  # a folder, or a Hugging Face id
    torch: TorchConfig = TorchConfig()
    reasoner: ReasonerSizes = ReasonerSizes()
    backbone: BackboneSizes = BackboneSizes()
    decoder: DecoderConfig = DecoderConfig()
    codec: CodecSizes = CodecSizes()
    placement: Literal["split", "fused"] = "split"  # the Decoder: its own deployment, or inside the Backbone
    ingress: IngressSizes = IngressSizes()
    logs: Logs = Logs()
    traces: Traces = Traces()


class Autoscaling(Config):
    """Between so many replicas: by what listeners feel (autoscaling/slack.py), or by requests under way alone."""

    min_replicas: PositiveInt = 1
    max_replicas: PositiveInt = 1
    by: Literal["slack", "requests"] = "slack"
    target_use: float = Field(0.7, gt=0, le=1)  # of slots and of real time; the rest is for peaks and lost replicas
    slack_use: float = Field(0.55, gt=0, le=1)  # what a replica may go for: below target_use, or it comes back at once
    min_lead_s: NonNegativeFloat = 1.0  # of the listener with the least; thinner, and a busy stage grows
    max_admit_wait_s: NonNegativeFloat = 0.5  # for a slot; longer, likewise
    cold_start_s: NonNegativeFloat = 60.0  # until a new replica works; a rise is met so long before
    target_ongoing_requests: PositiveFloat = 8.0  # of each replica, where by requests
    look_back_s: float = Field(15.0, gt=10)  # what replicas tell is a mean over so long
    upscale_delay_s: NonNegativeFloat = 0.0  # of a wish to grow, until it is believed
    downscale_delay_s: NonNegativeFloat = 300.0  # of a wish to shrink

    @model_validator(mode="after")
    def _in_order(self) -> "Autoscaling":
        if self.min_replicas > self.max_replicas:
            raise ValueError(f"min_replicas {self.min_replicas} is above max_replicas {self.max_replicas}")
        if self.slack_use >= self.target_use:
            raise ValueError(f"slack_use {self.slack_use:g} is not below target_use {self.target_use:g}")
        return self


class StageScale(Config):
    """How many replicas of a stage, and what each takes."""

    replicas: PositiveInt = 1
    autoscaling: Autoscaling | None = None  # instead of a fixed number of replicas
    num_cpus: NonNegativeFloat = 0.0  # what Ray's scheduler counts; 0 places anywhere
    num_gpus: NonNegativeFloat = 0.0  # a share of one GPU
    max_ongoing_requests: PositiveInt = 64  # above the slots of the stage: the engine refuses, typed, before Serve does
    graceful_shutdown_timeout_s: NonNegativeFloat = 75.0  # a turn of the longest reply ends in peace
    health_check_period_s: PositiveFloat = 5.0
    health_check_timeout_s: PositiveFloat = 30.0
    group: str | None = None  # whose pods may host it, of kubernetes.groups; None: anything does
    max_replicas_per_node: PositiveInt | None = Field(None, le=100)  # 1: a lost node takes one replica along


class Scale(Config):
    ingress: StageScale = StageScale(max_ongoing_requests=1000)
    codec: StageScale = StageScale()
    backbone: StageScale = StageScale()
    decoder: StageScale = StageScale()
    reasoner: StageScale = StageScale()


class Serving(Config):
    limits: TurnLimits = TurnLimits()


class Settings(BaseSettings):
    """The whole tree. Environment: CHROMA_MODELS__CHECKPOINT, CHROMA_SERVING__LIMITS__MAX_LEAD_S and so on."""

    model_config = SettingsConfigDict(
        frozen=True, extra="forbid", env_prefix=PREFIX, env_nested_delimiter="__", env_ignore_empty=True
    )

    models: Models = Models()
    scale: Scale = Scale()
    serving: Serving = Serving()
    kubernetes: Kubernetes = Kubernetes()

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,
        file_secret_settings: PydanticBaseSettingsSource,
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """The command line (given here as init) beats the environment, which beats the file."""
        return env_settings, init_settings

    @classmethod
    def load(cls, path: Path | None = None, **overrides: Any) -> "Settings":
        """Defaults, the YAML file, the environment, overrides; later ones win. Raises InvalidRequest with reasons."""
        tree: dict[str, Any] = {}
        if path is not None:
            try:
                tree = yaml.safe_load(path.read_text(encoding="utf-8")) or {}
            except (OSError, ValueError, RecursionError, yaml.YAMLError) as error:
                raise InvalidRequest(f"Settings file {path} cannot be read: {' '.join(str(error).split())}.") from error
            if not isinstance(tree, dict):
                raise InvalidRequest(f"Settings file {path} holds no mapping.")
        cls._check_names(tree)
        try:
            loaded = cls(**tree)
            return cls.model_validate(_merge(loaded.model_dump(), overrides)) if overrides else loaded
        except ValidationError as error:
            reasons = "; ".join(f"{'.'.join(map(str, e['loc']))}: {e['msg']}" for e in error.errors())
            raise InvalidRequest(f"Settings are not valid: {reasons}.") from error
        except SettingsError as error:
            raise InvalidRequest(
                f"A variable of the environment stands for a group of settings and is no JSON object ({error}); name "
                "one setting, as CHROMA_MODELS__CHECKPOINT does."
            ) from None

    @classmethod
    def _check_names(cls, tree: dict[str, Any]) -> None:
        """The top of the tree, and the environment, of which pydantic passes over what it does not know.

        Raises InvalidRequest.
        """
        known = ", ".join(cls.model_fields)
        for key in tree:
            if key not in cls.model_fields:
                raise InvalidRequest(f"Settings are not valid: there is no {str(key)[:64]!r}, only {known}.")
        for name in os.environ:
            word = name.upper().removeprefix(PREFIX)
            if word == name.upper() or word.partition("__")[0].lower() in cls.model_fields:
                continue
            if "__" in word or word.partition("_")[0].lower() in cls.model_fields:
                raise InvalidRequest(
                    f"The environment's {name[:64]} is no setting: after {PREFIX} comes one of {known}, then two "
                    "underscores before each further name."
                )


def _merge(base: dict[str, Any], over: dict[str, Any]) -> dict[str, Any]:
    both = {
        k: _merge(base[k], v) if isinstance(v, dict) and isinstance(base.get(k), dict) else v for k, v in over.items()
    }
    return {**base, **both}
