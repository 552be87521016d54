"""A proxy before PostgreSQL that can be told to fail as networks and servers do."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from threading import Thread

import sqlalchemy as sa


class Proxy:
    """Forwards connections of loopback to a PostgreSQL server, until it is told otherwise.

    :ivar port: where it listens
    :ivar silent: is what is sent taken, and nothing answered? So it is too where packets are lost
    :ivar cut_at: the connection that sends this is cut when the server has answered it, before the answer arrives
    """

    def __init__(self, server: str) -> None:
        self._server = server
        self._pairs: list[tuple[socket.socket, socket.socket]] = []
        self.silent = False
        self.cut_at: bytes | None = None
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self._listen()

    def refuse(self) -> None:
        """Close all connections, and refuse new ones."""
        self._stop(self._listener)
        self.cut()

    def restore(self) -> None:
        """Forward again, after `refuse` or while it is silent, whose connections are lost."""
        self.cut()
        self.silent = False
        if self._listener.fileno() < 0:
            self._listener = socket.create_server(("127.0.0.1", self.port))
            self._listen()

    def cut(self) -> None:
        """Close all connections."""
        pairs, self._pairs = self._pairs, []
        for pair in pairs:
            for end in pair:
                self._stop(end)

    def _listen(self) -> None:
        Thread(target=self._accept, args=(self._listener,), daemon=True).start()

    def _accept(self, listener: socket.socket) -> None:
        with suppress(OSError):  # it was closed
            while True:
                client, _ = listener.accept()
                server = socket.socket(socket.AF_UNIX)
                server.connect(self._server)
                self._pairs.append((client, server))
                for ends in ((client, server), (server, client)):
                    Thread(target=self._forward, args=ends, daemon=True).start()

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):  # one of the two was closed
            while data := source.recv(65536):
                if self.silent:
                    continue
                cut = self.cut_at is not None and self.cut_at in data
                if cut:
                    # What the server answers is not forwarded any more.
                    self.silent = True
                target.sendall(data)
                if cut:
                    self.cut_at = None
                    target.settimeout(0.5)
                    self._stop(source)
                    self.silent = False
        for end in (source, target):
            self._stop(end)

    @staticmethod
    def _stop(end: socket.socket) -> None:
        with suppress(OSError):  # it is closed already
            end.shutdown(socket.SHUT_RDWR)
        end.close()


@contextmanager
def proxied(url: str) -> Iterator[tuple[Proxy, str]]:
    """A proxy before the server of a database, and the URL of the database by it."""
    parsed = sa.make_url(url)
    proxy = Proxy(str(Path(str(parsed.query["host"])) / ".s.PGSQL.5432"))
    try:
        yield proxy, parsed.set(host="127.0.0.1", port=proxy.port, query={}).render_as_string(hide_password=False)
    finally:
        proxy.refuse()
