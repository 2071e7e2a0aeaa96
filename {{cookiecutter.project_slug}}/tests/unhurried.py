"""For a worker (`--include`): acknowledgements wait until it ends, unless as many wait as it may hold."""

from reliability import throughput

throughput.WAIT = 3600
