"""Remove the local servers' data. Run by `make clean`; needs nothing but Python."""

import shutil

from dev import LOCAL
from dev.owner import remove_outside

if __name__ == "__main__":
    remove_outside(LOCAL)
    shutil.rmtree(LOCAL, ignore_errors=True)
