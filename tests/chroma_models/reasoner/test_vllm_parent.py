"""An engine core does not outlive the process it serves."""

import multiprocessing
import os
import signal
import subprocess
import sys
import threading
import time
from multiprocessing.connection import Connection

import pytest

from chroma_models.reasoner import vllm_plugin
from chroma_models.reasoner.vllm_parent import end_with_parent

PATIENCE_S = 60.0
BEGIN = "from tests.chroma_models.reasoner.test_vllm_parent import begin; begin()"


def begin() -> None:
    """A process that has begun another one, as vLLM's API process begins an engine core, and says its number."""
    told, tells = multiprocessing.Pipe(duplex=False)
    multiprocessing.get_context("spawn").Process(target=core, args=(tells,)).start()
    print(told.recv(), flush=True)
    time.sleep(PATIENCE_S)


def core(tells: Connection) -> None:
    end_with_parent()
    tells.send(os.getpid())
    time.sleep(PATIENCE_S)
    os._exit(0)


def ended(pid: int) -> bool:
    """Gone, or nothing but a line that nobody has read yet."""
    try:
        with open(f"/proc/{pid}/stat") as file:
            return file.read().rpartition(")")[2].split()[0] == "Z"
    except FileNotFoundError:
        return True


def test_an_engine_core_ends_when_its_parent_is_killed() -> None:
    parent = subprocess.Popen([sys.executable, "-c", BEGIN], stdout=subprocess.PIPE, text=True)
    assert parent.stdout is not None
    pid = int(parent.stdout.readline())
    assert not ended(pid)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    began = time.monotonic()
    while not ended(pid):
        assert time.monotonic() - began < PATIENCE_S / 2, "it goes on without its parent"
        time.sleep(0.05)


def test_vllm_s_plugin_watches_in_every_process_it_is_loaded_in(monkeypatch: pytest.MonkeyPatch) -> None:
    watched: list[bool] = []
    pytest.importorskip("vllm", reason="vLLM is not installed")
    monkeypatch.setattr("chroma_models.reasoner.vllm_parent.end_with_parent", lambda: watched.append(True))
    vllm_plugin.register()
    assert watched == [True]


def test_a_process_of_its_own_watches_nobody() -> None:
    before = threading.active_count()
    end_with_parent()
    assert threading.active_count() == before
