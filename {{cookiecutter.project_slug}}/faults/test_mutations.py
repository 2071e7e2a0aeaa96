"""Each setting and each switch is worth its line: a scenario fails without it. Part of `make faults-full`."""

import os
import re
import subprocess
import sys
from collections.abc import Callable

import pytest

from dev import BASE_DIR
from faults import (
    test_brokers,
    test_database,
    test_deploys,
    test_limits,
    test_malformed,
    test_processes,
    test_publishing,
    test_transactions,
)
from faults.conftest import BROKER, STACK, MakeWorld
from faults.world import PromiseBrokenError, World
from reliability.conf import SWITCHES
from tests.harness import PATIENCE
from tests.test_celeryconfig import OURS, comment_above

Scenario = Callable[[World], None]
BOTH: dict[str, Scenario] = {
    "reset:task_acks_late": test_processes.test_task_survives_a_killed_worker,
    "reset:task_retry_on_worker_lost": (
        test_processes.test_a_task_that_kills_its_process_each_time_is_given_up
    ),
    "set:task_time_limit=3600": test_limits.test_a_task_that_ignores_the_soft_limit_does_not_stop_the_worker,
    "reset:task_publish_retry_policy": (
        test_publishing.test_sending_over_the_connection_of_a_frozen_broker_fails_soon
    ),
    'set:accept_content=["json", "pickle"]': test_malformed.test_a_pickle_is_kept,
    "reset:task_ignore_result": test_publishing.test_a_dead_result_backend_does_not_stop_sending,
    "reset:result_backend_transport_options": (
        test_publishing.test_a_dead_result_backend_delays_no_sender_for_long
    ),
    "reset:redis_socket_timeout": test_publishing.test_a_frozen_result_backend_delays_no_sender_for_long,
    "reset:worker_max_memory_per_child": test_processes.test_a_process_that_leaks_is_replaced,
    "reset:worker_soft_shutdown_timeout": test_processes.test_task_finishes_while_its_worker_stops,
    "off:retries": test_database.test_tasks_survive_a_restart_of_the_database,
    "off:send_after_commit": test_transactions.test_a_task_of_a_rolled_back_transaction_never_runs,
    "off:publish_errors": test_publishing.test_sending_to_a_broker_that_is_gone_fails_soon,
    "off:dead_letters": test_limits.test_a_hung_task_does_not_stop_the_worker,
    "off:unknown_tasks": test_deploys.test_an_unknown_task_waits_for_a_worker_that_knows_it,
    "off:drain": test_processes.test_longer_task_is_given_back_at_sigterm,
}
OWN: dict[str, dict[str, Scenario]] = {
    "redis": {
        "reset:broker_transport_options.visibility_timeout": (
            test_processes.test_task_survives_a_killed_worker
        ),
        "reset:broker_transport_options.unacked_restore_throttle": (
            test_processes.test_task_survives_a_killed_worker
        ),
        "reset:broker_transport_options.socket_timeout": (
            test_publishing.test_sending_over_the_connection_of_a_frozen_broker_fails_soon
        ),
        "reset:broker_transport_options.socket_connect_timeout": (
            test_publishing.test_sending_to_a_vanished_host_fails_soon
        ),
        "set:worker_cancel_long_running_tasks_on_connection_loss=true": (
            test_brokers.test_running_tasks_survive_a_restart_of_the_broker
        ),
        "reset:worker_prefetch_multiplier": test_processes.test_task_survives_a_wedged_worker,
        "off:reconnect": test_brokers.test_half_busy_worker_survives_a_restart_of_the_broker,
        "off:check_broker": test_brokers.test_tasks_survive_a_full_broker,
    },
    "rabbitmq": {
        "reset:broker_channel_error_retry": test_brokers.test_a_task_survives_the_consumer_timeout,
        "reset:broker_transport_options.confirm_publish": (
            test_brokers.test_what_a_frozen_broker_did_not_take_is_an_error
        ),
        "reset:broker_transport_options.read_timeout": (
            test_publishing.test_sending_over_the_connection_of_a_frozen_broker_fails_soon
        ),
        "reset:broker_heartbeat": test_processes.test_task_survives_a_wedged_worker,
        "reset:broker_connection_timeout": test_publishing.test_sending_to_a_vanished_host_fails_soon,
        "reset:worker_cancel_long_running_tasks_on_connection_loss": (
            test_brokers.test_running_tasks_survive_a_restart_of_the_broker
        ),
    },
}
MUTATIONS = BOTH | OWN[BROKER]
# Not mutated here, and why. A setting that is "proved in tests/" has its proof beside it in
# config/celeryconfig.py, and that fails without it; a switch skips its proofs.
OTHERS = {
    "broker_url": "there is no broker without it",
    "broker_connection_retry_on_startup": "Celery's default does the same today",
    "broker_connection_max_retries": "the difference shows after 45 minutes; proved in tests/",
    "task_soft_time_limit": "reliability/limits.py sets the same where this is not set",
    "broker_use_ssl": "proved in tests/",
    "broker_pool_limit": "proved in tests/",
    "task_queues": "proved in tests/",
    "task_default_exchange_type": "proved in tests/",
    "task_create_missing_queues": "proved in tests/",
    "task_routes": "proved in tests/",
    "task_reject_on_worker_lost": "proved in tests/",
    "worker_concurrency": "no fault",
    "worker_prefetch_multiplier": "on RabbitMQ proved in tests/",
    "timezone": "no fault",
    "beat_schedule": "no fault",
    "beat_max_loop_interval": "proved in tests/",
    "check_arguments": "proved in tests/",
    "check_limits": "proved in tests/",
    "reconnect": "RabbitMQ needs nothing of it",
    "check_broker": "on RabbitMQ proved in tests/",
    "refuse_embedded_beat": "proved in tests/",
    "check_schedule": "proved in tests/",
    "check_versions": "proved in tests/",
    "throughput": "no fault",
}
PROVED = OURS & {name for name, reason in OTHERS.items() if reason.endswith("proved in tests/")}


# What the servers and pytest of this run have put into the environment: those tests plan their own.
INHERITED = {
    *STACK.urls,
    *(name for name in os.environ if name.startswith("PYTEST")),
    "DJANGO_SETTINGS_MODULE",
}


def test_every_setting_has_a_mutation_or_a_reason() -> None:
    mutated = {name.partition(":")[2].partition(".")[0].partition("=")[0] for name in MUTATIONS}
    assert sorted((OURS | SWITCHES) - mutated - OTHERS.keys()) == []


@pytest.mark.full
@pytest.mark.parametrize("setting", sorted(PROVED))
def test_its_proof_in_tests_fails_without(setting: str) -> None:
    """One of the tests that stand beside the setting fails, and is not merely stopped by an error."""
    proofs = re.findall(r"tests/\S+", "\n".join(comment_above(setting)))
    environment = {name: value for name, value in os.environ.items() if name not in INHERITED}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "--no-header", "-q", "-p", "no:xdist", *proofs],
        cwd=BASE_DIR,
        env=environment | {"WITHOUT_SETTINGS": setting},
        capture_output=True,
        text=True,
        timeout=10 * PATIENCE,
    )
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert re.search(r"\d+ failed", done.stdout), done.stdout
    assert " error" not in done.stdout.splitlines()[-1], done.stdout


@pytest.mark.full
@pytest.mark.parametrize("mutation", MUTATIONS)
def test_a_scenario_fails_without(
    mutation: str, make_world: MakeWorld, request: pytest.FixtureRequest
) -> None:
    """The promise is broken, and not the scenario's own proof that its fault happened."""
    scenario = MUTATIONS[mutation]
    world = make_world(scenario, mutation)
    with pytest.raises(PromiseBrokenError) as broken:
        scenario(world)
    outcome = world.rows[-1].outcome if world.rows else str(broken.value)
    request.node.user_properties.append(("mutation", [mutation, world.fault, outcome]))
