"""What the processes have reported, read in two round trips however many there are."""

import json
from dataclasses import dataclass
from typing import Any

from status.reporting import EVERY, PROCESSES, Figures, connect_to_cache, now_key, past_key

SILENT_AFTER = 3 * EVERY + 5  # seconds without a report after which nothing more is known of a process


@dataclass(frozen=True)
class Sample:
    """Some figures of a moment, in seconds since 1970 by the cache's clock."""

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
    past: list[Sample]
    age: float  # seconds

    @property
    def role(self) -> str:
        """What kind of process it is."""
        return self.process.partition(" ")[0]

    @property
    def name(self) -> str:
        """The name without the role."""
        return self.process.partition(" ")[2]

    @property
    def now(self) -> float:
        """The cache's time when this was read."""
        return self.at + self.age

    @property
    def is_silent(self) -> bool:
        """Whether the process should have reported since."""
        return self.age > SILENT_AFTER


def reports() -> list[Report]:
    """Return the last report of each process, by name; redis.RedisError when the cache does not answer."""
    with connect_to_cache() as client:
        with client.pipeline(transaction=False) as pipeline:
            pipeline.time().zrange(PROCESSES, 0, -1, withscores=True)
            (now, _), processes = pipeline.execute()
        names = sorted(name.decode() for name, _ in processes)
        with client.pipeline(transaction=False) as pipeline:
            for name in names:
                pipeline.get(now_key(name)).lrange(past_key(name), 0, -1)
            answers = pipeline.execute()
    moments = {name.decode(): moment for name, moment in processes}
    return [
        Report(moments[name], _figures(told), name, _samples(past), now - moments[name])
        for name, told, past in zip(names, answers[::2], answers[1::2], strict=True)
    ]


def _figures(told: bytes | None) -> Figures:
    """Return what a process told; nothing where the cache has evicted it, or another release wrote it."""
    try:
        found: Figures = dict(json.loads(told or b"{}"))
    except (ValueError, TypeError):
        return {}
    return found


def _samples(past: list[bytes]) -> list[Sample]:
    """Return the samples, the oldest first; parsed at once, since there may be thousands."""
    found: list[dict[str, Any]] = json.loads(b"[%b]" % b",".join(reversed(past)))
    return [Sample(one["at"], one["figures"]) for one in found]
