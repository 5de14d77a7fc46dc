"""People who talk to the server, by the thousand: over the Realtime WebSocket, gRPC and HTTP.

    python -m loadtest --host http://127.0.0.1:8000 --arrivals poisson -u 50      # with Locust's page
    python -m loadtest --host http://127.0.0.1:8000 --headless -u 50 --seconds 120 --page load.html

Also with --master and --worker, or --processes. Importing this patches the process for gevent. Exit code: 0, what was
promised held; 1, it was broken; 3, the load generator was late itself, and the run says nothing.
"""

import logging
import random
import sys
import threading
import time
from collections.abc import Callable
from typing import Any

from gevent.pool import Group
from grpc.experimental import gevent as grpc_gevent
from locust import LoadTestShape, User, events, task  # first: it patches what the rest imports

from loadtest.load.call import Call, Line
from loadtest.load.conversation import Conversation
from loadtest.load.grpc_call import GrpcCall
from loadtest.load.heartbeat import Heartbeat
from loadtest.load.http_call import HttpCall
from loadtest.load.options import Options, add_options, grpc_address
from loadtest.load.profile import OPEN, Stairs, users_at
from loadtest.load.realtime_call import RealtimeCall
from loadtest.load.records import Ledger, TurnRecord
from loadtest.load.run import Run
from loadtest.load.summary import summary
from loadtest.microphone import recording
from loadtest.playback import RATE_HZ

grpc_gevent.init_gevent()
logging.getLogger("httpx").setLevel(logging.WARNING)  # a line for every request otherwise

STOP_S = 40.0  # callers may finish what they say
REDIAL_S = 2.0  # who was refused calls again
REPORT_S = 4.0  # until the last of a worker's records have come
USAGE, VOID = 2, 3  # exit codes
STATE: dict[str, Any] = {}


class TurnFailed(Exception):
    """For Locust's own table of failures."""


class Caller(User):
    abstract = True
    call: Callable[[Line], Call]

    def on_start(self) -> None:
        self.gone = threading.Event()
        self.calls = Group()
        self.taken = True
        self.rng = random.Random(f"{STATE['seed']} {self.environment.runner.client_id} {next(STATE['numbers'])}")

    def wait_time(self) -> float:
        """Between arrivals at a line; a caller who is followed by another leaves no pause."""
        if self.environment.parsed_options.arrivals not in OPEN:
            return 0.0 if self.taken else REDIAL_S
        return self.rng.expovariate(1 / STATE["session_s"])

    @task
    def arrive(self) -> None:
        if self.environment.parsed_options.arrivals in OPEN:
            self.calls.spawn(self._converse)
        else:
            self._converse()

    def stop(self, force: bool = False) -> bool:
        self.gone.set()
        return bool(super().stop(force))

    def on_stop(self) -> None:
        self.calls.join()

    def _converse(self) -> None:
        options: Options = STATE["options"]
        script = options.behaviour.draw(self.rng, len(STATE["clips"]))
        tenant = list(options.keys)[script.tenant]
        given = self.environment.parsed_options
        line = Line(
            self.environment.host.rstrip("/"),
            grpc_address(self.environment.host, given.grpc),
            options.keys[tenant],
            options.behaviour.reply_s,
            script.slow,
            script.seed,
        )
        conversation = Conversation(self.call(line), script, tenant, STATE["clips"], self._write, self.gone.is_set)
        STATE["conversations"].add(conversation)
        try:
            self.taken = conversation.run()
        finally:
            STATE["conversations"].discard(conversation)

    def _write(self, record: TurnRecord) -> None:
        STATE["ledger"].turn(record)
        fire = self.environment.events.request.fire
        times = {
            "first audio": record.first_audio_s,
            "response latency": record.latency_s,
            "cancel to silence": record.silence_s,
        }
        for name, seconds in times.items():
            if seconds is not None:
                fire(
                    request_type=record.door,
                    name=name,
                    response_time=1000 * seconds,
                    response_length=round(2 * RATE_HZ * record.audio_s),
                    exception=None,
                    context={},
                )
        if record.code is not None:
            failed = TurnFailed(f"{record.outcome}: {record.code}")
            fire(
                request_type=record.door, name="turn", response_time=0, response_length=0, exception=failed, context={}
            )


class RealtimeCaller(Caller):
    call = RealtimeCall


class GrpcCaller(Caller):
    call = GrpcCall


class HttpCaller(Caller):
    call = HttpCall


class Arrivals(LoadTestShape):
    """As --arrivals says; when it is over all callers finish, and the last records come in."""

    use_common_options = True

    def reset_time(self) -> None:
        super().reset_time()
        self._over_at: float | None = None
        self._wanted = 0
        self._stairs: Stairs | None = None
        if "run" in STATE:
            STATE["run"].clear()

    def tick(self) -> tuple[int, float] | None:
        given, run = self.runner.environment.parsed_options, STATE["run"]
        peak, rate = int(given.num_users or 1), float(given.spawn_rate or 1)
        if self._over_at is None:
            users = self._climb(given, peak) if given.arrivals == "stairs" else None
            if given.arrivals != "stairs":
                users = users_at(given.arrivals, self.get_run_time(), peak, given.seconds)
            if users is not None:
                run.wanted(users)
                return users, max(rate, users / 4)
            self._over_at = time.monotonic()
        if self.get_current_user_count() == 0 and time.monotonic() > self._over_at + 2 * REPORT_S:
            return None
        return 0, max(rate, peak / 4)

    def _climb(self, given: Any, peak: int) -> int | None:
        if self._stairs is None:
            self._stairs = Stairs(given.first, peak, given.settle_s, given.hold_s, self._judge)
        STATE["run"].stairs = self._stairs
        if self.get_current_user_count() != self._wanted:
            self._stairs.moved(time.time())
        users = self._stairs.tick(time.time())
        self._wanted = users or 0
        return users

    def _judge(self, begin: float, end: float) -> list[str]:
        ended = [turn for turn in STATE["ledger"].turns if begin <= turn.ended_at < end]
        return list(STATE["options"].slo.broken(summary(ended)))


@events.init_command_line_parser.add_listener
def _add(parser: Any) -> None:
    add_options(parser)


@events.init.add_listener
def _init(environment: Any, runner: Any, **_: Any) -> None:
    try:
        STATE["options"] = options = Options.read(environment.parsed_options)
    except ValueError as error:
        print(error, file=sys.stderr)
        sys.exit(USAGE)
    for door, kind in (("realtime", RealtimeCaller), ("grpc", GrpcCaller), ("http", HttpCaller)):
        kind.weight = options.mix.get(door, 0)
    environment.user_classes = [kind for kind in environment.user_classes if kind.weight]
    environment.stop_timeout = environment.stop_timeout or STOP_S
    STATE["ledger"] = Ledger()
    STATE["conversations"] = set()
    STATE["run"] = Run(environment.parsed_options, STATE["ledger"])
    if environment.web_ui:
        environment.web_ui.app.add_url_rule("/chroma", "chroma", STATE["run"].page)


@events.test_start.add_listener
def _start(environment: Any, **_: Any) -> None:
    options = STATE["options"] = Options.read(environment.parsed_options)  # of the page, or of the master
    STATE["ledger"].clear()
    STATE["run"].start(options)
    STATE["seed"], STATE["numbers"] = environment.parsed_options.seed, iter(range(1 << 62))
    STATE["clips"] = [recording(path) for path in options.questions]
    question_s = sum(len(clip) for clip in STATE["clips"]) / len(STATE["clips"]) / RATE_HZ
    STATE["session_s"] = options.behaviour.session_s(question_s)
    if type(environment.runner).__name__ != "MasterRunner":
        name, ledger = environment.runner.client_id, STATE["ledger"]
        STATE["heart"] = Heartbeat(_counts, lambda pulse: ledger.pulse(name, pulse))
        STATE["heart"].start()


def _counts() -> tuple[int, int]:
    conversations = list(STATE["conversations"])
    return len(conversations), sum(each.speaking for each in conversations)


@events.report_to_master.add_listener
def _report(client_id: str, data: dict[str, Any]) -> None:
    data["chroma"] = STATE["ledger"].drain()


@events.worker_report.add_listener
def _reported(client_id: str, data: dict[str, Any]) -> None:
    STATE["ledger"].add(data["chroma"])


@events.test_stop.add_listener
def _stop(environment: Any, **_: Any) -> None:
    if "heart" in STATE:
        STATE["heart"].stop()
    STATE["run"].ended_at = time.time()


@events.quitting.add_listener
def _quitting(environment: Any, **_: Any) -> None:
    if type(environment.runner).__name__ == "WorkerRunner":
        return
    environment.process_exit_code = STATE["run"].finish(VOID)
