"""What the tasks have really done, read from PostgreSQL over connections of our own."""

from typing import Any

import psycopg

from tests.harness import database_url, eventually

TABLE = """
CREATE TABLE IF NOT EXISTS faults_effects (
    number bigserial PRIMARY KEY,
    key text NOT NULL,
    event text NOT NULL,
    pid int NOT NULL,
    at timestamptz NOT NULL DEFAULT clock_timestamp()
)
"""


def query(sql: str, *parameters: Any) -> list[tuple[Any, ...]]:
    """Run a statement on a fresh connection, since PostgreSQL itself is restarted here. Return the rows."""
    with psycopg.connect(database_url(), autocommit=True, connect_timeout=5) as connection:
        cursor = connection.execute(sql, parameters)
        return cursor.fetchall() if cursor.description else []


def clear() -> None:
    """Make the table, or empty it."""
    query(TABLE)
    query("TRUNCATE faults_effects, reliability_deadletter")


def events(key: str) -> list[str]:
    """Return what happened to the task with this key, in order."""
    return [
        event for (event,) in query("SELECT event FROM faults_effects WHERE key = %s ORDER BY number", key)
    ]


def until_begun(key: str, times: int = 1) -> int:
    """Return the pid of the process that runs this task, once it has begun for that many times."""
    begun = "SELECT pid FROM faults_effects WHERE key = %s AND event = 'begun' ORDER BY number"
    pids = eventually(lambda: len(rows := query(begun, key)) >= times and rows, f"{key} begun {times} times")
    return int(pids[-1][0])


def pid_of(key: str) -> int:
    """Return the pid of the process that ran the task last, 0 when none did."""
    found = query("SELECT pid FROM faults_effects WHERE key = %s ORDER BY number DESC LIMIT 1", key)
    return int(found[0][0]) if found else 0


def is_unfinished(key: str) -> bool:
    """Return whether the task has begun and not finished: so it was interrupted, or runs."""
    return events(key)[-1:] == ["begun"]


def finished() -> dict[str, int]:
    """Return how often each task finished."""
    return dict(query("SELECT key, count(*) FROM faults_effects WHERE event = 'finished' GROUP BY key"))


def last_finish() -> float:
    """Return when the last task that finished did so for the first time, in seconds since 1970."""
    firsts = "SELECT min(at) AS at FROM faults_effects WHERE event = 'finished' GROUP BY key"
    ((seconds,),) = query(f"SELECT extract(epoch FROM max(at)) FROM ({firsts}) AS firsts")  # noqa: S608
    return float(seconds or 0)


def dead_letters(reason: str = "") -> int:
    """Return how many dead letters there are, of this reason or of all."""
    ((number,),) = query("SELECT count(*) FROM reliability_deadletter WHERE reason LIKE %s", reason or "%")
    return int(number)
