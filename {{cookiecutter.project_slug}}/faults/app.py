"""`celery -A faults.app`: the application of the profile that the environment names."""

import os

from faults.profiles import build

app = build(os.environ["FAULTS_PROFILE"])
