"""Holds a spoken conversation with `chroma serve` through every client, unmodified, and runs the README's examples.

python -m tests.clients [CLIENT ...]    all of them by default; exits 1 where any fails
"""

import argparse
import os
import sys
import uuid
from collections.abc import Iterator
from pathlib import Path
from tempfile import TemporaryDirectory

import trustme

from loadtest.processes import marked
from loadtest.server import NoServer, random_checkpoint, serving
from tests.clients.clients import CLIENTS, Outcome
from tests.clients.environments import ROOT, NoEnvironment
from tests.clients.examples import EXAMPLES

MARK = "CHROMA_CLIENTS_RUN"  # in the environment of all that is started here, so that what is left can be found
SERVER = {
    "CHROMA_MODELS__REASONER__ENGINE": "torch",  # ready sooner than vLLM; the interfaces are the same
    "CHROMA_MODELS__INGRESS__MAX_REPLY_S": "8",  # random weights do not know when to stop
}
COLUMNS = ("version", "turn_1", "barge_in", "turn_2")


def main() -> int:
    options = _options()
    os.environ[MARK] = uuid.uuid4().hex
    done: list[Outcome] = []
    try:
        for outcome in _outcomes(options.client, options.checkpoint):
            print(f"{outcome.client}: {'FAILED' if outcome.failure else 'ok'}", flush=True)
            done.append(outcome)
    except (NoEnvironment, NoServer) as error:
        print(error, file=sys.stderr)
        return 1
    _show(done)
    left = marked(f"{MARK}={os.environ[MARK]}") - {os.getpid()}
    if left:
        print(f"left running: {sorted(left)}", file=sys.stderr)
    return 1 if left or any(outcome.failure for outcome in done) else 0


def _outcomes(names: list[str], checkpoint: Path) -> Iterator[Outcome]:
    clients = [client for client in CLIENTS if client.name in names]
    for client in clients:
        client.prepare()
    random_checkpoint(checkpoint)
    with TemporaryDirectory(prefix="clients-") as name:
        folder = Path(name)
        if plain := [client for client in clients if not client.tls]:
            with serving(checkpoint, folder / "server.log", **SERVER) as server:
                for client in plain:
                    yield client.talk(server.url)
                for example in EXAMPLES:
                    if example.client in names:
                        yield example.run(server.url, folder)
        if secure := [client for client in clients if client.tls]:
            ca, settings = _certificates(folder)
            with serving(checkpoint, folder / "tls.log", ca, **SERVER, **settings) as server:
                for client in secure:
                    yield client.talk(server.url, ca)


def _certificates(folder: Path) -> tuple[Path, dict[str, str]]:
    """Whom clients are to trust, and the server's settings."""
    authority, files = trustme.CA(), {name: folder / f"{name}.pem" for name in ("ca", "cert", "key")}
    issued = authority.issue_cert("127.0.0.1")
    authority.cert_pem.write_to_path(str(files["ca"]))
    issued.cert_chain_pems[0].write_to_path(str(files["cert"]))
    issued.private_key_pem.write_to_path(str(files["key"]))
    ingress = "CHROMA_MODELS__INGRESS__TLS"
    return files["ca"], {f"{ingress}_CERT_FILE": str(files["cert"]), f"{ingress}_KEY_FILE": str(files["key"])}


def _show(done: list[Outcome]) -> None:
    """A table, then what the failed ones said."""
    heads = ["client", *(column.replace("_", " ") for column in COLUMNS), "seconds"]
    rows = [[o.client, *(o.steps.get(c, "") for c in COLUMNS), f"{o.seconds:.1f}"] for o in done]
    rows = [[*row[:2], "FAILED", *row[3:]] if o.failure else row for o, row in zip(done, rows, strict=True)]
    widths = [max(map(len, column)) for column in zip(heads, *rows, strict=True)]
    for row in [heads, ["-" * width for width in widths], *rows]:
        print(" | ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)))
    for outcome in done:
        if outcome.failure:
            print(f"\n{outcome.client} failed; the last it said:\n{outcome.failure}")


def _options() -> argparse.Namespace:
    names = [client.name for client in CLIENTS]
    parser = argparse.ArgumentParser(prog="python -m tests.clients", description=__doc__)
    parser.add_argument("client", nargs="*", help=f"of {', '.join(names)}; all by default")
    parser.add_argument("--checkpoint", type=Path, default=ROOT / "checkpoints/tiny", help="made if it is not there")
    options = parser.parse_args()
    if unknown := set(options.client) - set(names):
        parser.error(f"unknown: {', '.join(sorted(unknown))}")
    options.client = options.client or names
    return options


if __name__ == "__main__":
    sys.exit(main())
