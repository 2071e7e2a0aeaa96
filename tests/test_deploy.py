"""Every deploy and CI file of every variant, before its real validator. Each validator is first shown a mistake."""

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from conftest import ROOT

BIN = Path(sys.executable).parent
YAMLLINT = (
    "{extends: default, rules: {line-length: {max: 120}, document-start: disable, "
    "truthy: {check-keys: false}, comments: {min-spaces-from-content: 1}}}"
)


def run(*command, cwd, **environment) -> subprocess.CompletedProcess:
    """Run a validator of this repository's environment."""
    program = BIN / command[0]
    return subprocess.run(
        [program if program.exists() else command[0], *command[1:]],
        cwd=cwd,
        env={**os.environ, **environment},
        capture_output=True,
        text=True,
    )


@pytest.fixture
def planted(tmp_path):
    """Return a function that copies a file, or a folder, and plants a mistake in the copy."""

    def plant(source, old, new, within=None):
        target = tmp_path / source.name
        (shutil.copytree if source.is_dir() else shutil.copy)(source, target)
        file = target / within if within else target
        text = file.read_text()
        assert old in text
        file.write_text(text.replace(old, new))
        return target

    return plant


def hadolint(file):
    return run("hadolint", "--no-color", file, cwd=file.parent)


def compose(file, folder):
    """Check a copy in `folder`, beside the secrets, with Docker Compose itself; it needs no engine for that."""
    secrets = folder / "production.env"
    secrets.write_text("POSTGRES_PASSWORD=x\nBROKER_PASSWORD=x\n")
    (folder / ".env").touch()
    if file.parent != folder:
        shutil.copy(file, folder)
    return run("docker-compose", "--env-file", secrets, "-f", file.name, "config", "--quiet", cwd=folder)


def schema(name, file):
    return run("check-jsonschema", "--builtin-schema", name, file, cwd=file.parent)


def test_dockerfile(variant, planted):
    assert hadolint(planted(variant / "Dockerfile", "USER 10001:10001", "USER root")).returncode == 1
    done = hadolint(variant / "Dockerfile")
    assert done.returncode == 0, done.stdout


def test_compose_files(variant, planted, tmp_path):
    files = [path for name in ("compose.yaml", "compose.production.yaml") if (path := variant / name).exists()]
    assert files
    for file in files:
        assert compose(planted(file, "service_healthy", "service_hungry"), tmp_path).returncode != 0
        done = compose(file, tmp_path)
        assert (done.returncode, done.stderr) == (0, "")
        done = schema("vendor.compose-spec", file)
        assert done.returncode == 0, done.stdout


def test_production_compose_refuses_to_start_without_its_secrets(bake):
    done = run("docker-compose", "-f", "compose.production.yaml", "config", "--quiet", cwd=bake())
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr or "production.env" in done.stderr


def test_yaml_is_tidy(variant):
    files = [
        path
        for pattern in ("*.y*ml", ".g*.yml", ".github/**/*.yml", "deploy/**/*.yaml")
        for path in variant.glob(pattern)
    ]
    done = run("yamllint", "--strict", "--config-data", YAMLLINT, *files, cwd=variant)
    assert done.returncode == 0, done.stdout


def test_ci_files(variant, planted):
    workflow, gitlab = variant / ".github/workflows/ci.yml", variant / ".gitlab-ci.yml"
    if workflow.exists():
        assert run("zizmor", "--offline", planted(workflow, "@3d3c42e5", "@v7 # "), cwd=variant).returncode != 0
        done = run("zizmor", "--offline", "--pedantic", ".github", cwd=variant)
        assert done.returncode == 0, done.stdout
        assert schema(
            "vendor.github-workflows", planted(workflow.parent, "runs-on", "walks-on", "ci.yml") / "ci.yml"
        ).returncode
        assert schema("vendor.github-workflows", workflow).returncode == 0
        assert schema("vendor.dependabot", variant / ".github/dependabot.yml").returncode == 0
    if gitlab.exists():
        assert schema("vendor.gitlab-ci", planted(gitlab, "script:", "scripts:")).returncode == 1
        assert schema("vendor.gitlab-ci", gitlab).returncode == 0


def kustomize(overlay):
    return run("kubectl", "kustomize", overlay, cwd=overlay)


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_kubernetes(overlay, broker, bake, planted, tmp_path):
    deploy = bake(deploy="kubernetes", broker=broker) / "deploy"
    mistaken = planted(deploy, "- worker.yaml", "- walker.yaml", "base/kustomization.yaml")
    assert kustomize(mistaken / "overlays" / overlay).returncode == 1
    built = kustomize(deploy / "overlays" / overlay)
    assert built.returncode == 0, built.stderr

    manifests = tmp_path / "manifests.yaml"
    manifests.write_text(built.stdout.replace("replicas: 1", "replicas: one"))
    assert run("kubernetes-validate", "-k", "1.34", "--strict", manifests, cwd=tmp_path).returncode == 1
    manifests.write_text(built.stdout)
    done = run("kubernetes-validate", "-k", "1.34", "--strict", manifests, cwd=tmp_path)
    assert done.returncode == 0, done.stdout

    for resource in yaml.safe_load_all(built.stdout):
        if resource["kind"] == "Deployment":  # what no schema sees
            selector, labels = resource["spec"]["selector"], resource["spec"]["template"]["metadata"]["labels"]
            assert selector["matchLabels"].items() <= labels.items()


def systemd_verify(unit, folder):
    """systemd-analyze warns of a mistake and still exits with 0; and it wants the programs to exist."""
    copy = folder / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    return run("systemd-analyze", "verify", copy, cwd=folder)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_units(bake, planted, tmp_path):
    units = sorted((bake(deploy="systemd") / "deploy/systemd").glob("*.service"))
    assert len(units) == 3
    (tmp_path / "bad").mkdir()
    mistaken = planted(units[0], "KillMode=mixed", "KillMode=maybe")
    assert systemd_verify(mistaken, tmp_path / "bad").stderr
    for unit in units:
        done = systemd_verify(unit, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), unit


def test_the_stop_grace_of_a_worker_exceeds_the_time_limit(bake):
    """A task that runs within its limit is never cut short by a deploy."""
    limit = int(re.search(r'"TASK_TIME_LIMIT", default=(\d+)', (bake() / "config/env.py").read_text())[1])
    compose = yaml.safe_load((bake() / "compose.production.yaml").read_text())
    kubernetes = yaml.safe_load((bake(deploy="kubernetes") / "deploy/base/worker.yaml").read_text())
    unit = next((bake(deploy="systemd") / "deploy/systemd").glob("*-worker.service")).read_text()
    graces = {
        "compose": int(compose["services"]["worker"]["stop_grace_period"].removesuffix("s")),
        "kubernetes": kubernetes["spec"]["template"]["spec"]["terminationGracePeriodSeconds"],
        "systemd": int(re.search(r"^TimeoutStopSec=(\d+)$", unit, re.MULTILINE)[1]),
    }
    assert {target: grace for target, grace in graces.items() if grace <= limit} == {}


def test_own_workflow_and_ci_script():
    done = run("zizmor", "--offline", "--pedantic", ".github", cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert schema("vendor.github-workflows", ROOT / ".github/workflows/ci.yml").returncode == 0
    assert os.access(ROOT / ".ci/run", os.X_OK)
