"""The way to a server, whose host can vanish from there, as when it loses its power."""

import selectors
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import urlsplit

WAIT = 5  # seconds; the bound of everything here that waits for somebody


class Relay:
    """Passes connections on to a server of this machine; `url` leads to the server by way of it."""

    def __init__(self, url: str) -> None:
        self.target = urlsplit(url).port
        self.listener = socket.create_server(("127.0.0.1", 0), backlog=0)
        self.url = url.replace(f":{self.target}/", f":{self.listener.getsockname()[1]}/")
        self.clients: list[socket.socket] = []
        self.servers: list[socket.socket] = []
        self.begin()

    def begin(self) -> None:
        """Accept connections, and pass on what comes over them."""
        self.enough = threading.Event()
        self.thread = threading.Thread(target=self._pass_on)
        self.thread.start()

    def end(self) -> None:
        """Do nothing any more; all connections stay as they are."""
        self.enough.set()
        self.thread.join()

    @contextmanager
    def vanished(self) -> Iterator[None]:
        """Have nobody there meanwhile: no answer, no end of a connection, no refusal of a new one.

        The server loses its connections, and their other ends are never told.
        """
        self.end()
        for server in self.servers:
            server.close()
        with full(self.listener):
            yield
        self.begin()

    def _pass_on(self) -> None:
        others: dict[socket.socket, socket.socket] = {}
        with selectors.DefaultSelector() as selector:
            selector.register(self.listener, selectors.EVENT_READ, self.listener)
            while not self.enough.is_set():
                for key, _ in selector.select(0.05):
                    one: socket.socket = key.data
                    if one is self.listener:
                        client, server = self.listener.accept()[0], socket.socket()
                        server.connect(("127.0.0.1", self.target))
                        others |= {client: server, server: client}
                        self.clients.append(client)
                        self.servers.append(server)
                        for new in (client, server):
                            new.settimeout(WAIT)
                            selector.register(new, selectors.EVENT_READ, new)
                    elif one in others and not _forward(one, others[one]):
                        for closed in (one, others[one]):
                            selector.unregister(closed)
                            closed.close()
                            del others[closed]


def _forward(one: socket.socket, other: socket.socket) -> bool:
    """Pass on what came from one end; return whether the connection goes on."""
    try:
        if data := one.recv(65536):
            other.sendall(data)
    except OSError:
        return False
    return bool(data)


@contextmanager
def relay(url: str) -> Iterator[Relay]:
    """Give a relay to this server, and close all that it opened at the end."""
    opened = Relay(url)
    try:
        yield opened
    finally:
        opened.end()
        for one in (opened.listener, *opened.clients, *opened.servers):
            one.close()


@contextmanager
def full(listener: socket.socket) -> Iterator[None]:
    """Have no room for another connection to this listener, which nobody accepts: packets are lost."""
    waiting = [socket.socket() for _ in range(4)]
    for client in waiting:
        client.setblocking(False)
        client.connect_ex(listener.getsockname())
    try:
        yield
    finally:
        for client in waiting:
            client.close()
