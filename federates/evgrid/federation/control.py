"""The line between the processes of a federation, beside HELICS: who lives, and who failed first.

Each process that runs federates of evgrid is connected to the one that hosts the broker, over TCP: it
says who it is, gives a sign of life twice a second with its progress, reports the first cause when it
fails, and sends its part of the result at the end. The host says when to stop, and when all may leave.
Messages are JSON, never pickles: nothing that arrives is executed, and its size is bounded.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import socket
import struct
import threading
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from time import monotonic, sleep
from typing import Any

from evgrid.errors import EvgridError, RunError
from evgrid.federation.adapter import Adapter

PORTS = 3
"""Ports that a host listens at: two of HELICS' broker, and the last for this line."""

BLOCK = 20
"""Ports of a run on one machine: the host's, and the following ones, of which the broker gives one to each
process or program that joins."""

BEAT_S = 0.5
"""Time between two signs of life."""

_HEADER = struct.Struct(">cI")
_MESSAGE, _DATA = b"m", b"d"
_MOST_BYTES = 2**20


class Link:
    """Messages, mappings that JSON can hold, and bytes of files over a socket; both ways, from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._socket = connection
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._sending = threading.Lock()
        self._buffer = bytearray()

    def fileno(self) -> int:
        """For ``selectors``."""
        return self._socket.fileno()

    def send(self, **message: Any) -> None:
        """Send a message. Raises OSError where the other side is gone."""
        self._send(_MESSAGE, json.dumps(message).encode())

    def send_file(self, path: Path) -> None:
        """Send the content of a file, in blocks."""
        with path.open("rb") as file:
            while block := file.read(_MOST_BYTES):
                self._send(_DATA, block)

    def _send(self, kind: bytes, content: bytes) -> None:
        with self._sending:
            self._socket.sendall(_HEADER.pack(kind, len(content)) + content)

    def receive(self) -> Iterator[dict[str, Any] | bytes]:
        """What has arrived, after waiting for something: messages, and blocks of a file.

        Raises EOFError when the other side has closed the line, and ValueError for what is no message.
        """
        try:
            received = self._socket.recv(_MOST_BYTES)
        except OSError:
            received = b""
        if not received:
            raise EOFError
        self._buffer += received
        while len(self._buffer) >= _HEADER.size:
            kind, size = _HEADER.unpack_from(self._buffer)
            if kind not in (_MESSAGE, _DATA) or size > _MOST_BYTES:
                raise ValueError("no message of evgrid")
            end = _HEADER.size + size
            if len(self._buffer) < end:
                return
            content = bytes(self._buffer[_HEADER.size : end])
            del self._buffer[:end]
            if kind == _DATA:
                yield content
                continue
            message = json.loads(content)
            if not isinstance(message, dict):
                raise ValueError("no message of evgrid")
            yield message

    def close(self) -> None:
        """Close the line."""
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)
        self._socket.close()


class Member:
    """A process's end of the line: it runs one federate, ``name``; see :class:`.runtime.Elsewhere`.

    Connecting waits until the host listens, at most ``wait_s``. Raises RunError if there is none, or if it
    refuses the federate: because of another scenario (``digest``), or a name that is taken.
    """

    def __init__(self, name: str, host: str, port: int, digest: str, wait_s: float) -> None:
        self.host, self.port = host, port
        self._link = Link(_connected(host, port + PORTS - 1, wait_s))
        self._adapters: Sequence[Adapter] = ()
        self._stop: str | None = None
        self._leave = False
        self._reported = False
        self._quiet = threading.Event()
        self._link.send(hello=name, digest=digest, pid=os.getpid(), machine=socket.gethostname())
        try:
            answer = next(self._link.receive(), {})
        except (EOFError, ValueError):
            raise RunError(
                f"{name}: what listens at {host}:{port + PORTS - 1} is no broker of evgrid"
            ) from None
        if not isinstance(answer, dict) or answer.get("refused"):
            raise RunError(str(answer.get("refused")) if isinstance(answer, dict) else "")
        threading.Thread(target=self._beat, name="evgrid-beat", daemon=True).start()
        threading.Thread(target=self._listen, name="evgrid-listen", daemon=True).start()

    def watch(self, adapters: Sequence[Adapter]) -> None:
        """See :class:`.runtime.Elsewhere`."""
        self._adapters = adapters
        if self._stop is not None:
            self._reported = True
            raise RunError(self._stop)

    def ended(self) -> bool:
        """See :class:`.runtime.Elsewhere`."""
        return self._leave

    def failed(self, reason: str) -> None:
        """See :class:`.runtime.Elsewhere`."""
        if not self._reported:
            self._reported = True
            with contextlib.suppress(OSError):
                self._link.send(failed=reason)

    def behind(self, speed: float, time_s: float, late_s: float, stepping_s: Mapping[str, float]) -> None:
        """See :class:`.runtime.Elsewhere`."""
        with contextlib.suppress(OSError):
            self._link.send(behind=[speed, time_s, late_s], stepping_s=dict(stepping_s))

    def deliver(self, part: Path, report: dict[str, Any]) -> None:
        """Send the part of the result and the report of its run; both are then the host's."""
        try:
            self._link.send_file(part)
            self._link.send(part=part.stat().st_size, report=report)
        except OSError as error:
            raise RunError(f"the broker's process is gone: {error}") from error

    def close(self) -> None:
        """Close the line."""
        self._quiet.set()
        self._link.close()

    def _beat(self) -> None:
        while not self._quiet.wait(BEAT_S):
            slowest = min(self._adapters, key=lambda adapter: adapter.done_s, default=None)
            try:
                if slowest is None:
                    self._link.send(phase="preparing")
                else:
                    self._link.send(
                        phase=slowest.progress.phase,
                        time_s=slowest.time_s,
                        done_s=slowest.done_s,
                        stepping_s=slowest.progress.stepping_s,
                    )
            except OSError:
                return

    def _listen(self) -> None:
        try:
            while True:
                for message in self._link.receive():
                    if isinstance(message, dict):
                        self._stop = message.get("stop", self._stop)
                        self._leave = self._leave or bool(message.get("leave"))
        except (EOFError, ValueError):
            if not self._quiet.is_set():
                self._stop = self._stop or "the broker's process is gone"


def _connected(host: str, port: int, wait_s: float) -> socket.socket:
    until = monotonic() + wait_s
    while True:
        try:
            found = socket.create_connection((host, port), timeout=max(until - monotonic(), 0.1))
            found.settimeout(None)
            return found
        except OSError as error:
            if monotonic() > until:
                raise RunError(
                    f"no broker of evgrid answers at tcp://{host}:{port - PORTS + 1} within "
                    f"{wait_s:g} s: {error.strerror or error}"
                ) from error
        sleep(0.1)


def check_free(host: str, port: int) -> None:
    """Raise EvgridError unless a port can be listened at."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as trial:
        trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            trial.bind((host, port))
        except OSError as error:
            raise EvgridError(
                f"federation.broker: port {port} of {host} can't be used: {error.strerror}; name another "
                "one, or end the program that has it"
            ) from error


def free_ports(host: str = "127.0.0.1") -> int:
    """First port of a block of free ones (:data:`BLOCK`); two blocks are the same or have none in common.

    Below the range from which systems give ports to connections, which may take any of them at any time.
    """
    while True:
        port = 20_000 + BLOCK * secrets.randbelow(12_000 // BLOCK)
        try:
            for number in range(port, port + BLOCK):
                check_free(host, number)
            return port
        except EvgridError:
            continue
