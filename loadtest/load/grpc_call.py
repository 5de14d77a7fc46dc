"""A call over gRPC's Converse, with a microphone that never stops and turns found by the server."""

import queue
import threading
from collections.abc import Iterator
from typing import Any

import grpc
import numpy as np
from google.rpc import error_details_pb2, status_pb2
from numpy.typing import NDArray

from loadtest.contract import SERVICE, contract
from loadtest.load.call import Line, Refused
from loadtest.load.ear import Ear
from loadtest.load.mouth import Mouth
from loadtest.microphone import Utterance

OPEN_S = 20.0
FAILED, CANCELLED, INTERRUPTED = 5, 3, 4  # FinishReason


class GrpcCall:
    door = "grpc"

    def __init__(self, line: Line) -> None:
        self._line, self.ear = line, Ear()
        self._asked: queue.Queue[Any] = queue.Queue()
        self._ready, self._response = threading.Event(), ""
        self._mouth = Mouth(self._append)

    def open(self) -> None:
        try:
            self._contract = contract(self._line.grpc)
        except grpc.RpcError as error:
            raise Refused(code_of(error)) from error
        # Somebody else's connection is not shared: people do not call through one.
        self._channel = grpc.insecure_channel(self._line.grpc, options=[("grpc.use_local_subchannel_pool", 1)])
        reply_s = self._line.reply_s
        reply = {"seconds": int(reply_s), "nanos": round((reply_s - int(reply_s)) * 1e9)}
        self._send(config={"max_reply": reply, "sampling": {"seed": self._line.seed}})
        self._call = self._channel.stream_stream(
            f"/{SERVICE}/Converse",
            request_serializer=lambda message: message.SerializeToString(),
            response_deserializer=self._contract["ConverseResponse"].FromString,
        )(self._requests(), metadata=(("authorization", f"Bearer {self._line.key}"),))
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._ready.wait(OPEN_S)
        if self.ear.closed is not None or not self._ready.is_set():
            self._channel.close()
            raise Refused(self.ear.closed or "no_answer")
        self._mouth.open()

    def say(self, samples: NDArray[np.int16]) -> Utterance:
        return self._mouth.say(samples)

    def cancel(self) -> None:
        self._send(cancel_response={"response_id": self._response})

    def hang_up(self) -> None:
        self._mouth.close()
        self._call.cancel()
        self._channel.close()

    def close(self) -> None:
        """Half-closes, waits a little for what is still owed, and goes."""
        self._mouth.close()
        self._asked.put(None)
        self.ear.wait(lambda: False, 2.0)
        self._channel.close()

    def late_s(self) -> float:
        late_s, self._mouth.late_s = self._mouth.late_s, 0.0
        return late_s

    def _append(self, samples: NDArray[np.int16]) -> None:
        self._send(audio=samples.tobytes())

    def _send(self, **fields: Any) -> None:
        self._asked.put(self._contract["ConverseRequest"](**fields))

    def _requests(self) -> Iterator[Any]:
        while (message := self._asked.get()) is not None:
            yield message

    def _read(self) -> None:
        try:
            for told in self._call:
                self._take(told)
            code = "closed"
        except grpc.RpcError as error:
            code = code_of(error)
        except ValueError:  # the channel was closed before it was asked
            code = "closed"
        self.ear.close(code)
        self._ready.set()

    def _take(self, told: Any) -> None:
        match told.WhichOneof("event"):
            case "session_ready":
                self._ready.set()
            case "audio_committed":
                self.ear.committed()
            case "response_started":
                self._response = told.response_started.response_id
                self.ear.begun(self._response)
            case "response_delta" if told.response_delta.audio:
                self.ear.audio(told.response_delta.response_id, len(told.response_delta.audio))
                self._line.dawdle(len(told.response_delta.audio))
            case "response_done":
                done = told.response_done
                code = reason_of(done.status.details, "failed") if done.finish_reason == FAILED else None
                stopped = done.finish_reason in (CANCELLED, INTERRUPTED)
                self.ear.done(done.response_id, code, "cancelled" if stopped else None)


def code_of(error: grpc.RpcError) -> str:
    """The stable reason of a status, or its code's name."""
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            return reason_of(status_pb2.Status.FromString(value).details, error.code().name)
    return str(error.code().name)


def reason_of(details: Any, otherwise: str) -> str:
    """The reason of the google.rpc.ErrorInfo among details, spelled as other protocols spell it."""
    for detail in details:
        if detail.type_url.endswith("/google.rpc.ErrorInfo"):
            return str(error_details_pb2.ErrorInfo.FromString(detail.value).reason).lower()
    return otherwise
