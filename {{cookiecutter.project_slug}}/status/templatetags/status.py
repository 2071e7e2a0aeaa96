"""Durations and moments for a person who is in a hurry; what is not known is a question mark."""

from datetime import UTC, datetime

from django import template

register = template.Library()
UNKNOWN = "?"
UNITS = ((24 * 3600, "d"), (3600, "h"), (60, "min"))  # seconds


@register.filter
def duration(seconds: float | None) -> str:
    """Return 2.5 as "2 s", 150 as "2 min"."""
    if seconds is None:
        return UNKNOWN
    for size, unit in UNITS:
        if seconds >= 2 * size:
            return f"{seconds / size:.0f} {unit}"
    return f"{seconds:.0f} s"


@register.filter
def number(value: float | None) -> str:
    """Return 12345.0 as "12,345", and 0.4 as it is."""
    if value is None:
        return UNKNOWN
    return f"{value:,.0f}" if value >= 10 else f"{value:.1f}".removesuffix(".0")


@register.filter
def moment(seconds: float | None) -> datetime | None:
    """Return seconds since 1970 as what the filter `date` takes."""
    return None if seconds is None else datetime.fromtimestamp(seconds, UTC)
