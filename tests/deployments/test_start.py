"""Bad operator input stops the start with one line that says what and how to mend it, before Ray is there."""

import json
import os
import shutil
import socket
import sys
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import sqlalchemy
import torch

from deployments.cli import main
from deployments.cli.devices import least_bytes
from deployments.ingress.store.address import database_url
from tests.deployments.ingress.postgres import new_database, server

SECRET = "hunter2"
DATABASE = "CHROMA_MODELS__INGRESS__DATABASE_URL"


@pytest.fixture(scope="module")
def sound(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint that would start."""
    from chroma_models.checkpoint.random import make_checkpoint

    folder = tmp_path_factory.mktemp("sound") / "tiny"
    make_checkpoint(folder, "tiny", seed=0)
    return folder


class Start:
    """One `chroma serve` with what a case changes; in this process, for importing torch for each would take minutes."""

    def __init__(
        self, folder: Path, checkpoint: Path, patch: pytest.MonkeyPatch, request: pytest.FixtureRequest
    ) -> None:
        self.folder, self.patch, self.request = folder, patch, request
        self.checkpoint = folder / "checkpoint"
        shutil.copytree(checkpoint, self.checkpoint)
        self.options: dict[str, Any] = {"--checkpoint": self.checkpoint, "--port": free_port(), "--grpc-port": 0}

    def env(self, **names: str) -> None:
        for name, value in names.items():
            self.patch.setenv(name, value)

    def settings(self, text: str | bytes) -> None:
        file = self.folder / "settings.yaml"
        file.write_bytes(text if isinstance(text, bytes) else text.encode())
        self.options["--settings"] = file

    def config(self, **changes: Any) -> None:
        file = self.checkpoint / "config.json"
        file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))

    def gpus(self, *sizes: int) -> None:
        """What torch finds on the machine: the edge of ours, and no machine of the tests has these."""
        self.patch.setattr(torch.cuda, "is_available", lambda: bool(sizes))
        self.patch.setattr(torch.cuda, "device_count", lambda: len(sizes))
        found = [SimpleNamespace(total_memory=size) for size in sizes]
        self.patch.setattr(torch.cuda, "get_device_properties", lambda i: found[i])

    def holding(self, port: int, family: int = socket.AF_INET) -> socket.socket:
        other = socket.socket(family)
        self.request.addfinalizer(other.close)
        other.bind(("127.0.0.1", port))
        return other

    def argv(self) -> list[str]:
        return ["chroma", "serve", *(str(word) for option in self.options.items() for word in option)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


@pytest.fixture
def started(sound: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest) -> Start:
    import deployments.cluster

    def too_late(**_: Any) -> None:
        pytest.fail("Ray was started, though a check before it could have told")

    monkeypatch.setattr(deployments.cluster, "local_ray", too_late)
    monkeypatch.setenv(DATABASE, f"sqlite:///{tmp_path / 'voices.db'}")
    return Start(tmp_path, sound, monkeypatch, request)


def empty_database(start: Start) -> None:
    folder = start.request.getfixturevalue("postgres_server")
    start.env(**{DATABASE: new_database(folder, f"start_{uuid.uuid4().hex}")})


def older_schema(start: Start) -> None:
    """A PostgreSQL database is never changed by a start."""
    empty_database(start)
    found = database_url(os.environ[DATABASE])
    with sqlalchemy.create_engine(found).begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('0001')")


def newer_schema(start: Start) -> None:
    file = start.folder / "newer.db"
    with sqlalchemy.create_engine(f"sqlite:///{file}").begin() as connection:
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('v9999_later')")
    start.env(**{DATABASE: f"sqlite:///{file}"})


@pytest.fixture(scope="module")
def postgres_server() -> Iterator[str]:
    with server() as folder:
        yield folder


def url(text: str) -> Callable[[Start], None]:
    return lambda start: start.env(**{DATABASE: text})


def no_database(start: Start) -> None:
    file = start.folder / "notes.txt"
    file.write_text("Dear diary,\n" * 100)
    start.env(**{DATABASE: f"sqlite:///{file}"})


def environment(**names: str) -> Callable[[Start], None]:
    return lambda start: start.env(**names)


def settings(text: str | bytes) -> Callable[[Start], None]:
    return lambda start: start.settings(text)


def option(name: str, value: object) -> Callable[[Start], None]:
    return lambda start: start.options.update({name: value})


def shortened(start: Start) -> None:
    weights = start.checkpoint / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1000])


def lfs_pointer(start: Start) -> None:
    text = "version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 9\n"
    (start.checkpoint / "model.safetensors").write_text(text)


def a_shard_short(start: Start) -> None:
    (start.checkpoint / "model.safetensors").unlink()
    index = {"weight_map": {"backbone.model.norm.weight": "model-00001-of-00002.safetensors"}}
    (start.checkpoint / "model.safetensors.index.json").write_text(json.dumps(index))


def without(name: str) -> Callable[[Start], None]:
    return lambda start: (start.checkpoint / name).unlink()


def other_shapes(start: Start) -> None:
    tree = json.loads((start.checkpoint / "config.json").read_text())
    tree["backbone_config"]["intermediate_size"] += 8
    start.config(**tree)


def not_on_the_hub(start: Start) -> None:
    start.options["--checkpoint"] = "nobody/never-fetched"
    start.patch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    start.patch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(start.folder))


def gpus(*sizes: int, **names: str) -> Callable[[Start], None]:
    def prepare(start: Start) -> None:
        start.gpus(*sizes)
        start.env(**names)

    return prepare


def taken(option_name: str) -> Callable[[Start], None]:
    def prepare(start: Start) -> None:
        port = free_port()
        start.holding(port).listen()
        start.options[option_name] = port

    return prepare


def held_but_silent(start: Start) -> None:
    """Bound, and not listening: nobody answers a probe there."""
    start.holding(start.options["--port"])


GPU = "CHROMA_MODELS__TORCH__DEVICE"
# what is wrong: (how it is brought about, what the line says, and how it says to mend it)
BAD: dict[str, tuple[Callable[[Start], None], str, str]] = {
    "a database that does not answer": (url(f"postgresql://u:{SECRET}@127.0.0.1:9/n"), "refused", "database_url"),
    "a database on no host": (url(f"postgresql://u:{SECRET}@no.host.invalid/n"), "no.host.invalid", "database_url"),
    "a database URL with a wrong port": (url(f"postgresql://u:{SECRET}@h:abc/n"), "no URL", "postgresql://HOST/NAME"),
    "a database URL with a wrong option": (
        url(f"postgresql://u:{SECRET}@127.0.0.1/n?foo=1"),
        '"foo"',
        "database_url",
    ),
    "a database of another kind": (url(f"mysql://u:{SECRET}@h/n"), "'mysql'", "PostgreSQL are what is supported"),
    "a database URL that is none": (url(SECRET), "no URL", "sqlite:///PATH"),
    "a SQLite URL without a file": (url("sqlite://"), "no SQLite file", "voices of its own"),
    "a file that is no database": (no_database, "not a database", "database_url"),
    "a database in a folder that cannot be": (url("sqlite:////dev/null/voices.db"), "cannot be made", "database_url"),
    "a database without a schema": (empty_database, "is empty", "chroma migrate"),
    "an old schema": (older_schema, "has the older schema 0001", "chroma migrate"),
    "a newer schema": (newer_schema, "v9999_later", "Update this server"),
    "an unknown setting": (settings("models: {backbone: {slot: 3}}"), "models.backbone.slot", "not permitted"),
    "an unknown section": (settings("modles: {}"), "'modles'", "models, scale, serving"),
    "a section that is pydantic's own": (settings("_env_file: /etc/hostname"), "'_env_file'", "models, scale, serving"),
    "a number for a section": (settings("1: {}"), "'1'", "models, scale, serving"),
    "a value out of range": (settings("serving: {limits: {max_turn_s: -1}}"), "serving.limits.max_turn_s", "greater"),
    "settings that are a list": (settings("[1, 2]"), "settings.yaml", "no mapping"),
    "settings that end too early": (settings("a: ["), "settings.yaml", "cannot be read"),
    "settings that are no text": (settings(b"models: \xff"), "settings.yaml", "cannot be read"),
    "settings nested without an end": (settings("[" * 5_000), "settings.yaml", "cannot be read"),
    "no settings file": (option("--settings", "/none.yaml"), "/none.yaml", "No such file"),
    "an unknown setting in the environment": (
        environment(CHROMA_MODELS__BACKBONE__SLOT="3"),
        "models.backbone.slot",
        "not permitted",
    ),
    "an unknown section in the environment": (
        environment(CHROMA_MODLES__BACKBONE__SLOTS="3"),
        "CHROMA_MODLES__BACKBONE__SLOTS",
        "models, scale, serving",
    ),
    "one underscore in the environment": (
        environment(CHROMA_MODELS_CHECKPOINT="x"),
        "CHROMA_MODELS_CHECKPOINT",
        "two underscores",
    ),
    "a group in the environment": (environment(CHROMA_MODELS="cuda"), "no JSON object", "CHROMA_MODELS__CHECKPOINT"),
    "a checkpoint of another model": (
        lambda start: start.config(model_type="qwen2_5_omni"),
        "'qwen2_5_omni', not 'chroma'",
        "name a checkpoint of Chroma",
    ),
    "a checkpoint of other shapes": (other_shapes, "wrongly shaped", "config.json"),
    "a folder without a checkpoint": (without("config.json"), "config.json is missing", "a Chroma checkpoint"),
    "weights cut short": (shortened, "model.safetensors is cut short", "fetch the checkpoint again"),
    "weights that git left behind": (lfs_pointer, "model.safetensors", "git lfs pull"),
    "a shard that never came": (a_shard_short, "model-00001-of-00002.safetensors is missing", "fetch it again"),
    "no weights at all": (without("model.safetensors"), "neither model.safetensors nor", "a Chroma checkpoint"),
    "a tokenizer that never came": (without("tokenizer.json"), "tokenizer.json is missing", "all of it"),
    "an extractor that never came": (without("preprocessor_config.json"), "preprocessor_config.json", "all of it"),
    "a checkpoint not fetched, without a network": (not_on_the_hub, "nobody/never-fetched", "HF_HUB_OFFLINE"),
    "a GPU asked for, and none": (gpus(**{GPU: "cuda"}), "torch sees no GPU here", "models.torch.device to cpu"),
    "a second GPU asked for, and one": (gpus(80 << 30, **{GPU: "cuda:1"}), "1 GPU", "models.torch.device to cpu"),
    "a device that is none": (gpus(**{GPU: "gpu"}), "'gpu'", "cuda"),
    "a share of a GPU asked for, and none": (
        gpus(CHROMA_SCALE__REASONER__NUM_GPUS="0.5"),
        "0.5 GPUs (scale.reasoner 0.5)",
        "num_gpus",
    ),
    "more cores than there are": (
        environment(CHROMA_SCALE__CODEC__NUM_CPUS="5000", CHROMA_SCALE__CODEC__REPLICAS="2"),
        "10000 CPU cores",
        "num_cpus",
    ),
    "a GPU too small": (gpus(1 << 30), "1 GPU here has 1.1 GB", "models.reasoner.kv_cache_bytes"),
    "GPUs too small for one stage": (gpus(*[1 << 30] * 8), "8 GPUs here have 8.6 GB", "models.backbone.slots"),
    "a port that is taken": (taken("--port"), "is taken", "choose another with --port"),
    "a gRPC port that is taken": (taken("--grpc-port"), "is taken", "choose another with --grpc-port"),
    "a port that is held": (held_but_silent, "is taken by another program", "--port"),
    "one port for both": (
        lambda start: start.options.update({"--grpc-port": start.options["--port"]}),
        "for HTTP and for gRPC",
        "--grpc-port",
    ),
    "a port that is no port": (option("--port", 70_000), "http_port", "65535"),
    "another machine's address": (option("--host", "192.0.2.1"), "192.0.2.1", "choose another host"),
    "no authentication for everybody": (
        environment(CHROMA_MODELS__INGRESS__AUTH="false", CHROMA_MODELS__INGRESS__HOST="0.0.0.0"),
        "--no-auth is for the loopback",
        "--host 127.0.0.1",
    ),
    "a certificate without its key": (
        environment(CHROMA_MODELS__INGRESS__TLS_CERT_FILE="/none.pem"),
        "tls_key_file",
        "set both",
    ),
}


@pytest.mark.parametrize("case", BAD)
def test_bad_operator_input_is_one_line_and_exit_code_2(
    case: str, started: Start, capfd: pytest.CaptureFixture[str]
) -> None:
    prepare, what, how = BAD[case]
    prepare(started)
    capfd.readouterr()  # what the preparation brought: PostgreSQL's programs are forked, and gRPC of other tests tells
    started.patch.setattr(sys, "argv", started.argv())
    with pytest.raises(SystemExit) as ended:
        main()
    told = capfd.readouterr().err
    assert ended.value.code == 2, told
    assert told.startswith("chroma: ")
    assert told.count("\n") == 1, told
    assert what in told
    assert how in told
    assert SECRET not in told
    assert len(told) < 700


def test_what_is_well_is_started(started: Start, capfd: pytest.CaptureFixture[str]) -> None:
    """Else every case above could be refused for something else."""
    started.patch.setattr(sys, "argv", started.argv())
    started.env(CHROMA_MODELS__TORCH__DEVICE="cpu", CHROMA_URL="http://127.0.0.1:1", CHROMA_LOCK="x")
    with pytest.raises(pytest.fail.Exception, match="Ray was started"):
        main()
    assert not capfd.readouterr().err


def test_the_full_model_fits_on_what_it_is_meant_for() -> None:
    """80 GB take the default settings; 8 GB do not hold the weights."""
    from chroma_models.checkpoint.architecture import Architecture
    from chroma_models.checkpoint.sizes import config, generation_config
    from deployments.settings import Models

    models = Models.model_validate({"torch": {"dtype": "bfloat16"}})
    least = least_bytes(models, Architecture.of(config("full"), generation_config("full")))
    assert 8e9 < sum(least.values()) < 40e9
    assert max(least, key=lambda stage: least[stage]) == "reasoner"
