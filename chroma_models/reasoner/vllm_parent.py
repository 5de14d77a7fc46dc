"""vLLM's processes end with the one that began them, however that one ended.

An engine core waits for requests for ever and does not notice that nobody is left to send any: killed together with its
raylet, which would have cleaned up after it, a Reasoner left one behind, with all the memory of its GPU.
"""

import multiprocessing
import os
import threading


def end_with_parent() -> None:
    """In a process that multiprocessing began; elsewhere nothing happens."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_outlive, args=(parent,), name="parent-watch", daemon=True).start()


def _outlive(parent: "multiprocessing.process.BaseProcess") -> None:
    parent.join()
    os._exit(1)  # whoever could wait for an orderly end is gone
