"""Whether this machine's hosts are hosts: python -m tests.multihost.smoke, inside namespaces. Prints JSON.

Two of them serve their /dev/shm on the same port; one is asked to end, the other is killed.
"""

import json
import sys
import tempfile
import time
from pathlib import Path

import httpx

from tests.multihost.hosts import Host, make_network

PORT = 8000
SERVES = f"echo $HOSTNAME > /dev/shm/name; sleep 600 & {sys.executable} -m http.server {PORT} --directory /dev/shm"
ENDS = "trap 'exit 7' TERM; sleep 600 & wait"


def ask(host: Host) -> str | None:
    for _ in range(200):
        try:
            return httpx.get(f"http://{host.address}:{PORT}/name", trust_env=False).text.strip()
        except httpx.HTTPError:
            time.sleep(0.05)
    return None


def gone(host: Host) -> bool:
    try:
        httpx.get(f"http://{host.address}:{PORT}/name", trust_env=False, timeout=2.0)
    except httpx.HTTPError:
        return True
    return False


def main() -> None:
    make_network()
    with tempfile.TemporaryDirectory(prefix="hosts-") as folder:
        one, other, third = (Host.make(f"host-{n}", n, Path(folder)) for n in (10, 11, 12))
        for host in (one, other):
            host.start(["bash", "-c", SERVES], {}, Path(folder))
        third.start(["bash", "-c", ENDS], {}, Path(folder))
        told = {"names": [ask(one), ask(other)]}
        other.kill()
        told |= {"killed": gone(other), "other": ask(one)}
        third.terminate()
        told |= {"ended_within_s": third.ends_within(30.0), "code": third.process and third.process.returncode}
        one.kill()
    print(json.dumps(told))


if __name__ == "__main__":
    main()
