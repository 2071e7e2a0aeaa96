"""Transactions that end badly, on purpose."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from typing import Any

import pytest
from django.db import transaction


class OnPurpose(Exception):
    """Rolls a transaction back."""


@contextmanager
def committed_with(error: type[Exception]) -> Iterator[Any]:
    """A transaction whose commit raises this."""
    with pytest.raises(error) as raised, transaction.atomic():
        yield raised


@contextmanager
def rolled_back(**atomic: Any) -> Iterator[None]:
    """A transaction that ends with an error."""
    with suppress(OnPurpose), transaction.atomic(**atomic):
        yield
        raise OnPurpose
