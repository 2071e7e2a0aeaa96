"""Every Celery setting of this project, under Celery's own names.

Beside each stand: Why (what it does here), Without it (the failure one would see), Price,
Proof (the test that shows it) and Celery's page. tests/test_celeryconfig.py holds this form,
the names, and the relations between the numbers. Times are in seconds.
"""

import ssl as _ssl
from typing import Any as _Any

from celery.schedules import crontab as _crontab

from config import env as _env

# The broker

# Why: where messages wait; the only address that web, workers and beat must share.
# Without it: Celery tries amqp://guest@localhost and every publish fails.
# Price: none.
# Proof: tests/test_worker.py::test_a_task_runs_in_the_worker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-url
broker_url = _env.BROKER_URL

# Why: a worker that starts before its broker, as after a power cut, keeps trying.
# Without it: the worker's fate depends on a default that Celery has announced to change.
# Price: a wrong URL shows in the log and not as an exit.
# Proof: tests/test_worker.py::test_a_worker_waits_for_its_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-retry-on-startup
broker_connection_retry_on_startup = True

# Why: over TLS the broker must show a certificate that this machine trusts, for the name in the URL.
# Without it: Celery takes any certificate; whoever sits between reads the password and every
#   task, and sends tasks of his own.
# Price: a private authority must be made known, in SSL_CERT_FILE for example.
# Proof: tests/test_tls.py::test_a_broker_with_a_wrong_certificate_is_refused
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-use-ssl
# jinja: if cookiecutter.broker == "redis"
broker_use_ssl = (
    {"ssl_cert_reqs": _ssl.CERT_REQUIRED, "ssl_check_hostname": True}
    if _env.BROKER_URL.startswith("rediss:")
    else False
)

# Why: the visibility timeout is the time after which an unfinished task is given to another
#   worker. It must be longer than the longest countdown and the longest run together, and one
#   more run as a margin. The restore interval looks for such tasks every 5 s instead of 100 s,
#   and the socket timeouts bound every call to the broker.
# Without it: a task that waits or runs longer than the timeout is run twice, at the same time;
#   and a web request that publishes to a frozen broker hangs with it, for ever.
# Price: the task of a worker that was killed outright waits this long for its second run; and
#   none of it helps a message that a worker has taken but not yet noted when it is killed.
# Proof: tests/test_worker.py::test_a_task_survives_a_killed_worker
#   and tests/test_publishing.py::test_publishing_to_a_silent_broker_fails
# https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
broker_transport_options = {
    "visibility_timeout": _env.TASK_LONGEST_DELAY + 2 * _env.TASK_TIME_LIMIT,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,  # of those intervals, look at each
    "socket_connect_timeout": 1,
    "socket_timeout": 2,
    "socket_keepalive": True,
    "retry_on_timeout": False,  # one retry is made below, by Celery
}

# jinja: else
broker_use_ssl = (
    {"cert_reqs": _ssl.CERT_REQUIRED, "server_hostname": None}  # None: the one in the URL
    if _env.BROKER_URL.startswith("amqps:")
    else False
)

# Why: the broker confirms each message once it is safe, and every call to it is bounded.
# Without it: a message published just before the broker stops is lost without an error; and a
#   web request that publishes to a frozen broker hangs with it, for ever.
# Price: publishing waits for the confirmation.
# Proof: tests/test_publishing.py::test_publishing_to_a_silent_broker_fails
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-transport-options
broker_transport_options = {
    "confirm_publish": True,
    "confirm_timeout": 2,
    "read_timeout": 2,
    "write_timeout": 2,
}

# Why: bounds opening a connection.
# Without it: each attempt takes 4 s, and a web request makes several.
# Price: a broker that needs longer to accept counts as down.
# Proof: tests/test_publishing.py::test_publishing_to_a_silent_broker_fails
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-timeout
broker_connection_timeout = 2

# jinja: endif
# Why: one retry carries a publish over a broken connection, then the caller gets the error.
# Without it: three retries with growing pauses, while a user's request waits.
# Price: an outage of a second reaches the caller.
# Proof: tests/test_publishing.py::test_publishing_is_tried_once_more
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-publish-retry-policy
task_publish_retry_policy = {
    "max_retries": 1,
    "interval_start": 0.1,
    "interval_step": 0,
    "interval_max": 0.1,
}

# Messages

# Why: JSON is data; nothing in a message is executed when it is read.
# Without it: a later change of one default would let whoever can write to the broker run
#   code in every worker, by a pickle.
# Price: arguments are plain values; pass a row's id and not the row.
# Proof: tests/test_worker.py::test_a_pickled_message_is_refused
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#accept-content
accept_content = ["json"]

# Tasks

# Why: a message is acknowledged after the task has run, so a killed worker gives it back.
# Without it: a deploy, a crash or the OOM killer loses every task in flight, silently.
# Price: a task may run again after a fault; write it idempotent.
# Proof: tests/test_worker.py::test_a_task_survives_a_killed_worker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-acks-late
task_acks_late = True

# Why: a task that hangs is killed, and its process with it, after TASK_TIME_LIMIT. The sender
#   writes its limits into the message: give web, workers and beat the same value.
# Without it: a hung call occupies a process for ever; when all are occupied nothing runs,
#   and no probe notices.
# jinja: if cookiecutter.broker == "redis"
# Price: longer tasks must be cut into pieces: a limit of their own must stay below the
#   visibility timeout.
# jinja: else
# Price: longer tasks must be cut into pieces, or set a limit of their own.
# jinja: endif
# Proof: tests/test_worker.py::test_a_task_that_ignores_the_soft_limit_is_killed
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-time-limit
task_time_limit = _env.TASK_TIME_LIMIT

# Why: before the hard limit the task gets SoftTimeLimitExceeded, with a tenth of the limit
#   (one second at least) left to tidy up.
# Without it: the first that a task learns of its limit is SIGKILL.
# Price: none.
# Proof: tests/test_worker.py::test_a_hung_task_is_stopped
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-soft-time-limit
task_soft_time_limit = task_time_limit - max(1, task_time_limit // 10)

# Why: tasks write what they find to the database; nobody waits for a return value.
# Without it: once somebody adds a result backend, each `.delay()` talks to it too, and its
#   outage stops publishing for 20 s a call.
# Price: `.get()` needs `ignore_result=False` on the task.
# Proof: tests/test_publishing.py::test_a_dead_result_backend_does_not_stop_publishing
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-ignore-result
task_ignore_result = True

# Workers

# Why: how many tasks run at once in one worker, from WORKER_CONCURRENCY.
# Without it: one process per core of the host, whatever share of it the container has.
# Price: none.
# Proof: tests/test_celeryconfig.py::test_concurrency_comes_from_the_environment
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-concurrency
worker_concurrency = _env.WORKER_CONCURRENCY

# Why: a worker holds the messages that it runs, and none in reserve.
# jinja: if cookiecutter.broker == "redis"
# Without it: four messages per process wait in a busy worker while others are idle, and are
#   stuck until the visibility timeout when it dies.
# jinja: else
# Without it: four messages per process wait in a busy worker while others are idle.
# jinja: endif
# Price: a round trip to the broker between two tasks; it shows with tasks of a few ms.
# Proof: tests/test_worker.py::test_waiting_tasks_stay_in_the_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-prefetch-multiplier
worker_prefetch_multiplier = 1

# The schedule

# Why: the hours in the schedule are UTC, as all times in the project are.
# Without it: the same today; a change of Django's TIME_ZONE or of Celery's default would
#   move every entry without a word.
# Price: nobody's local midnight; choose hours that suit UTC.
# Proof: tests/test_celeryconfig.py::test_schedule_and_django_agree_on_the_time_zone
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#timezone
timezone = "UTC"

# Why: what beat sends, reviewed as code. An entry that no worker took before the next one is
#   due expires.
# Without it: after an outage of the workers, every run that was missed is made up, all at once.
# Price: a change of the schedule is a deploy.
# Proof: tests/test_celeryconfig.py::test_schedule_names_real_tasks_that_expire_before_the_next_is_due
# https://docs.celeryq.dev/en/stable/userguide/periodic-tasks.html#entries
beat_schedule: dict[str, dict[str, _Any]] = {
    "delete-old-reports": {
        "task": "jobs.tasks.delete_old_reports",
        "schedule": _crontab(minute=17),
        "options": {"expires": 3600},
    },
}
