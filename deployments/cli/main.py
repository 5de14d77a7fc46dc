"""Commands, their options, and how a failure reads: one line, exit code 2, no traceback."""

import json
import sys
from pathlib import Path
from typing import Annotated, Literal

import typer

from chroma_models.errors import ChromaError
from deployments.cli.tenant_commands import keys, tenants
from deployments.cli.voice_commands import voices

app = typer.Typer(no_args_is_help=True, add_completion=False, pretty_exceptions_enable=False, help=__doc__)

Checkpoint = Annotated[str | None, typer.Option(help="A folder, or a Hugging Face id. Overrides the settings.")]
SettingsFile = Annotated[Path | None, typer.Option("--settings", help="A YAML file; see README, Settings.")]


app.add_typer(tenants, name="tenants")
app.add_typer(keys, name="keys")
app.add_typer(voices, name="voices")
render = typer.Typer(no_args_is_help=True, help="Print manifests from the settings.")
app.add_typer(render, name="render")


@app.command()
def serve(
    settings: SettingsFile = None,
    checkpoint: Checkpoint = None,
    host: Annotated[str | None, typer.Option(help="Address to listen on.")] = None,
    port: Annotated[int | None, typer.Option(help="HTTP port.")] = None,
    grpc_port: Annotated[int | None, typer.Option(help="gRPC port; 0 takes a free one.")] = None,
    no_auth: Annotated[bool, typer.Option("--no-auth", help="Anybody may call. On the loopback alone.")] = False,
) -> None:
    """Start the graph on this machine and leave it running until Ctrl-C."""
    from deployments.cli.serve import serve as run

    run(settings, checkpoint, host, port, grpc_port, no_auth)


@app.command()
def ask(
    question: Annotated[Path, typer.Argument(help="A recording: wav, mp3 or flac.")],
    voice: Annotated[Path | None, typer.Option(help="A reference clip of the voice to answer in.")] = None,
    transcript: Annotated[str | None, typer.Option(help="What is said in the reference clip.")] = None,
    out: Annotated[Path, typer.Option(help="Where the spoken reply goes.")] = Path("reply.wav"),
    url: Annotated[str, typer.Option(help="A running server.")] = "http://127.0.0.1:8000",
    max_reply_s: Annotated[float | None, typer.Option(help="Longest reply, in seconds.")] = None,
) -> None:
    """Ask a running server a spoken question, and stream its spoken reply to a file."""
    from deployments.cli.ask import ask as run

    run(question, out, url, voice=voice, transcript=transcript, max_reply_s=max_reply_s)


@app.command()
def top(
    metrics: Annotated[
        list[str] | None, typer.Option(help="A page of metrics, http://HOST:PORT/metrics; once for each node.")
    ] = None,
    url: Annotated[str, typer.Option(help="A running server.")] = "http://127.0.0.1:8000",
    application: Annotated[str, typer.Option(help="Of Serve.")] = "chroma",
    interval_s: Annotated[float, typer.Option(min=0.5, help="Between two readings.")] = 5.0,
    once: Annotated[bool, typer.Option("--once", help="One view, and an end.")] = False,
) -> None:
    """Watch a running graph: streams, slots, step times and RTF of each stage, and what listeners get."""
    from deployments.cli.top import top as run

    run(metrics or ["http://127.0.0.1:8080/metrics"], url, application, interval_s, once)


@app.command()
def demo(
    question: Annotated[Path | None, typer.Option(help="A recording; by default a small one that comes along.")] = None,
    checkpoint: Checkpoint = None,
    out: Annotated[Path, typer.Option(help="Where the spoken reply goes.")] = Path("reply.wav"),
    settings: SettingsFile = None,
) -> None:
    """Start the graph, ask one question, write the reply, stop."""
    from deployments.cli.demo import demo as run

    run(question, checkpoint, out, settings)


@app.command("make-checkpoint")
def make_checkpoint(
    folder: Annotated[Path, typer.Argument(help="Where to write it.")],
    size: Annotated[Literal["tiny", "mid", "full"], typer.Option(help="full has exactly the 4B shapes.")] = "tiny",
    seed: Annotated[int, typer.Option(help="Of the random weights.")] = 0,
) -> None:
    """Write a checkpoint of random weights in the real layout."""
    from chroma_models.checkpoint.random import make_checkpoint as run

    run(folder, size, seed, typer.echo)


@app.command()
def fetch(checkpoint: Annotated[str, typer.Argument(help="A Hugging Face id, or a folder that is there.")]) -> None:
    """Download a checkpoint into the hub's cache (HF_HOME), and say where it is."""
    from deployments.cli.fetch import fetch as run

    run(checkpoint)


@render.command("k8s")
def render_k8s(
    settings: Annotated[Path, typer.Option(help="A YAML file; see README, Settings.")],
    out: Annotated[Path | None, typer.Option(help="A folder; by default the settings file's own.")] = None,
) -> None:
    """Write the RayService, its Jobs and its disruption budget; refuse what pods could not run."""
    from deployments.cli.render import render_k8s as run

    run(settings, out if out is not None else settings.parent)


@app.command()
def verify(
    file: Annotated[Path, typer.Argument(help="A reply: wav, flac, mp3 or opus.")],
    keys: Annotated[
        str, typer.Option(help="Public keys: a file, or the URL of a server's.")
    ] = "http://127.0.0.1:8000/v1/provenance/keys",
) -> None:
    """Say what a file says of its making, and whether that holds: exit code 0, else 1; 2 where it cannot be told."""
    from deployments.cli.verify import verify as run

    raise typer.Exit(run(file, keys))


@app.command()
def migrate(
    settings: SettingsFile = None,
    database: Annotated[str | None, typer.Option(help="Its URL. Overrides the settings.")] = None,
) -> None:
    """Bring the database up to this version; a SQLite file also is at every start."""
    from deployments.cli.migrate import migrate as run

    run(settings, database)


@app.command()
def parity(
    golden_dir: Annotated[Path, typer.Argument(help="A folder with checkpoint/, meta.json and cases.")],
    out: Annotated[Path | None, typer.Option(help="Where <case>.safetensors go.")] = None,
    reasoner: Annotated[Literal["vllm", "torch"], typer.Option(help="Which Reasoner engine runs.")] = "vllm",
    errors: Annotated[Path | None, typer.Option(help="Write the largest error per tensor here, as JSON.")] = None,
) -> None:
    """Run every case of a goldens folder through the real engines and compare."""
    from deployments.cli.parity import parity as run

    raise typer.Exit(run(golden_dir, out, reasoner, errors))


@app.command()
def plan(
    slo: Annotated[str, typer.Option(help="What is promised.")] = "first_audio_p95=300ms,underrun=0.1%",
    sessions: Annotated[int, typer.Option(help="Conversations at once.")] = 1000,
    turns_per_minute: Annotated[float, typer.Option(help="Of each.")] = 4.0,
    question: Annotated[str, typer.Option(help="How long one is, as 4s.")] = "4s",
    reply: Annotated[str, typer.Option(help="How long one is, as 10s.")] = "10s",
    gpu: Annotated[str, typer.Option(help="h200, h100 or b200.")] = "h200",
    price: Annotated[float | None, typer.Option(help="Of a GPU for an hour.")] = None,
    measurements: Annotated[
        list[Path] | None, typer.Option(help="Results of benchmarks, files or folders; by default those of this code.")
    ] = None,
    html: Annotated[Path | None, typer.Option(help="Draw the curves into this file.")] = None,
    layout: Annotated[
        Literal["single", "split"] | None, typer.Option(help="The graph on each GPU, or thinking and speaking apart.")
    ] = None,
    gpus_per_node: Annotated[int, typer.Option(min=1, help="Are lost with a node.")] = 8,
) -> None:
    """Say how many GPUs a promise needs, what binds, what it costs; from measurements, and a roofline elsewhere."""
    from deployments.cli.plan import print_plan

    print_plan(
        slo, sessions, turns_per_minute, question, reply, gpu, price, measurements or [], html, layout, gpus_per_node
    )


@app.command("bench-graph", hidden=True)
def bench_graph(
    out: Annotated[Path, typer.Argument(help="Where the figures go, as JSON.")],
    streams: Annotated[str, typer.Option(help="How many at once, with commas.")] = "1,50,100,200",
    seconds: Annotated[float, typer.Option(help="Of each measurement.")] = 10.0,
    rate_hz: Annotated[float, typer.Option(help="Items a second on every stream.")] = 12.5,
) -> None:
    """Measure the graph's hops without models; loadtest.graph_bench reads what this writes."""
    from deployments.bench.hops import measure

    counts = [int(count) for count in streams.split(",")]
    out.write_text(json.dumps(measure(counts, seconds, rate_hz)), encoding="utf-8")


@app.command("bench-ingress", hidden=True)
def bench_ingress(
    out: Annotated[Path, typer.Argument(help="Where its ports and its process are told, as JSON.")],
    list_frames: Annotated[int, typer.Option(min=1, help="Frames that come at once.")] = 1,
    database: Annotated[str | None, typer.Option(help="Whose API keys callers need. Without it nobody does.")] = None,
) -> None:
    """Serve the ingress alone, with an echo behind it, until SIGTERM; loadtest.echo_bench is its client."""
    from deployments.bench.echo import serve as run

    run(out, list_frames, database)


def main() -> None:
    try:
        app()
    except ChromaError as error:
        print(f"chroma: {error}", file=sys.stderr)
        sys.exit(2)
