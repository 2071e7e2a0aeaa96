"""The project's settings, with what one run or one worker changes in `reliability` by its environment."""

import os

from config import celeryconfig as _celeryconfig
from config.settings import *  # noqa: F403
from config.settings import INSTALLED_APPS as _INSTALLED_APPS
from config.settings import RELIABILITY as _RELIABILITY

# WITHOUT_SETTINGS names settings to leave out of config/celeryconfig.py, to see what fails then.
for _name in os.environ.get("WITHOUT_SETTINGS", "").split():
    delattr(_celeryconfig, _name)

# WITHOUT_APPS names apps to leave out.
INSTALLED_APPS = [app for app in _INSTALLED_APPS if app not in os.environ.get("WITHOUT_APPS", "").split()]

# WITHOUT names promises to switch off, REDACT tasks whose arguments are secret; spaces between names.
# PATIENCE is the time in seconds that an unknown task waits.
RELIABILITY = (
    _RELIABILITY
    | dict.fromkeys(os.environ.get("WITHOUT", "").split(), False)
    | {"redact": os.environ.get("REDACT", "").split()}
    | {"unknown_task_patience": int(os.environ.get("PATIENCE", "900"))}
)
