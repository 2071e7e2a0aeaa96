"""Each setting and each switch is worth its line: a scenario fails without it. Part of `make faults-full`."""

from collections.abc import Callable

import pytest

from config import celeryconfig
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
from faults.conftest import BROKER, MakeWorld
from faults.world import PromiseBrokenError, World
from reliability.conf import SWITCHES

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
            test_brokers.test_what_was_sent_without_an_error_survives_a_killed_broker
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
# Not mutated here, and why. What is "proved in tests/" has its proof beside it in config/celeryconfig.py.
OTHERS = {
    "broker_url": "there is no broker without it",
    "broker_connection_retry_on_startup": "Celery's default does the same today",
    "broker_connection_max_retries": "the difference shows after 45 minutes; proved in tests/",
    "redis_socket_connect_timeout": "redis-py takes redis_socket_timeout where this is not set",
    "task_soft_time_limit": "reliability/limits.py sets the same where this is not set",
    "broker_use_ssl": "proved in tests/",
    "broker_pool_limit": "proved in tests/",
    "task_queues": "proved in tests/",
    "task_default_exchange_type": "proved in tests/",
    "task_create_missing_queues": "proved in tests/",
    "task_routes": "proved in tests/",
    "task_reject_on_worker_lost": "proved in tests/",
    "worker_concurrency": "no fault",
    "timezone": "no fault",
    "beat_schedule": "no fault",
    "check_arguments": "proved in tests/",
    "check_limits": "proved in tests/",
    "reconnect": "RabbitMQ needs nothing of it",
    "check_broker": "on RabbitMQ proved in tests/",
    "refuse_embedded_beat": "proved in tests/",
    "check_versions": "proved in tests/",
    "throughput": "no fault",
}


def test_every_setting_has_a_mutation_or_a_reason() -> None:
    settings = {name for name in vars(celeryconfig) if name.islower() and not name.startswith("_")}
    mutated = {name.partition(":")[2].partition(".")[0].partition("=")[0] for name in MUTATIONS}
    assert sorted((settings | SWITCHES) - mutated - OTHERS.keys()) == []


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
