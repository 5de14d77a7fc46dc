"""A call over the Realtime WebSocket, with a microphone that never stops and turns found by the server."""

import base64
import json
import socket
import struct
import threading
from typing import Any

import numpy as np
import websocket
from numpy.typing import NDArray

from loadtest.audio_event import opened
from loadtest.load.call import Line, Refused
from loadtest.load.ear import Ear
from loadtest.load.mouth import Mouth
from loadtest.microphone import Utterance

OPEN_S = 20.0
SLOW_BUFFER = 16 << 10  # bytes that the kernel may take for a slow reader


class RealtimeCall:
    door = "realtime"

    def __init__(self, line: Line) -> None:
        self._line, self.ear = line, Ear()
        self._mouth = Mouth(self._append)

    def open(self) -> None:
        options = [(socket.SOL_SOCKET, socket.SO_RCVBUF, SLOW_BUFFER)] if self._line.slow else []
        try:
            self._socket = websocket.create_connection(
                self._line.url.replace("http", "ws", 1) + "/v1/realtime?model=chroma",
                timeout=OPEN_S,
                header=[f"Authorization: Bearer {self._line.key}"],
                enable_multithread=True,
                sockopt=[*options, (socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)],
            )
        except websocket.WebSocketBadStatusException as error:
            raise Refused(code_of(error.resp_body, f"HTTP_{error.status_code}")) from error
        except (OSError, websocket.WebSocketException) as error:
            raise Refused(type(error).__name__) from error
        self._socket.settimeout(None)
        chroma = {"max_reply_s": self._line.reply_s, "seed": self._line.seed}
        self._send(type="session.update", session={"type": "realtime", "chroma": chroma})
        threading.Thread(target=self._read, name="reader", daemon=True).start()
        self._mouth.open()

    def say(self, samples: NDArray[np.int16]) -> Utterance:
        return self._mouth.say(samples)

    def cancel(self) -> None:
        self._send(type="response.cancel")

    def hang_up(self) -> None:
        """The connection is reset, as when a phone loses its network."""
        self._mouth.close()
        plain = self._socket.sock
        if plain is not None:
            plain.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            self._socket.shutdown()

    def close(self) -> None:
        self._mouth.close()
        self._socket.close(timeout=2)

    def late_s(self) -> float:
        late_s, self._mouth.late_s = self._mouth.late_s, 0.0
        return late_s

    def _append(self, samples: NDArray[np.int16]) -> None:
        audio = base64.b64encode(samples.tobytes()).decode()
        self._send(type="input_audio_buffer.append", audio=audio)

    def _send(self, **event: Any) -> None:
        """Raises OSError."""
        try:
            self._socket.send(json.dumps(event))
        except websocket.WebSocketException as error:
            raise ConnectionError(str(error)) from error

    def _read(self) -> None:
        try:
            while text := self._socket.recv():
                self._take(str(text))
            code = "closed"
        except (OSError, websocket.WebSocketException) as error:
            code = type(error).__name__
        self.ear.close(code)

    def _take(self, text: str) -> None:
        event, audio_bytes = opened(text)
        match event["type"]:
            case "response.output_audio.delta":
                self.ear.audio(event["response_id"], audio_bytes)
                self._line.dawdle(audio_bytes)
            case "input_audio_buffer.committed":
                self.ear.committed()
            case "response.created":
                self.ear.begun(event["response"]["id"])
            case "response.done":
                details = event["response"].get("status_details") or {}
                code = (details.get("error") or {}).get("code")
                self.ear.done(event["response"]["id"], code, details.get("reason"))


def code_of(body: bytes | str | None, otherwise: str) -> str:
    """The code in OpenAI's error object."""
    try:
        return str(json.loads(body or "")["error"]["code"])
    except (ValueError, KeyError, TypeError):
        return otherwise
