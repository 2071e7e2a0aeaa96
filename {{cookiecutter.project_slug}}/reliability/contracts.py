"""What messages in flight rely on: each task's name, queue and parameters, in a file that git tracks.

A message outlives the code that sent it, so a change of these takes two steps. `compare` tells which
changes would lose messages, and what the steps are.
"""

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from difflib import get_close_matches
from inspect import Parameter as _Parameter

POSITIONAL_ONLY = _Parameter.POSITIONAL_ONLY.description
KEYWORD_ONLY = _Parameter.KEYWORD_ONLY.description
POSITIONAL = {POSITIONAL_ONLY, _Parameter.POSITIONAL_OR_KEYWORD.description}
ARGS, KWARGS = _Parameter.VAR_POSITIONAL.description, _Parameter.VAR_KEYWORD.description
VARIADIC = {ARGS: "*args", KWARGS: "**kwargs"}

DRAIN = "deploy, let the queue drain, delayed messages too; then"


@dataclass(frozen=True)
class Parameter:
    """One parameter: `kind` in the words of `inspect`, `annotation` as the source spells it."""

    name: str
    kind: str
    required: bool
    annotation: str | None = None


@dataclass(frozen=True)
class Contract:
    """The queue that a task is sent to, and its parameters in their order."""

    queue: str
    parameters: tuple[Parameter, ...]


@dataclass(frozen=True)
class Change:
    """A difference between the file and the code; `breaks` when messages in flight would be lost by it."""

    text: str
    breaks: bool


Contracts = Mapping[str, Contract]  # by the task's name


def dumps(contracts: Contracts) -> str:
    """Return the file's text: JSON, sorted by name, a line for each parameter."""
    return "{\n" + ",\n".join(_block(name, contracts[name]) for name in sorted(contracts)) + "\n}\n"


def _block(name: str, contract: Contract) -> str:
    lines = ",\n".join(f"      {json.dumps(asdict(parameter))}" for parameter in contract.parameters)
    parameters = f"[\n{lines}\n    ]" if lines else "[]"
    return f'  "{name}": {{\n    "queue": {json.dumps(contract.queue)},\n    "parameters": {parameters}\n  }}'


def loads(text: str) -> dict[str, Contract]:
    """Return what the text of a file says; ValueError when it is no such file."""
    try:
        return {
            name: Contract(fields["queue"], tuple(Parameter(**each) for each in fields["parameters"]))
            for name, fields in json.loads(text).items()
        }
    except (AttributeError, KeyError, TypeError) as error:
        raise ValueError(f"not what `manage.py taskcontracts` writes ({error})") from error


def compare(old: Contracts, new: Contracts) -> list[Change]:
    """Return every difference, in the order of the tasks' names."""
    changes = []
    queues = {contract.queue for contract in new.values()}
    for name in sorted(old.keys() | new.keys()):
        if name not in old:
            changes.append(Change(f"{name} is new.", breaks=False))
        elif name not in new:
            changes.append(Change(f"{name}: {_removed(name, old, new)}", breaks=True))
        elif old[name] != new[name]:
            before, after = old[name], new[name]
            breaks = [*_queue(before, after, queues), *_signature(before.parameters, after.parameters)]
            changes += [Change(f"{name}: {text}", breaks=True) for text in breaks] or [
                Change(f"{name} changed, in a way that messages in flight survive.", breaks=False)
            ]
    return changes


def _removed(name: str, old: Contracts, new: Contracts) -> str:
    alike = [other for other in new if other not in old and new[other].parameters == old[name].parameters]
    if not alike:
        return f"the task is gone. First keep it and send it no more; {DRAIN} remove it."
    (guess,) = get_close_matches(name, alike, n=1, cutoff=0)
    return (
        f"the task is gone, perhaps renamed to {guess}. "
        f"First keep the old name as a task that calls the new one; {DRAIN} remove it."
    )


def _queue(old: Contract, new: Contract, queues: set[str]) -> Iterator[str]:
    if old.queue not in queues:
        yield (
            f"moved from the queue {old.queue}, which no task uses now, to {new.queue}. "
            f"First have workers consume both (-Q {old.queue},{new.queue}); {DRAIN} give up {old.queue}."
        )


def _signature(old: Sequence[Parameter], new: Sequence[Parameter]) -> Iterator[str]:
    """Yield what an old message may do and the new parameters refuse, and how to get there."""
    before, after = _named(old), _named(new)
    gone = [name for name in before if name not in after and not _swallowed(before[name], old, new)]
    pairs = zip(before, after, strict=False)
    renamed = {one: other for one, other in pairs if one in gone and other not in before}
    for name in gone:
        if name in renamed:
            other = renamed[name]
            yield f"{name} became {other}, it seems. First take both, with defaults; {DRAIN} remove {name}."
        else:
            yield f"{name} was removed. First keep it, with a default, and ignore it; {DRAIN} remove it."
    for kind, stars in VARIADIC.items():
        if kind in _kinds(old) - _kinds(new):
            yield f"{stars} was removed. First keep it and pass nothing to it; {DRAIN} remove it."
    for name in before:
        if name in after:
            yield from _narrowed(before[name], after[name])
    for name in after:
        if after[name].required and name not in before and name not in renamed.values():
            yield f"{name} is new and has no default. First give it one; {DRAIN} drop the default."
    order, now = _positional(old), _positional(new)
    extra = len(now) > len(order) and ARGS in _kinds(old)  # it takes what *args got
    if extra or any(name in now and now.index(name) != order.index(name) for name in order):
        places = f"({', '.join(order)}) became ({', '.join(now)})"
        yield f"the positions {places}. First pass keywords in every call; {DRAIN} change the positions."


def _narrowed(old: Parameter, new: Parameter) -> Iterator[str]:
    """Yield in what ways a parameter that is still there takes less than it did."""
    if new.required and not old.required:
        yield f"{old.name} lost its default. First pass one in every call; {DRAIN} drop the default."
    if new.kind == KEYWORD_ONLY and old.kind in POSITIONAL:
        yield f"{old.name} became keyword-only. First pass it by keyword; {DRAIN} make it so."
    if new.kind == POSITIONAL_ONLY and old.kind != POSITIONAL_ONLY:
        yield f"{old.name} became positional-only. First pass it by position; {DRAIN} make it so."


def _swallowed(parameter: Parameter, old: Sequence[Parameter], new: Sequence[Parameter]) -> bool:
    """Return whether `new` takes a parameter that it does not name, by *args and **kwargs."""
    if parameter.kind == KEYWORD_ONLY:
        return KWARGS in _kinds(new)
    at_the_end = _positional(old).index(parameter.name) >= len(_positional(new))
    return at_the_end and {ARGS, KWARGS} <= _kinds(new)


def _named(parameters: Sequence[Parameter]) -> dict[str, Parameter]:
    return {each.name: each for each in parameters if each.kind not in VARIADIC}


def _positional(parameters: Sequence[Parameter]) -> list[str]:
    return [each.name for each in parameters if each.kind in POSITIONAL]


def _kinds(parameters: Sequence[Parameter]) -> set[str]:
    return {each.kind for each in parameters}
