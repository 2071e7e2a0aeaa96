"""RabbitMQ for development and tests. No wheel carries it: it comes from the system."""

import os
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path

from kombu import Connection
from kombu.exceptions import OperationalError

from dev.processes import MissingProgramError, Server, free_port


class RabbitMQ(Server):
    """One node with its own name, ports and port mapper, so that any number can run side by side."""

    name = "RabbitMQ"
    default_port = 5672
    variables = ("BROKER_URL",)

    def __init__(self, folder: Path, port: int, password: str, *, durable: bool) -> None:
        super().__init__(folder, port, password, durable=durable)
        self.program = find_program()
        self.mapper_port = free_port()
        self.metrics_port = free_port()  # its own figures for Prometheus, as its official image has them

    @property
    def urls(self) -> dict[str, str]:
        return {"BROKER_URL": f"amqp://app:{self.password}@127.0.0.1:{self.port}//"}

    @property
    def data(self) -> Path:
        """The node's folder."""
        return self.folder / "rabbitmq"

    @property
    def pid_file(self) -> Path:
        return self.data / "rabbitmq.pid"

    def prepare(self) -> None:
        self.data.mkdir(exist_ok=True)
        note = self.data / "mapper_port"
        if self.pid_file.exists() and note.exists():  # a killed run left its port mapper too: take that over
            self.mapper_port = int(note.read_text())
        note.write_text(str(self.mapper_port))
        settings = self.data / "rabbitmq.conf"
        settings.touch(mode=0o600)
        settings.write_text(
            f"default_user = app\ndefault_pass = {self.password}\n"
            f"prometheus.tcp.ip = 127.0.0.1\nprometheus.tcp.port = {self.metrics_port}\n"
        )
        (self.data / "enabled_plugins").write_text("[rabbitmq_prometheus].\n")

    def command(self) -> Sequence[str | Path]:
        return [self.program]

    def environment(self) -> Mapping[str, str]:
        return {
            **os.environ,
            "HOME": str(self.data),  # for the cookie that its command line tools share
            "RABBITMQ_NODENAME": "app@localhost",  # never another one: the data belongs to this name
            "RABBITMQ_NODE_IP_ADDRESS": "127.0.0.1",
            "RABBITMQ_NODE_PORT": str(self.port),
            "RABBITMQ_DIST_PORT": str(free_port()),
            "RABBITMQ_SERVER_ADDITIONAL_ERL_ARGS": "-kernel inet_dist_use_interface {127,0,0,1}",
            "ERL_EPMD_ADDRESS": "127.0.0.1",
            "ERL_EPMD_PORT": str(self.mapper_port),
            "RABBITMQ_MNESIA_BASE": str(self.data / "mnesia"),
            "RABBITMQ_LOG_BASE": str(self.data / "log"),
            "RABBITMQ_PID_FILE": str(self.pid_file),
            "RABBITMQ_CONFIG_FILE": str(self.data / "rabbitmq.conf"),
            "RABBITMQ_CONF_ENV_FILE": str(self.data / "none"),
            "RABBITMQ_ENABLED_PLUGINS_FILE": str(self.data / "enabled_plugins"),
        }

    def answers(self) -> bool:
        try:
            with Connection(self.urls["BROKER_URL"], connect_timeout=2) as connection:
                connection.connect()
        except (OSError, OperationalError):
            return False
        return True

    def stop(self) -> None:
        super().stop()
        # The node starts Erlang's port mapper and leaves it running.
        subprocess.run(["epmd", "-port", str(self.mapper_port), "-kill"], capture_output=True)


def find_program() -> Path:
    """Return the server's program: on Debian the one behind the script on PATH, which any user may run."""
    debian = Path("/usr/lib/rabbitmq/bin/rabbitmq-server")
    if debian.exists():
        return debian
    if found := shutil.which("rabbitmq-server"):
        return Path(found)
    raise MissingProgramError(
        "RabbitMQ is missing: install it (`apt-get install rabbitmq-server`, `brew install rabbitmq`), "
        "or set BROKER_URL=amqp://user:password@host:5672// in .env, or use `docker compose up`."
    )
