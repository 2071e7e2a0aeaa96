"""Reads the contracts (contracts.py) from the code. Asks no server."""

import ast
import inspect
import sys
import textwrap
from collections.abc import Callable
from typing import Any

from celery import Celery
from celery.app.task import Task

from reliability.contracts import VARIADIC, Contract, Parameter


def read_code(app: Celery) -> dict[str, Contract]:
    """Return the contract of each task that `app` knows, without Celery's own."""
    return {
        name: Contract(queue_of(app, task), parameters_of(task.run))
        for name, task in sorted(app.tasks.items())
        if not name.startswith("celery.")
    }


def queue_of(app: Celery, task: Task) -> str:
    """Return the queue that Celery's router chooses, or the routing key where a route names no queue."""
    declared = {name: getattr(task, name, None) for name in ("queue", "time_limit", "soft_time_limit")}
    options = {name: value for name, value in declared.items() if value is not None}
    route = app.amqp.router.route(options, task.name, task_type=task)  # type: ignore[arg-type]  # as Celery does
    return str(route["queue"].name if "queue" in route else route["routing_key"])


def parameters_of(run: Callable[..., Any]) -> tuple[Parameter, ...]:
    """Return what a message fills: without `self`, and of the function below its decorators."""
    annotations = annotations_of(run)
    return tuple(
        Parameter(
            name,
            parameter.kind.description,
            required=parameter.default is parameter.empty and parameter.kind.description not in VARIADIC,
            annotation=annotations.get(name),
        )
        for name, parameter in signature_of(run).parameters.items()
    )


def signature_of(run: Callable[..., Any]) -> inspect.Signature:
    """Return the signature. From Python 3.14 on the annotations stay unevaluated, as they were before."""
    if sys.version_info >= (3, 14):
        from annotationlib import Format

        return inspect.signature(run, annotation_format=Format.FORWARDREF)
    return inspect.signature(run)


def annotations_of(run: Callable[..., Any]) -> dict[str, str]:
    """Return the annotations as the source spells them: evaluated ones print differently in each Python.

    Empty without a definition to read, as for a lambda or a callable object.
    """
    try:
        tree = ast.parse(textwrap.dedent(inspect.getsource(run)))
    except (OSError, TypeError, SyntaxError):
        return {}
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
            arguments = (each for each in ast.walk(node.args) if isinstance(each, ast.arg))
            return {each.arg: ast.unparse(each.annotation) for each in arguments if each.annotation}
    return {}
