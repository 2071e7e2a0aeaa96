"""The servers that the project needs, started and stopped together."""

import secrets
from collections.abc import Mapping
from pathlib import Path
from typing import Self

# jinja: if cookiecutter.broker == "redis"
from dev.postgres import Postgres
from dev.processes import Server, free_port
from dev.valkey import Cache, Valkey

SERVERS: list[type[Server]] = [Postgres, Valkey, Cache]

# jinja: else
from dev.postgres import Postgres
from dev.processes import Server, free_port
from dev.rabbitmq import RabbitMQ
from dev.valkey import Valkey

SERVERS: list[type[Server]] = [Postgres, RabbitMQ, Valkey]

# jinja: endif
VARIABLES = [variable for server in SERVERS for variable in server.variables]


class Stack:
    """The servers behind the URLs that `given` lacks. They run inside `with Stack(...)`."""

    def __init__(self, folder: Path, given: Mapping[str, str | None], *, durable: bool) -> None:
        """Plan the servers: nothing starts yet, but every URL is known.

        Durable ones take the default ports where those are free, and keep data and password.
        MissingProgramError when a needed program is neither installed nor on PATH.
        """
        self.given = {name: url for name in VARIABLES if (url := given.get(name))}
        self.folder = folder
        self.password_file = folder / "password"
        # Without one, every user of this machine could log in.
        kept = self.password_file.exists()
        self.password = self.password_file.read_text() if kept else secrets.token_urlsafe(18)
        self.servers = [
            server(folder, free_port(server.default_port if durable else 0), self.password, durable=durable)
            for server in SERVERS
            if not self.given.keys() >= set(server.variables)
        ]

    @property
    def urls(self) -> dict[str, str]:
        """A URL for each of VARIABLES: the given ones, and those of our own servers."""
        own = {name: url for server in self.servers for name, url in server.urls.items()}
        return {**own, **self.given}

    def report(self) -> list[str]:
        """Return a line for each server and each given URL: what is used, and where it comes from."""
        lines = []
        for server in self.servers:
            moved = server.durable and server.port != server.default_port
            taken = f" ({server.default_port} is taken)" if moved else ""
            lines.append(f"{server.name}: port {server.port}{taken}, from {server.source}")
        return [*lines, *(f"{name}: as set in the environment or .env" for name in self.given)]

    def __enter__(self) -> Self:
        self.folder.mkdir(parents=True, exist_ok=True)
        self.password_file.touch(mode=0o600)
        self.password_file.write_text(self.password)
        try:
            for server in self.servers:
                server.start()
        except BaseException:
            self.__exit__()
            raise
        return self

    def __exit__(self, *_: object) -> None:
        for server in reversed(self.servers):
            server.stop()
