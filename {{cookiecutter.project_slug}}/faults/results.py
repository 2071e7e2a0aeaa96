"""The table of the run: what each fault did to the tasks, with each profile."""

from collections.abc import Sequence
from dataclasses import dataclass

HEAD = (
    "Fault",
    "Broker",
    "Settings",
    "Sent",
    "Finished",
    "Lost",
    "Held",
    "Dead letters",
    "Run twice",
    "Seconds",
    "Seen",
)


@dataclass(frozen=True)
class Row:
    """What came of one scenario."""

    fault: str
    broker: str
    profile: str
    sent: int
    finished: int
    lost: int  # taken by the broker, and gone without a trace
    held: int  # still in the broker when we stopped looking
    letters: int  # dead letters
    twice: int  # finished more than once
    seconds: (
        float | None
    )  # from the fault until all had finished; None: they had not, or there was no such moment
    patience: float  # seconds for which we looked
    seen: str  # what the counts cannot say

    @property
    def time(self) -> str:
        """The seconds until all had finished, for people."""
        if self.seconds is not None:
            return f"{self.seconds:.1f}"
        return "never" if self.lost else f"> {self.patience:.0f}" if self.held else "-"

    @property
    def cells(self) -> tuple[str, ...]:
        """The row, as HEAD names it."""
        counts = (self.sent, self.finished, self.lost, self.held, self.letters, self.twice)
        return (self.fault, self.broker, self.profile, *map(str, counts), self.time, self.seen)

    @property
    def outcome(self) -> str:
        """The row in a few words, to stand beside those of other profiles."""
        words = [f"**{self.lost} of {self.sent} lost**" if self.lost else ""]
        words += [f"{self.held} of {self.sent} not back after {self.patience:.0f} s" if self.held else ""]
        words += [
            f"{self.letters} dead letters" if self.letters else "",
            f"{self.twice} run twice" if self.twice else "",
        ]
        words += [f"all run, {self.seconds:.1f} s" if self.seconds is not None and not self.held else ""]
        words += [self.seen]
        return ", ".join(filter(None, words)) or "all run"


def lines(rows: Sequence[Row]) -> list[str]:
    """Return the table for a terminal."""
    cells = [HEAD, *(row.cells for row in rows)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return [
        "  ".join(cell.ljust(width) for cell, width in zip(line, widths, strict=True)).rstrip()
        for line in cells
    ]
