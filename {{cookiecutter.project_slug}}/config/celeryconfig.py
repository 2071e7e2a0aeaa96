"""Every Celery setting of this project, under Celery's own names.

Beside each stand: Why (what it does here), Without it (the failure one would see), Price,
Proof (the test that shows it) and Celery's page. tests/test_celeryconfig.py holds this form,
the names, and the relations between the numbers. Times are in seconds.
"""

import ssl as _ssl
from typing import Any as _Any

from celery.schedules import crontab as _crontab

from config import env as _env
from reliability.limits import EXIT as _EXIT
from reliability.limits import soft_limit as _soft_limit

# The numbers. STOP_GRACE is what the platform grants a worker from SIGTERM to SIGKILL; the others follow,
# so that no deploy cuts a task short that is within its limit. _EXIT of them are for giving back what did not
# finish, and for ending.
_TIME_LIMIT = _env.STOP_GRACE - _EXIT
# jinja: if cookiecutter.deploy == "heroku"
LONG_TIME_LIMIT: int | None = None  # no worker is granted more: cut long work into pieces
_LONGEST = _TIME_LIMIT

# jinja: else
LONG_TIME_LIMIT: int = _env.LONG_STOP_GRACE - _EXIT  # of tasks in `long`: its workers are granted more
_LONGEST = max(_TIME_LIMIT, LONG_TIME_LIMIT)

# jinja: endif
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

# Why: a worker whose broker is away waits for it, however long that takes.
# Without it: after 100 attempts, about 45 minutes, it exits, and is not there when the broker comes back
#   unless something starts it again.
# Price: none; its log says every few seconds that it waits.
# Proof: tests/test_celeryconfig.py::test_a_worker_never_gives_up_on_its_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-max-retries
broker_connection_max_retries = None

# Why: over TLS the broker must show a certificate that this machine trusts, for the name in the URL.
# Without it: Celery takes any certificate; whoever sits between reads the password and every
#   task, and sends tasks of his own.
# Price: a private authority must be made known, in SSL_CERT_FILE for example. Where that cannot
#   be done BROKER_TLS_VERIFY=off gives it up; worker and beat then warn at every start.
# Proof: tests/test_tls.py::test_a_server_with_a_wrong_certificate_is_refused
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-use-ssl
# jinja: if cookiecutter.broker == "redis"
broker_use_ssl = (
    {
        "on": {"ssl_cert_reqs": _ssl.CERT_REQUIRED, "ssl_check_hostname": True},
        "off": {"ssl_cert_reqs": _ssl.CERT_NONE, "ssl_check_hostname": False},
    }[_env.BROKER_TLS_VERIFY]
    if _env.BROKER_URL.startswith("rediss:")
    else False
)

# Why: the visibility timeout is the time after which an unfinished task is given to another
#   worker. It must be longer than the longest countdown and the longest run together, with one
#   more run as a margin, and the same in every worker. The restore interval has workers look for
#   such tasks every 5 s instead of 100 s, the socket timeouts bound every call to the broker, and the
#   health check ends a connection whose other end vanished after 6 to 11 s.
# Without it: a task that waits or runs longer than the timeout is run twice, at the same time;
#   a web request that publishes to a frozen broker hangs with it, for ever; and a worker whose broker's host
#   vanished takes nothing for up to 51 s, also where that is back sooner.
# Price: the task of a worker that was killed outright waits this long for its second run; and
#   none of it helps a message that a worker has taken but not yet noted when it is killed.
# Proof: tests/test_worker.py::test_a_task_survives_a_killed_worker
#   and tests/test_publishing.py::test_publishing_to_a_silent_broker_fails
#   and tests/test_health.py::test_a_worker_takes_tasks_soon_after_its_broker_vanished
# https://docs.celeryq.dev/en/stable/getting-started/backends-and-brokers/redis.html#visibility-timeout
broker_transport_options = {
    "visibility_timeout": _env.TASK_LONGEST_DELAY + 2 * _LONGEST,
    "unacked_restore_interval": 5,
    "unacked_restore_throttle": 1,  # of those intervals, look at each
    "health_check_interval": 5,
    "socket_connect_timeout": 1,
    "socket_timeout": 2,
}

# jinja: else
broker_use_ssl = (
    {
        "on": {"cert_reqs": _ssl.CERT_REQUIRED, "server_hostname": None},  # None: the one in the URL
        "off": {"cert_reqs": _ssl.CERT_NONE},
    }[_env.BROKER_TLS_VERIFY]
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
    "read_timeout": 2,  # a blocked write ends by itself: py-amqp has the system give up after a second
}

# Why: bounds opening a connection.
# Without it: each attempt takes 4 s, and a web request makes several.
# Price: a broker that needs longer to accept counts as down.
# Proof: tests/test_publishing.py::test_publishing_to_a_silent_broker_fails
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-connection-timeout
broker_connection_timeout = 2

# Why: when RabbitMQ closes a channel, because a task has not acknowledged within its consumer_timeout
#   for example, the worker opens a new one.
# Without it: the worker ends.
# Price: none.
# Proof: faults/test_brokers.py::test_a_task_survives_the_consumer_timeout
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-channel-error-retry
broker_channel_error_retry = True

# Why: worker and RabbitMQ tell each other every few seconds that they are there. Who says nothing for
#   two such intervals, of 10 s, counts as gone, and its messages go to another worker.
# Without it: the messages of a worker that hangs, or whose machine vanished, are stuck for three minutes.
# Price: a host that stands still for longer, as in a live migration, has its tasks run twice.
# Proof: faults/test_processes.py::test_task_survives_a_wedged_worker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-heartbeat
broker_heartbeat = 10

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

# Why: a connection to publish with for each thread of a web process.
# Without it: while the broker is frozen the eleventh thread waits for one of the first ten, and then as long
#   as they did.
# Price: none; a connection is made when a thread needs one more.
# Proof: tests/test_celeryconfig.py::test_no_thread_waits_for_the_connection_of_another
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#broker-pool-limit
broker_pool_limit = max(10, _env.WEB_THREADS)

# Queues

# jinja: if cookiecutter.broker == "redis"
# jinja: if cookiecutter.deploy != "heroku"
# Why: `long` has workers of its own, with the time to finish what takes longer.
# Without it: tasks of many minutes share workers, and so a grace, with those of seconds: each deploy takes
#   as long as the longest of them, or cuts it short.
# Price: one more kind of worker.
# Proof: tests/test_limits.py::test_a_task_with_a_long_limit_waits_for_a_long_worker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-queues
task_queues: dict[str, dict[str, _Any]] = {"celery": {}, "long": {}}

# jinja: endif
# jinja: else
_TASK_QUEUE = {
    "x-queue-type": "quorum",  # on the disks of most nodes of a cluster, and deliveries are counted
    "x-delivery-limit": 20,  # what has ended 20 workers goes to `rejected`
    "x-dead-letter-exchange": "",
    "x-dead-letter-routing-key": "rejected",
    "x-dead-letter-strategy": "at-least-once",  # kept until `rejected` has it; needs the next line
    "x-overflow": "reject-publish",
    "x-consumer-timeout": 24 * 3600 * 1000,  # ms, far above every limit; RabbitMQ 3.12 or newer heeds it
}
_REJECTED_QUEUE = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000}

# jinja: if cookiecutter.deploy != "heroku"
# Why: `long` has workers of its own, with the time to finish what takes longer. And what RabbitMQ
#   has delivered too often comes to `rejected`, where nothing is run and all becomes a dead letter.
# Without it: tasks of many minutes share workers, and so a grace, with those of seconds. And a task that
#   ends its worker each time ends one after the other, for ever; RabbitMQ 4 drops it in silence.
# Price: one more kind of worker. RabbitMQ never changes the arguments of a queue that exists: to change
#   them, drain it and delete it.
# Proof: tests/test_limits.py::test_a_task_with_a_long_limit_waits_for_a_long_worker
#   and tests/test_rabbitmq.py::test_what_is_delivered_too_often_is_rejected_and_kept
# jinja: else
# Why: what RabbitMQ has delivered too often comes to `rejected`, where nothing is run and all becomes
#   a dead letter.
# Without it: a task that ends its worker each time ends one after the other, for ever; RabbitMQ 4
#   drops it in silence.
# Price: RabbitMQ never changes the arguments of a queue that exists: to change them, drain and delete it.
# Proof: tests/test_rabbitmq.py::test_what_is_delivered_too_often_is_rejected_and_kept
# jinja: endif
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-queues
task_queues: dict[str, dict[str, _Any]] = {
    "celery": {"queue_arguments": _TASK_QUEUE},
    # jinja: if cookiecutter.deploy != "heroku"
    "long": {"queue_arguments": _TASK_QUEUE},
    # jinja: endif
    "rejected": {"queue_arguments": _REJECTED_QUEUE},
}

# Why: by way of a topic exchange RabbitMQ itself holds what has a countdown, until it is due.
# Without it: workers hold it, unacknowledged; a few long countdowns leave no room for what could run now.
# Price: some 60 more queues and exchanges in RabbitMQ's list; countdowns are whole seconds.
# Proof: tests/test_rabbitmq.py::test_a_countdown_keeps_no_worker_from_its_work
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-default-exchange-type
task_default_exchange_type = "topic"

# jinja: endif
# Why: a queue that task_queues does not name is refused, where a task is sent and where a worker starts.
# Without it: one misspelled `queue=` makes a queue that no worker reads; its tasks wait there unseen.
# Price: a queue of your own needs a line in task_queues.
# Proof: tests/test_celeryconfig.py::test_a_misspelled_queue_is_refused
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-create-missing-queues
task_create_missing_queues = False

# jinja: if cookiecutter.deploy != "heroku"
# Why: a task whose decorator declares a limit above the ordinary one goes to `long` by itself.
# Without it: it runs where the grace is short, and each deploy makes it begin again.
# Price: none.
# Proof: tests/test_limits.py::test_a_task_with_a_long_limit_waits_for_a_long_worker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-routes
task_routes = ("reliability.limits.route",)

# jinja: endif
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

# Why: a task whose process was killed, by the OOM killer for example, is tried again: a limited
#   number of times, shared with its other retries.
# Without it: it fails, although it did nothing wrong; or, merely put back, a task that kills its
#   process each time kills one after the other, for ever.
# Price: none. It waits default_retry_delay first, a second in reliability/task.py.
# Proof: faults/test_processes.py::test_task_survives_a_killed_child
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-retry-on-worker-lost
task_retry_on_worker_lost = True

# Why: when that retry cannot be sent, because the broker is full for example, the message is put back.
# Without it: it is acknowledged, and the task is lost.
# Price: none beside the line above; alone it would be the endless loop that it names.
# Proof: tests/test_celeryconfig.py::test_a_retry_that_cannot_be_sent_puts_the_message_back
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-reject-on-worker-lost
task_reject_on_worker_lost = True

# Why: a task that hangs is killed, and its process with it. The sender writes the limit into the
#   message: give web, workers and beat the same STOP_GRACE.
# Without it: a hung call occupies a process for ever; when all are occupied nothing runs,
#   and no probe notices.
# Price: what takes longer declares a limit of its own, or is cut into pieces.
# Proof: tests/test_worker.py::test_a_task_that_ignores_the_soft_limit_is_killed
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-time-limit
task_time_limit = _TIME_LIMIT

# Why: before the hard limit the task gets SoftTimeLimitExceeded, with a tenth of the limit
#   (one second at least) left to tidy up. The same goes for a limit that a task declares for itself.
# Without it: the first that a task learns of its limit is SIGKILL.
# Price: none.
# Proof: tests/test_worker.py::test_a_hung_task_is_stopped
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-soft-time-limit
task_soft_time_limit = _soft_limit(task_time_limit)

# Why: tasks write what they find to the database; nobody waits for a return value.
# Without it: once somebody adds a result backend, each `.delay()` talks to it too, and its
#   outage stops publishing for 20 s a call.
# Price: `.get()` needs `ignore_result=False` on the task.
# Proof: tests/test_publishing.py::test_a_dead_result_backend_does_not_stop_publishing
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#task-ignore-result
task_ignore_result = True

# Results: off. These hold once `result_backend` is set to a Redis, and a task has ignore_result=False.

# Why: one more attempt to reach the backend, then the error.
# Without it: `.delay()` of such a task waits for 20 s while the backend is down.
# Price: where a worker cannot store the result at once, the task counts as failed although its body has run.
# Proof: tests/test_results.py::test_a_backend_that_is_away_holds_a_sender_up_for_a_second_at_most
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#result-backend-transport-options
result_backend_transport_options = {
    "retry_policy": {"max_retries": 1, "interval_start": 0.1, "interval_step": 0, "interval_max": 0.1},
}

# Why: bounds each call to the backend, and the opening of a connection.
# Without it: `.delay()` of such a task waits for minutes while the backend is frozen, or its host is gone.
# Price: a backend that needs longer to answer counts as down.
# Proof: tests/test_results.py::test_a_backend_that_is_away_holds_a_sender_up_for_a_second_at_most
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#redis-socket-timeout
redis_socket_timeout = 0.2

# Workers

# Why: how many tasks run at once in one worker, from WORKER_CONCURRENCY.
# Without it: one process per core of the host, whatever share of it the container has.
# Price: none.
# Proof: tests/test_celeryconfig.py::test_concurrency_comes_from_the_environment
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-concurrency
worker_concurrency = _env.WORKER_CONCURRENCY

# jinja: if cookiecutter.broker == "redis"
# Why: a worker holds the messages that it runs, and none in reserve.
# Without it: four messages per process wait in a busy worker while others are idle, and are
#   stuck until the visibility timeout when it dies.
# Price: a round trip to the broker between two tasks; it shows with tasks of a few ms.
# Proof: tests/test_worker.py::test_waiting_tasks_stay_in_the_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-prefetch-multiplier
worker_prefetch_multiplier = 1

# jinja: else
# Why: a worker holds eight messages per process, and has work while a quorum queue writes to disk what
#   was acknowledged, and only then sends more.
# Without it: Celery's four per process; tasks that do nothing run a tenth slower.
# Price: seven tasks may wait for each that a busy worker runs, while another worker is idle, and a worker
#   that hangs holds them until RabbitMQ misses its heartbeats; when tasks take seconds, 1 is better.
# Proof: tests/test_worker.py::test_waiting_tasks_stay_in_the_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-prefetch-multiplier
worker_prefetch_multiplier = 8

# jinja: endif
# Why: a process that has held more memory than this, in KiB, is replaced once its task has ended;
#   from WORKER_MAX_MEMORY_MB.
# Without it: a leak grows until the system kills processes, in the middle of their tasks.
# Price: the next task waits for a new process, some 50 ms. One task that needs more is not kept from it.
# Proof: tests/test_celeryconfig.py::test_a_process_that_has_grown_is_replaced_after_its_task
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-max-memory-per-child
worker_max_memory_per_child = _env.WORKER_MAX_MEMORY_MB * 1024

# Why: a worker that is asked to end has this long for the tasks that it runs, then gives the rest
# jinja: if cookiecutter.deploy == "heroku"
#   back.
# jinja: else
#   back. For workers of the queue `long` reliability/limits.py makes it LONG_TIME_LIMIT.
# jinja: endif
# Without it: each deploy cuts short what runs, and it begins again elsewhere.
# Price: a deploy waits for the tasks that run, this long at the most.
# Proof: tests/test_shutdown.py::test_a_running_task_finishes_and_the_worker_ends_then
#   and tests/test_shutdown.py::test_what_takes_longer_is_given_back_at_once
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-soft-shutdown-timeout
worker_soft_shutdown_timeout = task_time_limit

# jinja: if cookiecutter.broker == "redis"
# Why: when the broker goes away tasks run on: Redis still has their messages, and they are
#   acknowledged once it is back.
# Without it: each restart of the broker interrupts every running task for as long as the visibility
#   timeout; and loses it, when Redis lost its memory.
# Price: none. Celery has announced to change its default.
# Proof: faults/test_brokers.py::test_running_tasks_survive_a_restart_of_the_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
worker_cancel_long_running_tasks_on_connection_loss = False

# jinja: else
# Why: when the connection breaks, RabbitMQ gives the message to another worker at once; so the run
#   that cannot be acknowledged any more is stopped.
# Without it: a restart of the broker has every running task run twice, at the same time.
# Price: work done so far is lost; the task begins again.
# Proof: faults/test_brokers.py::test_running_tasks_survive_a_restart_of_the_broker
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#worker-cancel-long-running-tasks-on-connection-loss
worker_cancel_long_running_tasks_on_connection_loss = True

# jinja: endif
# The schedule

# Why: the hours in the schedule are UTC, as all times in the project are.
# Without it: the same today; a change of Django's TIME_ZONE or of Celery's default would
#   move every entry without a word.
# Price: nobody's local midnight; choose hours that suit UTC.
# Proof: tests/test_celeryconfig.py::test_schedule_and_django_agree_on_the_time_zone
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#timezone
timezone = "UTC"

# Why: beat looks at its schedule every 5 s at the least, so that its silence means something.
# Without it: it may sleep for five minutes, and one that hangs cannot be told from one that sleeps.
# Price: none that shows.
# Proof: tests/test_health.py::test_beat_with_nothing_to_send_is_live
# https://docs.celeryq.dev/en/stable/userguide/configuration.html#beat-max-loop-interval
beat_max_loop_interval = 5

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
