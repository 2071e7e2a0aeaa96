"""The project's settings, with what one run or one worker changes in `reliability` by its environment."""

import os

from config.settings import *  # noqa: F403
from config.settings import RELIABILITY as _RELIABILITY

# WITHOUT names promises to switch off, REDACT tasks whose arguments are secret; spaces between names.
# PATIENCE is the time in seconds that an unknown task waits.
RELIABILITY = (
    _RELIABILITY
    | dict.fromkeys(os.environ.get("WITHOUT", "").split(), False)
    | {"redact": os.environ.get("REDACT", "").split()}
    | {"unknown_task_patience": int(os.environ.get("PATIENCE", "900"))}
)
