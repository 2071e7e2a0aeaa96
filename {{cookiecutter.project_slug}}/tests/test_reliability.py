"""reliability/: its README says what is there, and it stands alone."""

import ast
import re
import sys
from pathlib import Path

import pytest
from celery.app.defaults import NAMESPACES, flatten

from dev import BASE_DIR
from reliability import conf, versions

FOLDER = BASE_DIR / "reliability"
README = (FOLDER / "README.md").read_text()
MODULES = {
    str(path.relative_to(FOLDER)): ast.parse(path.read_text())
    for path in sorted(FOLDER.rglob("*.py"))
    if path.name != "__init__.py" and "migrations" not in path.parts
}
# Documented nowhere although no underscore says so, or replaced by something of ours.
INTERNAL = {
    "__header__",
    "__type__",
    "__value__",
    "basic_ack",
    "basic_reject",
    "calculate_routing_key",
    "celery_delayed_27",
    "channel.do_restore",
    "connection.commit",
    "create_task_handler",
    "decrement_eventually",
    "detect_quorum_queues",
    "increment_eventually",
    "redis.loads",
    "reserved_requests",
    "run_and_clear_commit_hooks",
    "run_on_commit",
    "scheduler.tick",
    "should_terminate",
    "state.should_stop",
}
DOCUMENTED = {"_meta"}  # by Django
OUTSIDE = {
    "config/celery.py",
    "config/celeryconfig.py",
    "config/tasklog.py",
    "config/tracing.py",
}  # the second with a queue `long`
NEEDED = {"amqp", "billiard", "celery", "django", "kombu", "pytest", "redis", "reliability"}


def rows() -> dict[str, list[str]]:
    """Return the cells after the module's name, by that name."""
    found = re.findall(r"^\| `([\w/]+\.py)` \|(.*)\|$", README, re.MULTILINE)
    return {name: [cell.strip() for cell in cells.split("|")] for name, cells in found}


def quoted(cell: str) -> set[str]:
    """Return what stands in backticks."""
    return set(re.findall(r"`([^`]+)`", cell))


def names_of(tree: ast.AST) -> set[str]:
    """Return what a module reads, defines, imports and has as a text; what it replaces as `owner.name`."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Attribute(value=owner, attr=name, ctx=ast.Store()):
                names.add(f"{ast.unparse(owner).rpartition('.')[2]}.{name}")
            case ast.Attribute():
                names.add(node.attr)
            case ast.Constant(value=str(text)):
                names.add(text)
            case ast.Call(func=ast.Name(id="setattr"), args=[owner, ast.Constant(value=str(name)), _]):
                names.add(f"{ast.unparse(owner)}.{name}")
            case ast.alias():
                names.add(node.name)
            case ast.FunctionDef():
                names.add(node.name)
    return names


def defined_in(tree: ast.AST) -> set[str]:
    """Return the names that a module gives to something of its own."""
    names: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.FunctionDef() | ast.ClassDef():
                names.add(node.name)
            case (
                ast.Assign(targets=[ast.Name(id=name)])
                | ast.AnnAssign(target=ast.Name(id=name), value=ast.expr())
            ):
                names.add(name)
            case ast.Attribute(value=ast.Name(id="self"), attr=name, ctx=ast.Store()):
                names.add(name)
    return names


OURS = set().union(*map(defined_in, MODULES.values()))


def private_parts(module: str) -> set[str]:
    """Return the names in it that begin with one underscore and are not ours, and those in INTERNAL."""
    names = names_of(MODULES[module])
    private = {name for name in names if re.fullmatch(r"_[a-z]\w*", name)}
    return (private - OURS - DOCUMENTED) | (names & INTERNAL)


def imports(tree: ast.AST) -> set[str]:
    """Return the full names of the modules that are imported, and of what is imported from them."""
    found: set[str] = set()
    for node in ast.walk(tree):
        match node:
            case ast.Import():
                found |= {alias.name for alias in node.names}
            case ast.ImportFrom(module=str(module), level=0):
                found |= {f"{module}.{alias.name}" for alias in node.names}
            case ast.ImportFrom():
                raise AssertionError(f"a relative import: {ast.unparse(node)}")
    return found


def named_in(module: str, folder: Path) -> set[str]:
    """Return the files of a folder that import this module, or name it in a text."""
    dotted = "reliability." + module.removesuffix(".py").replace("/", ".")
    pattern = re.compile(re.escape(dotted) + r"(?!\w|\.py)")
    found = set()
    for path in sorted(folder.rglob("*.py")):
        tree = ast.parse(path.read_text())
        if path != FOLDER / module and any(map(pattern.match, names_of(tree) | imports(tree))):
            found.add(str(path.relative_to(FOLDER if folder == FOLDER else BASE_DIR)))
    return found


def switches_of(tree: ast.AST) -> set[str]:
    """Return the switches that a module asks for."""
    return set(re.findall(r"enabled\('(\w+)'\)", ast.unparse(tree)))


def test_the_table_has_every_module() -> None:
    assert rows().keys() == MODULES.keys()


@pytest.mark.parametrize("module", MODULES)
def test_the_table_tells_the_truth_about(module: str) -> None:
    lines, failure, switches, private, files = rows()[module]
    assert int(lines) == len((FOLDER / module).read_text().splitlines()) < 200
    assert failure
    assert switches_of(MODULES[module]) <= quoted(switches) <= conf.SWITCHES
    assert quoted(private) == private_parts(module)
    inside, outside = named_in(module, FOLDER), named_in(module, BASE_DIR / "config")
    assert inside <= quoted(files) <= inside | OUTSIDE
    assert outside <= quoted(files)


def test_every_switch_is_in_the_table_and_asked_for() -> None:
    assert set().union(*(quoted(cells[2]) for cells in rows().values())) == conf.SWITCHES
    assert set().union(*map(switches_of, MODULES.values())) == conf.SWITCHES


def test_every_value_stands_beside_its_default() -> None:
    for name, default in conf.VALUES.items():
        assert f"| `{name}` | `{default}` |" in README


def test_the_tested_versions_are_named() -> None:
    assert " and ".join(f"{package} {minor}" for package, minor in versions.TESTED.items()) in README


def test_every_named_setting_is_one_of_celery() -> None:
    table = README[README.index("| setting |") :].splitlines()[2:]
    names = set().union(*(quoted(row.split("|")[1]) for row in table if row.startswith("|")))
    assert len(names) > 10
    assert names <= set(dict(flatten(NAMESPACES)))


def test_it_imports_nothing_of_the_rest_of_the_project() -> None:
    folders = {path.parent.name for path in BASE_DIR.glob("*/*.py")} - {"reliability"}
    assert {"config", "jobs", "tests"} <= folders
    assert not folders & NEEDED
    for module, tree in MODULES.items():
        foreign = {name.partition(".")[0] for name in imports(tree)} - sys.stdlib_module_names
        assert foreign <= NEEDED | {"annotationlib"}, module  # that is Python's, from 3.14 on
