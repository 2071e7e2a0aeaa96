"""Remove what the answers did not choose, and write what is made of other files: the untracked `.env`,
and the alerts as Kubernetes reads them.

Imports little on purpose: starting Python is half the time that a hook takes.
"""

import os

# These four are choices, which the other hook has checked: no text of a person is pasted here.
DJANGO, BROKER = "{{ cookiecutter.django }}", "{{ cookiecutter.broker }}"
DEPLOY, CI = "{{ cookiecutter.deploy }}", "{{ cookiecutter.ci }}"

# path: whether it goes
PRUNE = {
    ".github": CI != "github",
    ".gitlab-ci.yml": CI != "gitlab",
    "compose.production.yaml": DEPLOY != "compose",
    "Caddyfile": DEPLOY != "compose",
    "docs/backups.md": DEPLOY != "compose",
    "tests/test_backups.py": DEPLOY != "compose",
    "tests/test_broker_user.py": BROKER != "redis",
    "deploy/base": DEPLOY != "kubernetes",
    "deploy/components": DEPLOY != "kubernetes",
    "deploy/overlays": DEPLOY != "kubernetes",
    "deploy/systemd": DEPLOY != "systemd",
    "deploy": DEPLOY not in {"kubernetes", "systemd"},
    "Procfile": DEPLOY != "heroku",
    "app.json": DEPLOY != "heroku",
    "requirements.txt": DEPLOY != "heroku",
    ".python-version": DEPLOY != "heroku",
    "dev/rabbitmq.py": BROKER != "rabbitmq",
    "dev/rules.py": DEPLOY != "kubernetes",
    "metrics/rabbitmq.py": BROKER != "rabbitmq",
    "metrics/redis.py": BROKER != "redis",
    "metrics/tasks.py": BROKER != "rabbitmq",
    "monitoring/alerts-rabbitmq.yaml": BROKER != "rabbitmq",
    "monitoring/alerts-rabbitmq_test.yaml": BROKER != "rabbitmq",
    "monitoring/alerts-redis.yaml": BROKER != "redis",
    "monitoring/alerts-redis_test.yaml": BROKER != "redis",
    "monitoring/dashboards/rabbitmq.json": BROKER != "rabbitmq",
    "monitoring/dashboards/redis.json": BROKER != "redis",
    "monitoring/grafana.yaml": DEPLOY != "compose",
    "tests/test_flower.py": DEPLOY != "compose",
    "tests/test_rabbitmq.py": BROKER != "rabbitmq",
    "tests/test_socket.py": DEPLOY != "systemd",
    "requirements/django-5.2": DJANGO != "5.2",
    "requirements/django-6.1": DJANGO != "6.1",
}


def remove(path):
    """Remove a file, or a folder with all that is in it."""
    if os.path.isdir(path):
        for entry in os.listdir(path):
            remove(f"{path}/{entry}")
        os.rmdir(path)
    else:
        os.unlink(path)


for path, goes in PRUNE.items():
    if goes:
        remove(path)

chosen = f"requirements/django-{DJANGO}"
for name in os.listdir(chosen):
    os.rename(f"{chosen}/{name}", f"requirements/{name}")
os.rmdir(chosen)

for path in ("dev/make_env.py", "dev/rules.py"):
    if os.path.exists(path):
        with open(path) as script:
            exec(script.read(), {"__name__": "__main__"})
