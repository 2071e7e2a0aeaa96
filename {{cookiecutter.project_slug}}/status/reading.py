"""What the processes have reported, read in two round trips however many there are."""

import json
import time
from dataclasses import dataclass
from typing import Any

from status.reporting import EVERY, PROCESSES, Figures, connect_to_cache, now_key, past_key

SILENT_AFTER = 3 * EVERY + 5  # seconds without a report after which nothing more is known of a process


@dataclass(frozen=True)
class Sample:
    """Some figures of a moment, in seconds since 1970."""

    at: float
    figures: Figures

    def value(self, name: str, **labels: str) -> float | None:
        """Return the sum of a figure over all series with these labels; None when it was not told."""
        found = [value for series, value in self.series(name) if series.items() >= labels.items()]
        return sum(found) if found else None

    def highest(self, name: str) -> float | None:
        """Return the highest value of a figure; None when it was not told."""
        return max((value for _, value in self.series(name)), default=None)

    def series(self, name: str) -> list[tuple[dict[str, str], float]]:
        """Return the labels and the value of each series."""
        return self.figures.get(name, [])


@dataclass(frozen=True)
class Report(Sample):
    """The last report of a process, and the samples of its past, the oldest first."""

    process: str
    role: str
    past: list[Sample]

    @property
    def name(self) -> str:
        """The name without the role."""
        return self.process.partition(" ")[2]

    @property
    def is_silent(self) -> bool:
        """Whether the process should have reported since."""
        return time.time() - self.at > SILENT_AFTER


def reports() -> list[Report]:
    """Return the last report of each process, by name; redis.RedisError when the cache does not answer."""
    with connect_to_cache() as client:
        processes = sorted(name.decode() for name in client.zrange(PROCESSES, 0, -1))
        with client.pipeline(transaction=False) as pipeline:
            for process in processes:
                pipeline.get(now_key(process)).lrange(past_key(process), 0, -1)
            answers = pipeline.execute()
    return [
        _report(process, now, past)
        for process, now, past in zip(processes, answers[::2], answers[1::2], strict=True)
        if now  # a cache may evict it
    ]


def _report(process: str, now: bytes, past: list[bytes]) -> Report:
    told: dict[str, Any] = json.loads(now)
    samples = json.loads(b"[%b]" % b",".join(reversed(past)))  # at once: there may be thousands
    return Report(told["at"], told["figures"], process, told["role"], [Sample(**one) for one in samples])
