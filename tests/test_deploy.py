"""Every deploy and CI file of every variant, before its real validator. Each validator is first shown a mistake."""

import itertools
import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import jsonschema
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
    return run(
        "docker-compose", "--env-file", secrets, "--profile", "*", "-f", file.name, "config", "--quiet", cwd=folder
    )


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


def test_grafana_finds_prometheus_and_the_dashboards_and_lets_nobody_in_without_a_password(bake):
    project = bake(deploy="compose")
    services = yaml.safe_load((project / "compose.production.yaml").read_text())["services"]
    told, mounts = yaml.safe_load((project / "monitoring/grafana.yaml").read_text()), services["grafana"]["volumes"]
    assert told["datasources"][0]["url"] == "http://prometheus:9090"
    assert f"./monitoring/dashboards:{told['providers'][0]['options']['path']}:ro" in mounts
    for part in ("datasources", "dashboards"):
        assert any(f"/etc/grafana/provisioning/{part}/" in mount for mount in mounts)
    *shell, script = services["grafana"]["entrypoint"]
    script = script.replace("$$", "$").replace("/run.sh", "echo started")
    for password, expected in (("", ""), ("secret", "started\n")):
        done = run(*shell, script, cwd=project, GF_SECURITY_ADMIN_PASSWORD=password)
        assert (done.returncode == 0, done.stdout) == (bool(password), expected), done.stderr


def test_production_compose_refuses_to_start_without_its_secrets(bake):
    done = run("docker-compose", "-f", "compose.production.yaml", "config", "--quiet", cwd=bake())
    assert done.returncode != 0
    assert "POSTGRES_PASSWORD" in done.stderr or "production.env" in done.stderr


def test_flower_is_off_and_asks_nothing_of_those_who_do_not_want_it(bake, tmp_path):
    """Compose reads the whole file, also what belongs to a profile that is not started."""
    shutil.copy(bake() / "compose.production.yaml", tmp_path)
    (tmp_path / "production.env").write_text("POSTGRES_PASSWORD=x\n")
    command = ["docker-compose", "--env-file", "production.env", "-f", "compose.production.yaml"]
    off = run(*command, "config", "--services", cwd=tmp_path)
    assert (off.returncode, off.stderr) == (0, "")
    assert "flower" not in off.stdout.split()
    with (tmp_path / "production.env").open("a") as file:
        file.write("FLOWER_BASIC_AUTH=somebody:of-no-use-elsewhere\n")
    on = run(*command, "--profile", "flower", "config", "--format", "json", cwd=tmp_path)
    assert (on.returncode, on.stderr) == (0, "")
    flower = json.loads(on.stdout)["services"]["flower"]
    assert flower["environment"]["FLOWER_BASIC_AUTH"] == "somebody:of-no-use-elsewhere"
    assert flower["environment"]["FLOWER_READ_ONLY"] == "true"
    assert [port["host_ip"] for port in flower["ports"]] == ["127.0.0.1"]


def test_yaml_is_tidy(variant):
    files = [
        path
        for pattern in ("*.y*ml", ".g*.yml", ".github/**/*.yml", "deploy/**/*.yaml", "monitoring/grafana.yaml")
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


def validate(resources, folder):
    """Check what Kubernetes itself knows against its schemas, and custom resources against ours."""
    ours = yaml.safe_load((ROOT / "tests/custom_resources.yaml").read_text())
    known = []
    for resource in resources:
        kind = f"{resource['kind']}.{resource['apiVersion']}"
        if kind in ours:
            jsonschema.validate(resource, ours[kind])
        else:
            known.append(resource)
    manifests = folder / "manifests.yaml"
    manifests.write_text(yaml.safe_dump_all(known))
    done = run("kubernetes-validate", "-k", "1.34", "--strict", manifests, cwd=folder)
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
@pytest.mark.parametrize("overlay", ["staging", "production"])
def test_kubernetes(overlay, broker, bake, planted, tmp_path):
    deploy = bake(deploy="kubernetes", broker=broker) / "deploy"
    mistaken = planted(deploy, "- worker.yaml", "- walker.yaml", "base/kustomization.yaml")
    assert kustomize(mistaken / "overlays" / overlay).returncode == 1
    built = kustomize(deploy / "overlays" / overlay)
    assert built.returncode == 0, built.stderr

    with pytest.raises(AssertionError, match="replicas"):
        validate(yaml.safe_load_all(built.stdout.replace("replicas: 1", "replicas: one")), tmp_path)
    resources = list(yaml.safe_load_all(built.stdout))
    validate(resources, tmp_path)
    pods = [one["spec"]["template"]["metadata"]["labels"] for one in resources if one["kind"] == "Deployment"]
    for resource in resources:  # what no schema sees: each selector finds the pods of one Deployment
        if resource["kind"] in {"Deployment", "PodDisruptionBudget"}:
            selector = resource["spec"]["selector"]["matchLabels"]
            assert len([labels for labels in pods if selector.items() <= labels.items()]) == 1, resource


@pytest.mark.parametrize("broker", ["redis", "rabbitmq"])
def test_components_in_every_combination(broker, bake, tmp_path):
    """Each adds what it is named after, and has its heading in their README."""
    deploy = shutil.copytree(bake(deploy="kubernetes", broker=broker) / "deploy", tmp_path / "deploy")
    components = sorted(path.name for path in (deploy / "components").iterdir() if path.is_dir())
    readme = (deploy / "components/README.md").read_text()
    assert re.findall(r"^## (.+)$", readme, re.MULTILINE) == components
    file = deploy / "overlays/production/kustomization.yaml"
    overlay, seen, resources = file.read_text(), set(), {}
    for chosen in itertools.chain.from_iterable(
        itertools.combinations(components, size) for size in range(1, len(components) + 1)
    ):
        lines = [f"  - ../../components/{name}" for name in chosen]
        file.write_text("\n".join([overlay, "components:", *lines, ""]))
        built = kustomize(file.parent)
        assert built.returncode == 0, built.stderr
        found = list(yaml.safe_load_all(built.stdout))
        resources |= {yaml.safe_dump(resource): resource for resource in found}  # many are the same
        seen.add(frozenset(resource["kind"] for resource in found))
    assert len(seen) == 2 ** len(components) - 1
    validate(resources.values(), tmp_path)


@pytest.mark.parametrize(
    ("file", "old", "new"),
    [
        ("external-secrets/secrets.yaml", "secretKey:", "secretName:"),
        ("prometheus-operator/monitors.yaml", "port: metrics", "port: 9812"),
        ("prometheus-operator/rules.yaml", "expr:", "expression:"),
        ("worker-autoscaling/autoscalers.yaml", 'threshold: "60"', "threshold: 60"),
    ],
)
def test_our_schemas_of_custom_resources_see_mistakes(file, old, new, bake, planted, tmp_path):
    component = planted(bake(deploy="kubernetes") / "deploy/components", old, new, file) / file
    with pytest.raises(jsonschema.ValidationError):
        validate(yaml.safe_load_all(component.read_text()), tmp_path)


def systemd_verify(unit, folder):
    """systemd-analyze warns of a mistake and still exits with 0; and it wants the programs to exist."""
    copy = folder / unit.name
    copy.write_text(re.sub(r"^ExecStart=\S+", "ExecStart=/bin/true", unit.read_text(), flags=re.MULTILINE))
    return run("systemd-analyze", "verify", copy, cwd=folder)


def caddy(file):
    """Check the file of a site with Caddy itself."""
    return run("caddy", "validate", "--adapter", "caddyfile", "--config", file, cwd=file.parent)


@pytest.mark.parametrize("deploy", ["compose", "systemd"])
def test_the_proxy_takes_its_file(deploy, bake, planted):
    project = bake(deploy=deploy)
    file = project / ("Caddyfile" if deploy == "compose" else "deploy/systemd/Caddyfile")
    assert caddy(planted(file, "reverse_proxy", "reverse_poxy")).returncode == 1
    done = caddy(file)
    assert done.returncode == 0, done.stderr


def systemd_exposure(unit):
    """systemd's own measure of what a unit may do: fails above 3.0 of 10."""
    return run("systemd-analyze", "security", "--offline=yes", "--threshold=30", "--no-pager", unit, cwd=unit.parent)


@pytest.mark.skipif(not shutil.which("systemd-analyze"), reason="systemd-analyze is not installed")
def test_systemd_units(bake, planted, tmp_path):
    folder = bake(deploy="systemd") / "deploy/systemd"
    units = sorted(folder.glob("*.service"))
    assert len(units) == 5
    (web_socket,) = folder.glob("*.socket")
    shutil.copy(web_socket, tmp_path)  # a unit needs it
    (where,) = re.findall(r"^ListenStream=(.+)$", web_socket.read_text(), re.MULTILINE)
    assert f"reverse_proxy {where}\n" in (folder / "Caddyfile").read_text()
    (tmp_path / "bad").mkdir()
    mistaken = planted(units[0], "KillMode=mixed", "KillMode=maybe")
    assert systemd_verify(mistaken, tmp_path / "bad").stderr
    assert systemd_exposure(planted(units[0], "CapabilityBoundingSet=\n", "")).returncode == 1
    for unit in units:
        done = systemd_verify(unit, tmp_path)
        assert (done.returncode, done.stderr) == (0, ""), unit
        done = systemd_exposure(unit)
        assert done.returncode == 0, done.stdout[-500:]
    assert systemd_verify(web_socket, tmp_path).stderr == ""
    assert systemd_verify(planted(web_socket, "ListenStream", "ListenSteam"), tmp_path / "bad").stderr


def test_own_workflow_and_ci_script():
    done = run("zizmor", "--offline", "--pedantic", ".github", cwd=ROOT)
    assert done.returncode == 0, done.stdout
    assert schema("vendor.github-workflows", ROOT / ".github/workflows/ci.yml").returncode == 0
    assert os.access(ROOT / ".ci/run", os.X_OK)


def probes(project, deploy):
    """Return each process that has a liveness probe: {its command: [port, seconds until it is restarted]}."""
    if deploy == "compose":
        services = yaml.safe_load((project / "compose.production.yaml").read_text())["services"].values()
        return {
            " ".join(service["command"]): [
                int(service["healthcheck"]["test"][-1]),
                int(service["healthcheck"]["interval"][:-1]) * service["healthcheck"]["retries"],
            ]
            for service in services
            if "health/ask.py" in service.get("healthcheck", {}).get("test", ())
        }
    if deploy == "kubernetes":
        built = yaml.safe_load_all(kustomize(project / "deploy/overlays/production").stdout)
        containers = [
            container
            for resource in built
            if resource["kind"] == "Deployment"
            for container in resource["spec"]["template"]["spec"]["containers"]
        ]
        return {
            " ".join(container["command"]): [
                {port["name"]: port["containerPort"] for port in container["ports"]}["metrics"],
                container["livenessProbe"]["periodSeconds"] * container["livenessProbe"]["failureThreshold"],
            ]
            for container in containers
            if "command" in container and container["livenessProbe"]["httpGet"]["port"] == "metrics"
        }
    units = [unit.read_text() for unit in (project / "deploy/systemd").glob("*.service")]
    return {
        re.search(r"^ExecStart=\S+/(\S+ .+)$", unit, re.MULTILINE)[1]: [
            int((re.findall(r"^Environment=METRICS_PORT=(\d+)", unit, re.MULTILINE) or [0])[0]),
            int(seconds),  # from its last ping, which it sends up to the end of its own limit
        ]
        for unit in units
        if "Type=notify" in unit
        for seconds in re.findall(r"^WatchdogSec=(\d+)$", unit, re.MULTILINE)
    }


@pytest.mark.parametrize("deploy", ["compose", "kubernetes", "systemd"])
def test_whoever_hangs_is_noticed_within_a_minute(deploy, bake):
    """Worker, long worker, beat and exporter, by the answer of their own process at its own port."""
    project = bake(deploy=deploy)
    server, worker = ((project / "health" / name).read_text() for name in ("server.py", "worker.py"))
    ports = {name: int(port) for name, port in re.findall(r'"(\w+)": (98\d\d)', server)}
    limit = int(re.search(r"^LIMIT = (\d+)", worker, re.MULTILINE)[1])
    found = probes(project, deploy)
    kinds = {
        "worker": " worker -X long",
        "long": " worker -Q long",
        "beat": " beat ",
        "exporter": "manage.py exporter",
    }
    assert len(found) == len(kinds)
    for kind, text in kinds.items():
        ((port, seconds),) = [probe for command, probe in found.items() if text in command]
        assert seconds + limit <= 60, kind
        if deploy == "systemd":  # two workers on one host
            assert port == (9815 if kind == "long" else 0)
        else:
            assert port == ports["worker" if kind == "long" else kind], kind


def test_a_pod_that_hangs_is_not_granted_the_time_that_tasks_have(bake):
    """Without a grace of its own a liveness probe waits for the pod's: 25 minutes, of a long worker."""
    project = bake(deploy="kubernetes")
    for name in ("worker", "worker-long", "beat", "exporter"):
        *_, deployment = yaml.safe_load_all((project / f"deploy/base/{name}.yaml").read_text())
        (container,) = deployment["spec"]["template"]["spec"]["containers"]
        assert container["livenessProbe"].get("terminationGracePeriodSeconds", 30) <= 10, name


def test_figures_are_shown_to_nobody_outside(bake):
    """No port of 98.. is published by Compose, in a Service, or behind the proxy."""
    for deploy in ("compose", "kubernetes"):
        project = bake(deploy=deploy)
        if deploy == "compose":
            services = yaml.safe_load((project / "compose.production.yaml").read_text())["services"].values()
            shown = [port for service in services for port in service.get("ports", ())]
            private = [port for port in shown if not re.match(r"(80|443):", port)]
            assert all(port.startswith("127.0.0.1:") for port in private), "Prometheus asks nobody for a password"
            assert "98" not in (project / "Caddyfile").read_text()
        else:
            built = yaml.safe_load_all(kustomize(project / "deploy/overlays/production").stdout)
            shown = [str(resource["spec"]["ports"]) for resource in built if resource["kind"] == "Service"]
        assert shown
        assert not any(re.search(r"98\d\d|metrics", port) for port in shown), shown
