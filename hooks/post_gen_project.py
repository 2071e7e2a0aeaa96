"""Remove what the answers did not choose, and write the untracked `.env`."""

import json
import runpy
import shutil
from pathlib import Path

ANSWERS = json.loads(r"""{{ cookiecutter | tojson }}""")
DJANGO, BROKER, DEPLOY, CI = (ANSWERS[question] for question in ("django", "broker", "deploy", "ci"))

# path: whether it goes
PRUNE = {
    "compose.production.yaml": DEPLOY != "compose",
    "Caddyfile": DEPLOY != "compose",
    "deploy/base": DEPLOY != "kubernetes",
    "deploy/overlays": DEPLOY != "kubernetes",
    "deploy/systemd": DEPLOY != "systemd",
    "deploy": DEPLOY not in {"kubernetes", "systemd"},
    "Procfile": DEPLOY != "heroku",
    "app.json": DEPLOY != "heroku",
    "requirements.txt": DEPLOY != "heroku",
    ".python-version": DEPLOY != "heroku",
    ".github": CI != "github",
    ".gitlab-ci.yml": CI != "gitlab",
    "dev/rabbitmq.py": BROKER != "rabbitmq",
    "requirements/django-5.2": DJANGO != "5.2",
    "requirements/django-6.1": DJANGO != "6.1",
}

for path, goes in PRUNE.items():
    if goes and Path(path).is_dir():
        shutil.rmtree(path)
    elif goes:
        Path(path).unlink()

chosen = Path(f"requirements/django-{DJANGO}")
for path in chosen.iterdir():
    path.rename(chosen.parent / path.name)
chosen.rmdir()

runpy.run_path("dev/make_env.py", run_name="__main__")
