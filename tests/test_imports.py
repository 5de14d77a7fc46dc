"""DESIGN's arrows: who may import what, read from the source of every file, imported or not."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.conftest import ROOT

SERVERS = ("fastapi", "starlette", "uvicorn", "websockets", "grpc")
PICKLES = ("pickle", "cloudpickle", "dill")


@dataclass(frozen=True)
class Arrow:
    """Files under `part`, except those under `but`, import none of `never`."""

    part: str
    never: tuple[str, ...]
    but: tuple[str, ...] = ()


ARROWS = (
    Arrow("chroma_models", ("ray", *SERVERS, "deployments", "loadtest")),
    # Ray's replica transport lets grpc's own errors through; handles.py is where they become ours.
    Arrow("deployments", SERVERS, but=("deployments/ingress", "deployments/handles.py")),
    Arrow("loadtest", ("ray", "deployments")),
    # A stranger who speaks the public API; only benchmarks of single parts look inside, and who reckons with shapes.
    Arrow(
        "loadtest",
        ("chroma_models",),
        but=(
            "loadtest/engine_bench.py",
            "loadtest/pipeline_bench.py",
            "loadtest/kernels",
            "loadtest/plan/roofline.py",
            "loadtest/engine_streams.py",
            "loadtest/h200.py",
        ),
    ),
    # A pickle from another process runs code; errors cross replicas by Ray's own means.
    # Importing it patches the whole process for gevent, so only a process of its own may.
    *(Arrow(part, ("locust", "gevent")) for part in ("chroma_models", "deployments", "scripts", "tests")),
    Arrow("loadtest", ("locust", "gevent"), but=("loadtest/__main__.py", "loadtest/locustfile.py")),
    *(Arrow(part, PICKLES) for part in ("chroma_models", "deployments", "loadtest", "scripts")),
    Arrow("scripts", ("ray", *SERVERS)),
)

PARTS = ("chroma_models", "deployments", "loadtest", "scripts", "tests")
LONGEST_FILE = 400


def imported(path: Path, root: Path) -> Iterator[tuple[int, str]]:
    """The (line, dotted name) of everything a file imports, at any depth, by statement or by import_module("...")."""
    package = path.relative_to(root).with_suffix("").parts[:-1]
    for node in ast.walk(ast.parse(path.read_text(), str(path))):
        match node:
            case ast.Import(names=names):
                yield from ((node.lineno, name.name) for name in names)
            case ast.ImportFrom(module=module, names=names, level=level):
                base = package[: len(package) - level + 1] if level else ()
                source = [*base, module] if module else base
                yield from ((node.lineno, ".".join([*source, name.name])) for name in names)
            case ast.Call(
                func=ast.Name(id="import_module" | "__import__") | ast.Attribute(attr="import_module"),
                args=[ast.Constant(value=str(name)), *_],
            ):
                yield node.lineno, name


def violations(root: Path, arrow: Arrow) -> list[str]:
    """file:line of every import that goes against an arrow."""
    found = []
    for path in sorted((root / arrow.part).rglob("*.py")):
        relative = path.relative_to(root)
        if any(relative.is_relative_to(spared) for spared in arrow.but):
            continue
        for line, name in imported(path, root):
            if any(f"{name}.".startswith(f"{other}.") for other in arrow.never):
                found.append(f"{relative}:{line} imports {name}")
    return found


@pytest.mark.parametrize("arrow", ARROWS, ids=lambda arrow: f"{arrow.part}-not-{arrow.never[0]}")
def test_arrows_point_one_way(arrow: Arrow) -> None:
    assert not violations(ROOT, arrow)


def test_an_arrow_sees_every_way_to_import(tmp_path: Path) -> None:
    ways = {
        "import ray": True,
        "import numpy, ray.serve as s": True,
        "from ray import serve": True,
        "def late():\n    from ray.serve import handle": True,
        "import importlib\nimportlib.import_module('ray.serve')": True,
        "from ..deployments import app": True,
        "from .. import deployments": True,
        "import rays": False,
        "from . import ray": False,
        "from .ray import serve": False,
        "text = 'import ray'": False,
    }
    for index, (source, wrong) in enumerate(ways.items()):
        root = tmp_path / str(index)
        (root / "part").mkdir(parents=True)
        (root / "part" / "file.py").write_text(source)
        found = violations(root, Arrow("part", ("ray", "deployments")))
        line = source.count("\n") + 1
        assert [entry.split(" ")[0] for entry in found] == [f"part/file.py:{line}"] * wrong, source


def test_an_exempt_file_is_spared_and_its_neighbour_is_not(tmp_path: Path) -> None:
    for name in ("handles.py", "handles_more.py"):
        (tmp_path / name).write_text("import grpc")
    assert violations(tmp_path, Arrow(".", ("grpc",), but=("handles.py",))) == ["handles_more.py:1 imports grpc"]


def sources() -> list[Path]:
    """Every Python file of the project."""
    return [path for part in PARTS for path in sorted((ROOT / part).rglob("*.py"))]


def texts() -> Iterator[tuple[Path, str]]:
    """Every text file of the project, generated and hidden tool folders apart."""
    ours = [path for path in ROOT.iterdir() if path.name not in ("build", "checkpoints")]
    roots = [path for path in ours if path.name in (".ci", ".dockerignore", ".gitignore") or path.name[0] != "."]
    for path in (inner for root in roots for inner in ([root] if root.is_file() else root.rglob("*"))):
        if path.is_file() and "__pycache__" not in path.parts and ".egg-info" not in str(path):
            try:
                yield path, path.read_text()
            except UnicodeDecodeError:
                continue  # a clip, an image


def test_every_part_has_files() -> None:
    assert {path.relative_to(ROOT).parts[0] for path in sources()} == set(PARTS)


def test_no_file_is_longer_than_a_sitting() -> None:
    long = {str(path.relative_to(ROOT)): len(path.read_text().splitlines()) for path in sources()}
    assert not {path: lines for path, lines in long.items() if lines > LONGEST_FILE}


def test_no_file_knows_anyones_home() -> None:
    homes = re.compile(r"(?<![\w.])/(?:home|Users)/(?!ray\b)\w+|(?<![\w.])/(?:root)\b")  # ray is the image's user
    found = [
        f"{path.relative_to(ROOT)}:{number}"
        for path, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if homes.search(line)
    ]
    assert not found


def test_no_serve_app_builder_postpones_its_annotations() -> None:
    # Ray then skips the validation of the builder's arguments without a word.
    postponed = [
        f"{path.relative_to(ROOT)}:{line}"
        for path in (ROOT / "deployments").rglob("*.py")
        for line, name in imported(path, ROOT)
        if name == "__future__.annotations"
    ]
    assert not postponed
