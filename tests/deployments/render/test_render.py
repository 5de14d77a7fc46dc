"""Manifests are printed from the settings, and refused in one sentence where pods could not run them."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from typer.testing import CliRunner

from chroma_models.errors import InvalidRequest
from deployments.app import chroma
from deployments.cli.main import app
from deployments.ingress import secret_settings
from deployments.render.manifests import manifests, write
from deployments.render.ray_service import ray_service
from deployments.settings import Models, Settings

GROUP = {"min_pods": 2, "max_pods": 2, "gpus": 1, "cpus": 8, "memory_gib": 100}
STAGES = ("reasoner", "backbone", "decoder", "codec")


def settings(
    models: dict[str, Any] | None = None, scale: dict[str, Any] | None = None, kubernetes: dict[str, Any] | None = None
) -> Settings:
    """Two pods of one GPU each, one replica of each stage, a quarter of a GPU for each but the ingress."""
    stages = {stage: {"num_gpus": 0.25, "group": "gpu", **(scale or {}).get(stage, {})} for stage in STAGES}
    at_the_door = {"num_cpus": 1, **(scale or {}).get("ingress", {})}
    ingress = {"host": "0.0.0.0", **(models or {}).pop("ingress", {})}
    return Settings.model_validate(
        {
            "models": {"ingress": ingress, **(models or {})},
            "scale": {**stages, "ingress": at_the_door},
            "kubernetes": {"groups": {"gpu": GROUP}, **(kubernetes or {})},
        }
    )


def config(told: Settings) -> dict[str, Any]:
    found: dict[str, Any] = yaml.safe_load(ray_service(told)["spec"]["serveConfigV2"])
    return found["applications"][0]


REFUSED = {
    "no pods": (settings(kubernetes={"groups": {}}), "kubernetes.groups names no pods"),
    "no such group": (settings(scale={"codec": {"group": "tpu"}}), "scale.codec.group is tpu"),
    "a GPU too much": (settings(scale={"backbone": {"num_gpus": 2}}), "can host backbone"),
    "no GPU": (settings(kubernetes={"groups": {"gpu": {**GROUP, "gpus": 0}}}), "can host reasoner"),
    "CPUs": (settings(scale={"codec": {"num_cpus": 9}}), "can host codec"),
    "onto the head": (settings(scale={"ingress": {"num_cpus": 0}}), "may place it on the head"),
    "one GPU and a bit": (settings(scale={"codec": {"num_gpus": 1.5}}), "a share of one GPU, or whole ones"),
    "shares": (
        settings(scale={stage: {"num_gpus": 0.3, "replicas": 2} for stage in STAGES}),
        "the shares of a GPU do not add up",
    ),
    "shares when grown": (
        settings(scale={"codec": {"autoscaling": {"min_replicas": 1, "max_replicas": 9}}}),
        r"\(max_pods\)",
    ),
    "more replicas than pods": (settings(scale={"ingress": {"replicas": 3, "max_replicas_per_node": 1}}), "2 of 3"),
    "which group": (
        settings(scale={"codec": {"group": None}}, kubernetes={"groups": {"gpu": GROUP, "more": GROUP}}),
        "names no group of gpu, more",
    ),
    "KV cache": (settings({"reasoner": {"kv_cache_bytes": 90 << 30}}), "kv_cache_bytes is 90 GiB"),
    "loopback": (settings({"ingress": {"host": "127.0.0.1"}}), "write 0.0.0.0"),
    "no keys": (settings({"ingress": {"auth": False}}), "models.ingress.auth is false"),
    "a certificate": (settings({"ingress": {"tls_cert_file": "/a.pem"}}), "plain HTTP"),
    "weights elsewhere": (settings({"checkpoint": "/data/chroma"}), "outside the volume"),
    "nowhere to make weights": (settings(kubernetes={"random_weights": "tiny"}), "made in the volume"),
    "latest": (settings(kubernetes={"image": "chroma:latest"}), "name a version"),
    "a short drain": (settings(scale={"ingress": {"graceful_shutdown_timeout_s": 30}}), "live streams would be cut"),
    "MPS without a GPU": (
        settings(kubernetes={"groups": {"gpu": GROUP, "cpu": {"mps": True}}}),
        "kubernetes.groups.cpu.mps",
    ),
}


@pytest.mark.parametrize("told", REFUSED)
def test_what_pods_could_not_run_is_one_sentence(told: str) -> None:
    broken, words = REFUSED[told]
    with pytest.raises(InvalidRequest, match=words) as refusal:
        manifests(broken)
    assert "\n" not in str(refusal.value)
    assert str(refusal.value).endswith(".")


@pytest.mark.parametrize("name", secret_settings.NAMES)
def test_a_secret_is_refused_in_a_manifest(name: str) -> None:
    secret = "postgresql://me:hunter2@host/db" if name == "database_url" else "hunter2" * 8
    with pytest.raises(InvalidRequest, match=f"models.ingress.{name} is a secret") as refusal:
        manifests(settings({"ingress": {name: secret}}))
    assert "hunter2" not in str(refusal.value)


def test_sizes_and_shares_are_those_of_the_settings() -> None:
    told = settings(
        {"reasoner": {"kv_cache_bytes": 7 << 30}, "backbone": {"slots": 9, "reserved_slots": 3}},
        {"backbone": {"num_gpus": 0.4, "replicas": 2, "max_ongoing_requests": 77}},
    )
    found = config(told)
    assert found["args"]["reasoner"]["kv_cache_bytes"] == 7 << 30
    assert found["args"]["backbone"]["reserved_slots"] == 3
    (backbone,) = [stage for stage in found["deployments"] if stage["name"] == "Backbone"]
    assert backbone["ray_actor_options"]["num_gpus"] == 0.4
    assert (backbone["num_replicas"], backbone["max_ongoing_requests"]) == (2, 77)
    assert backbone["user_config"] == told.serving.model_dump(mode="json")


def test_the_args_make_the_same_models_again() -> None:
    told = settings({"placement": "fused", "ingress": {"max_concurrent": 33, "audio": {"threads": 2}}})
    assert Models.model_validate(config(told)["args"]) == told.models


def test_a_fused_decoder_is_no_deployment() -> None:
    names = [stage["name"] for stage in config(settings({"placement": "fused"}))["deployments"]]
    assert names == ["Reasoner", "Backbone", "Codec", "Ingress"]


def test_an_image_gets_the_versions_of_the_code_unless_it_has_its_own() -> None:
    from ray import __version__ as ray

    service = ray_service(settings(kubernetes={"image": "registry.test:5000/chroma"}))
    cluster = service["spec"]["rayClusterConfig"]
    head = cluster["headGroupSpec"]["template"]["spec"]["containers"][0]
    assert cluster["rayVersion"] == ray
    assert head["image"].startswith("registry.test:5000/chroma:")
    assert head["image"].endswith(f"-ray{ray}")
    for pinned in ("registry.test/chroma:1.2", "registry.test/chroma@sha256:00"):
        service = ray_service(settings(kubernetes={"image": pinned}))
        (group,) = service["spec"]["rayClusterConfig"]["workerGroupSpecs"]
        assert group["template"]["spec"]["containers"][0]["image"] == pinned


def test_without_grpc_its_port_is_closed() -> None:
    spec = ray_service(settings({"ingress": {"grpc_port": None, "http_port": 9000}}))["spec"]
    (group,) = spec["rayClusterConfig"]["workerGroupSpecs"]
    ports = {port["name"]: port["containerPort"] for port in group["template"]["spec"]["containers"][0]["ports"]}
    assert ports == {"serve": 9000, "metrics": 8080}
    assert [(port["name"], port["port"], port["targetPort"]) for port in spec["serveService"]["spec"]["ports"]] == [
        ("serve", 9000, 9000)
    ]


def test_between_nodes_with_tls_every_ray_container_has_a_certificate() -> None:
    cluster = ray_service(settings(kubernetes={"tls_between_nodes": True}))["spec"]["rayClusterConfig"]
    for group in (cluster["headGroupSpec"], *cluster["workerGroupSpecs"]):
        pod = group["template"]["spec"]
        made = pod["initContainers"][-1]
        told = {variable["name"]: variable.get("value") for variable in pod["containers"][0]["env"]}
        assert made["image"] == pod["containers"][0]["image"]
        assert told["RAY_USE_TLS"] == "1"
        assert told["RAY_TLS_SERVER_CERT"] == "/etc/ray-tls/tls.crt"
        mounted = {mount["name"]: mount["mountPath"] for mount in made["volumeMounts"]}
        assert mounted == {"ray-ca": made["command"][-2], "ray-tls": made["command"][-1]}


def test_the_builder_of_the_serve_config_leaves_secrets_to_the_ingress(monkeypatch: pytest.MonkeyPatch) -> None:
    """What the environment has is neither drawn anew nor put into the arguments, which Ray keeps."""
    args = config(settings())["args"]
    told = {name: f"{name} hunter2 " * 4 for name in secret_settings.NAMES}
    for name, value in told.items():
        monkeypatch.setenv(secret_settings.variable(name), value)
    application = chroma(Models.model_validate(args))
    models = application._bound_deployment.init_args[0]
    assert "hunter2" not in repr(models)
    assert {name: getattr(models.ingress, name) for name in told} == dict.fromkeys(told)
    filled = secret_settings.filled(models.ingress)
    assert {name: getattr(filled, name) for name in told} == told
    one = models.ingress.model_copy(update={"key_secret": "given"})
    assert secret_settings.filled(one).key_secret == "given"


def test_the_command_writes_beside_the_settings_and_reads_them_back(tmp_path: Path) -> None:
    file = tmp_path / "settings.yaml"
    file.write_text(yaml.safe_dump(settings().model_dump(mode="json", exclude_defaults=True)))
    done = CliRunner().invoke(app, ["render", "k8s", "--settings", str(file)])
    assert done.exit_code == 0, done.output
    named = {Path(line).name for line in done.output.split()}
    assert named == {path.name for path in tmp_path.iterdir()} - {"settings.yaml"}
    elsewhere = tmp_path / "deep" / "er"
    done = CliRunner().invoke(app, ["render", "k8s", "--settings", str(file), "--out", str(elsewhere)])
    assert {path.name for path in elsewhere.iterdir()} == named


def test_a_folder_that_cannot_be_written_is_said(tmp_path: Path) -> None:
    taken = tmp_path / "file"
    taken.touch()
    with pytest.raises(InvalidRequest, match="cannot be written"):
        write(settings(), taken)
