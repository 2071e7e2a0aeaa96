"""What messages in flight rely on, and the command that guards it."""

import functools
import inspect
import itertools
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from datetime import datetime
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
from celery import Celery

from dev import BASE_DIR
from reliability.contracts import Contract, Parameter, compare, dumps, loads
from reliability.signatures import parameters_of, queue_of

Function = Callable[..., Any]
DRAIN = "let the queue drain"


def nothing() -> None:
    """Take nothing, do nothing."""


def contract(function: Function, queue: str = "celery") -> Contract:
    """Return the contract of a task made of this function."""
    return Contract(queue, parameters_of(function))


def lines(old: dict[str, Contract], new: dict[str, Contract], *, breaks: bool) -> list[str]:
    """Return what is said about the changes that break messages, or about the others."""
    return [change.text for change in compare(old, new) if change.breaks is breaks]


BREAKING: dict[str, tuple[Function, Function, str]] = {
    "removed": (lambda a, b: 0, lambda a: 0, "b was removed"),
    "removed, though keywords are taken": (lambda a, b: 0, lambda a, **more: 0, "b was removed"),
    "renamed": (lambda a: 0, lambda b: 0, "a became b"),
    "new, without a default": (lambda a: 0, lambda a, b: 0, "b is new and has no default"),
    "new keyword, without a default": (lambda a: 0, lambda a, *, b: 0, "b is new and has no default"),
    "default dropped": (lambda a=1: 0, lambda a: 0, "a lost its default"),
    "swapped": (lambda a, b: 0, lambda b, a: 0, "(a, b) became (b, a)"),
    "new in front": (lambda a: 0, lambda b=1, a=1: 0, "(a) became (b, a)"),
    "new where *args were": (lambda a, *more: 0, lambda a, b=1, *more: 0, "(a) became (a, b)"),
    "*args dropped": (lambda a, *more: 0, lambda a: 0, "*args was removed"),
    "**kwargs dropped": (lambda a, **more: 0, lambda a: 0, "**kwargs was removed"),
    "keyword-only": (lambda a: 0, lambda *, a: 0, "a became keyword-only"),
    "positional-only": (lambda a: 0, lambda a, /: 0, "a became positional-only"),
}

HARMLESS: dict[str, tuple[Function, Function]] = {
    "new at the end, with a default": (lambda a: 0, lambda a, b=1: 0),
    "new keyword with a default": (lambda a: 0, lambda a, *, b=1: 0),
    "a default added": (lambda a: 0, lambda a=1: 0),
    "*args and **kwargs added": (lambda a: 0, lambda a, *args, **kwargs: 0),
    "removed, and still taken": (lambda a, b: 0, lambda a, *args, **kwargs: 0),
    "a keyword may be positional": (lambda a, *, b: 0, lambda a, b: 0),
}


@pytest.mark.parametrize(("old", "new", "words"), BREAKING.values(), ids=BREAKING)
def test_a_change_that_breaks_messages_says_what_and_the_two_steps(
    old: Function, new: Function, words: str
) -> None:
    (line,) = lines({"shop.pay": contract(old)}, {"shop.pay": contract(new)}, breaks=True)
    assert line.startswith("shop.pay: ")
    assert words in line
    first, drain, last = line.index(" First "), line.index(DRAIN), line.index("; then ")
    assert first < drain < last


@pytest.mark.parametrize(("old", "new"), HARMLESS.values(), ids=HARMLESS)
def test_a_change_that_messages_survive_is_only_to_be_noted(old: Function, new: Function) -> None:
    before, after = {"shop.pay": contract(old)}, {"shop.pay": contract(new)}
    assert lines(before, after, breaks=True) == []
    (line,) = lines(before, after, breaks=False)
    assert "shop.pay changed" in line


def signatures() -> Iterator[inspect.Signature]:
    """Yield every signature of up to two parameters, called a and b, with and without *args and **kwargs."""
    kinds = [inspect.Parameter.POSITIONAL_OR_KEYWORD, inspect.Parameter.KEYWORD_ONLY]
    for names in [*itertools.permutations("ab", 2), *"ab", ""]:
        for how in itertools.product(
            itertools.product(kinds, [inspect.Parameter.empty, 0]), repeat=len(names)
        ):
            named = [
                inspect.Parameter(name, kind, default=it) for name, (kind, it) in zip(names, how, strict=True)
            ]
            for stars in itertools.product([True, False], repeat=2):
                variadic = [inspect.Parameter("args", inspect.Parameter.VAR_POSITIONAL)] * stars[0]
                variadic += [inspect.Parameter("kwargs", inspect.Parameter.VAR_KEYWORD)] * stars[1]
                parameters = sorted([*named, *variadic], key=lambda parameter: parameter.kind)
                try:
                    yield inspect.Signature(parameters)
                except ValueError:
                    continue  # one without a default after one with


def takers(signature: inspect.Signature, count: int, keywords: tuple[str, ...]) -> list[str] | None:
    """Return which parameter takes each of `count` positional arguments, None when the call is refused."""
    try:
        signature.bind(*range(count), **dict.fromkeys(keywords))
    except TypeError:
        return None
    positional = [name for name, one in signature.parameters.items() if one.kind is one.POSITIONAL_OR_KEYWORD]
    return [*positional, *["*args"] * count][:count]


def misunderstands(old: inspect.Signature, new: inspect.Signature) -> bool:
    """Return whether some call that `old` takes is refused by `new`, or reaches another parameter."""
    keywords = [names for count in range(4) for names in itertools.combinations("abc", count)]
    for count, names in itertools.product(range(4), keywords):
        before, after = takers(old, count, names), takers(new, count, names)
        if before is not None and after is None:
            return True
        for one, other in zip(before or [], after or [], strict=False):
            if one != other and (other != "*args" or one in new.parameters):
                return True
    return False


def test_the_verdict_is_what_python_does_with_every_call() -> None:
    """For each pair of small signatures: broken exactly if some call of the old kind goes wrong."""
    every = list({str(one): one for one in signatures()}.values())
    assert len(every) > 100
    for old, new in itertools.product(every, repeat=2):
        before, after = (contract(with_signature(one)) for one in (old, new))
        verdict = bool(lines({"task": before}, {"task": after}, breaks=True))
        assert verdict == misunderstands(old, new), f"{old} -> {new}"


def with_signature(signature: inspect.Signature) -> Function:
    """Return a function that has this signature, as far as anybody can see."""

    def function() -> None: ...

    function.__signature__ = signature  # type: ignore[attr-defined]
    return function


def test_a_task_that_is_gone_breaks_messages() -> None:
    (line,) = lines({"shop.pay": contract(lambda a: 0)}, {"shop.send": contract(lambda: 0)}, breaks=True)
    assert line.startswith("shop.pay: the task is gone.")
    assert DRAIN in line


def test_a_task_that_is_gone_while_another_came_may_be_renamed() -> None:
    """The nearest name among the new tasks that have its parameters."""
    old = {"shop.pay": contract(lambda a: 0)}
    new = {name: contract(lambda a: 0) for name in ("zoo.feed", "shop.pay_now")}
    assert "perhaps renamed to shop.pay_now." in lines(old, new, breaks=True)[0]
    assert lines(old, new, breaks=False) == ["shop.pay_now is new.", "zoo.feed is new."]


def test_a_queue_that_no_task_uses_any_more_breaks_messages() -> None:
    old, new = {"pay": contract(nothing, "slow")}, {"pay": contract(nothing, "fast")}
    (line,) = lines(old, new, breaks=True)
    assert "moved from the queue slow, which no task uses now, to fast" in line
    assert "-Q slow,fast" in line
    assert DRAIN in line


def test_a_task_that_leaves_a_queue_to_others_breaks_nothing() -> None:
    stays = {"mail": contract(nothing, "slow")}
    old, new = stays | {"pay": contract(nothing, "slow")}, stays | {"pay": contract(nothing, "fast")}
    assert lines(old, new, breaks=True) == []
    assert len(lines(old, new, breaks=False)) == 1


def test_parameters_are_those_that_a_message_fills() -> None:
    """Without `self`; below decorators; with the annotations as they are written."""
    app = Celery("shop", set_as_current=False)

    def logged(function: Function) -> Function:
        return functools.wraps(function)(lambda *args, **kwargs: function(*args, **kwargs))

    @app.task(bind=True, autoretry_for=(OSError,))
    @logged
    def pay(
        self: Any, account: int, /, when: "datetime | None" = None, *more: str, note: Any = 0
    ) -> None: ...

    expected = (
        Parameter("account", "positional-only", required=True, annotation="int"),
        Parameter("when", "positional or keyword", required=False, annotation="'datetime | None'"),
        Parameter("more", "variadic positional", required=False, annotation="str"),
        Parameter("note", "keyword-only", required=False, annotation="Any"),
    )
    assert parameters_of(pay.run) == expected


@pytest.mark.filterwarnings("ignore:\\s+The 'queue' task attribute is deprecated")  # and still in use
def test_the_queue_is_the_one_that_celery_would_choose() -> None:
    app = Celery("shop", set_as_current=False)
    app.conf.task_routes = {"shop.slow_*": {"queue": "slow"}}
    tasks = {
        "celery": app.task(name="shop.pay")(nothing),
        "slow": app.task(name="shop.slow_pay")(nothing),
        "own": app.task(name="shop.mail", queue="own")(nothing),
    }
    assert {queue: queue_of(app, task) for queue, task in tasks.items()} == {queue: queue for queue in tasks}


def test_the_file_is_json_with_a_line_for_each_parameter() -> None:
    def pay(account: int, note: str = "") -> None: ...

    contracts = {"shop.pay": contract(pay), "shop.nothing": contract(lambda: 0)}
    text = dumps(contracts)
    assert loads(text) == contracts
    assert list(json.loads(text)) == ["shop.nothing", "shop.pay"]
    assert [line.count('"name"') for line in text.splitlines() if '"name"' in line] == [1, 1]


@pytest.mark.parametrize("text", ["", "{", "[]", '{"shop.pay": 1}', '{"shop.pay": {"queue": "celery"}}'])
def test_another_text_is_not_taken_for_the_file(text: str) -> None:
    with pytest.raises(ValueError, match=r"."):
        loads(text)


TRACKED = BASE_DIR / "taskcontracts.json"


def command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run `manage.py taskcontracts` as CI does, where no server is."""
    scheme = urlsplit(os.environ["BROKER_URL"]).scheme
    nowhere = {
        "DATABASE_URL": "postgres://none/none",
        "BROKER_URL": f"{scheme}://none",
        "CACHE_URL": "redis://none",
    }
    ours = {name: value for name, value in os.environ.items() if not name.endswith("STOP_GRACE")}
    return subprocess.run(
        [sys.executable, "manage.py", "taskcontracts", "--settings=config.settings", *arguments],
        cwd=BASE_DIR,
        env={**ours, **nowhere},
        capture_output=True,
        text=True,
    )


def test_the_tracked_file_is_what_the_command_writes(tmp_path: Path) -> None:
    file = tmp_path / "contracts.json"
    written = command("--file", file)
    assert written.returncode == 0, written.stderr
    assert file.read_text() == TRACKED.read_text(), "run `manage.py taskcontracts`"
    assert "celery." not in file.read_text()
    assert command("--check").returncode == 0


def test_an_application_that_django_does_not_import_is_missed() -> None:
    """Its tasks would all look removed."""
    code = (
        "import django; from django.conf import settings; from django.core.management import call_command;"
        "settings.configure(INSTALLED_APPS=['reliability']); django.setup(); call_command('taskcontracts')"
    )
    result = subprocess.run([sys.executable, "-c", code], cwd=BASE_DIR, capture_output=True, text=True)
    assert "CommandError: Import the Celery application beside the settings" in result.stderr


@pytest.fixture
def outdated(tmp_path: Path) -> Path:
    """A file of a time when `write_report` took the report itself."""
    file = tmp_path / "contracts.json"
    file.write_text(TRACKED.read_text().replace('"report_id"', '"report"'))
    return file


def test_a_breaking_change_is_refused_until_it_is_accepted(outdated: Path) -> None:
    before = outdated.read_text()
    for arguments in (["--check"], []):
        refused = command("--file", outdated, *arguments)
        assert refused.returncode == 1
        assert "\njobs.tasks.write_report: report became report_id, it seems." in refused.stderr
        assert "manage.py taskcontracts --accept" in refused.stderr
        assert "Traceback" not in refused.stderr
        assert outdated.read_text() == before
    assert command("--file", outdated, "--accept").returncode == 0
    assert command("--file", outdated, "--check").returncode == 0


def test_a_new_task_fails_the_check_until_it_is_written(tmp_path: Path) -> None:
    file = tmp_path / "contracts.json"
    known = loads(TRACKED.read_text())
    del known["jobs.tasks.write_report"]
    file.write_text(dumps(known))
    stale = command("--file", file, "--check")
    assert stale.returncode == 1
    assert "\njobs.tasks.write_report is new.\n" in stale.stderr
    assert "Run `manage.py taskcontracts` and commit contracts.json." in stale.stderr
    assert command("--file", file).returncode == 0
    assert command("--file", file, "--check").returncode == 0


def test_a_missing_file_fails_the_check(tmp_path: Path) -> None:
    missing = command("--file", tmp_path / "contracts.json", "--check")
    assert missing.returncode == 1
    assert "contracts.json is missing. Run `manage.py taskcontracts` and commit it." in missing.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_file_that_cannot_be_read_is_neither_passed_nor_overwritten(tmp_path: Path) -> None:
    """As after a merge: what it said must not be forgotten."""
    file = tmp_path / "contracts.json"
    file.write_text(f"<<<<<<< ours\n{TRACKED.read_text()}")
    before = file.read_text()
    for arguments in (["--check"], []):
        refused = command("--file", file, *arguments)
        assert refused.returncode == 1
        assert "contracts.json cannot be read: " in refused.stderr
        assert "Traceback" not in refused.stderr
        assert file.read_text() == before
