"""Builds a project's image with buildah, and runs its processes without a container engine.

The Dockerfile's base comes from Debian by debootstrap: a registry of images need not be in reach.
"""

import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path

NEEDED = ("buildah", "debootstrap", "unshare", "chroot")
BASE = "python:3.13-slim"  # in the Dockerfile's FROM
RELEASE = "trixie"  # of Debian, which has this Python
AUTHORITIES = Path("etc/ssl/certs/ca-certificates.crt")
# $1 is the image's root, $2 its user; what follows is the command.
INSIDE = """
set -e
mount --bind "$1" "$1"
mount -o remount,bind,ro "$1"
mount -t proc proc "$1/proc"
mount --rbind /dev "$1/dev"
mount -t tmpfs tmpfs "$1/tmp"
mount -t tmpfs -o "uid=${2%:*}" tmpfs "$1/var/lib/beat"
root=$1 user=$2
shift 2
exec chroot --userspec="$user" "$root" env --chdir=/app "$@"
"""


class Store:
    """A store of images in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.options = ["--root", folder / "root", "--runroot", folder / "run", "--storage-driver", "overlay"]

    def buildah(self, command: str, *arguments) -> str:
        """Return what this buildah command prints; AssertionError, with its words, when it fails."""
        done = subprocess.run(
            ["buildah", *self.options, command, *arguments],
            env={**os.environ, "BUILDAH_ISOLATION": "chroot"},
            capture_output=True,
            text=True,
        )
        assert done.returncode == 0, done.stdout[-4000:] + done.stderr[-4000:]
        return done.stdout.strip()

    def make_base(self) -> None:
        """Make what the Dockerfile begins with: Debian, Python as `python`, and pip."""
        folder = self.folder / "base"
        packages = "--include=ca-certificates,python3-pip,python3-venv"
        subprocess.run(["debootstrap", "--variant=minbase", packages, RELEASE, folder, mirror()], check=True)
        for name in ("python", "python3"):
            (folder / "usr/local/bin" / name).symlink_to("/usr/bin/python3")
        for note in folder.glob("usr/lib/python3*/EXTERNALLY-MANAGED"):
            note.unlink()
        shutil.copy(Path("/") / AUTHORITIES, folder / AUTHORITIES)  # a mirror may have one of its own
        container = self.buildah("from", "scratch")
        self.buildah("add", "--quiet", container, folder, "/")
        self.buildah("config", "--env", f"SSL_CERT_FILE=/{AUTHORITIES}", "--env", f"PIP_CERT=/{AUTHORITIES}", container)
        self.buildah("commit", "--rm", container, BASE)
        shutil.rmtree(folder)

    def build(self, project: Path, tag: str) -> "Image":
        """Build the project's image for production, from nothing but its base."""
        options = ["--no-cache", "--timestamp=0", "--pull-never", "--target=production", "--build-arg=REVISION=abc"]
        self.buildah("bud", *options, "--tag", tag, project)
        return Image(self, f"localhost/{tag}")

    def size(self, name: str) -> int:
        """Return the bytes of an image's layers, uncompressed."""
        (image,) = json.loads(self.buildah("images", "--json", name))
        number, unit = image["size"].split()
        return int(float(number) * {"KB": 10**3, "MB": 10**6, "GB": 10**9}[unit])

    def remove(self) -> None:
        """Leave nothing on disk, and nothing mounted."""
        try:
            self.buildah("rm", "--all")
            self.buildah("rmi", "--all", "--force")
        finally:
            shutil.rmtree(self.folder)


class Image:
    """One image, whose files are mounted."""

    def __init__(self, store: Store, name: str) -> None:
        self.name = name
        found = json.loads(store.buildah("inspect", "--type=image", name))["Docker"]
        self.config, self.layers = found["config"], found["rootfs"]["diff_ids"]
        self.root = Path(store.buildah("mount", store.buildah("from", "--pull-never", name)))

    def start(self, log: Path, *command, **variables) -> subprocess.Popen:
        """Start a command as a platform would: as the image's user, on a root that is read-only."""
        own = dict(line.split("=", 1) for line in self.config["Env"])
        shell = ["unshare", "--mount", "sh", "-c", INSIDE, "sh", self.root, self.config["User"]]
        with log.open("wb") as output:
            return subprocess.Popen([*shell, *command], env=own | variables, stdout=output, stderr=subprocess.STDOUT)

    def run(self, *command, **variables) -> tuple[int, str]:
        """Run a command to its end; return its exit status and what it printed."""
        with tempfile.TemporaryDirectory() as folder:
            log = Path(folder, "log")
            code = self.start(log, *command, **variables).wait(300)
            return code, log.read_text()


def may_mount(folder: Path) -> bool:
    """Return whether this root may mount layers of files in `folder`: the one of a container mostly may not."""
    layers = "lowerdir=lower,upperdir=upper,workdir=work"
    command = ["unshare", "--mount", "mount", "-t", "overlay", "-o", layers, "overlay", "merged"]
    with tempfile.TemporaryDirectory(dir=folder) as tried:
        for name in ("lower", "upper", "work", "merged"):
            Path(tried, name).mkdir()
        return subprocess.run(command, cwd=tried, capture_output=True).returncode == 0


def mirror() -> str:
    """Return the mirror of Debian's packages that this machine uses."""
    listed = subprocess.run(
        ["apt-get", "indextargets", "--format", "$(REPO_URI)", "Created-By: Packages", "Component: main"],
        check=True,
        capture_output=True,
        text=True,
    )
    return next(line for line in listed.stdout.splitlines() if "security" not in line)
