"""Every Celery setting, each with its reason. Labelmill's own settings are in ``jobs/settings.py``."""

from __future__ import annotations

from jobs import answers, transport
from jobs.lanes import TURN_S
from jobs.settings import Settings

_settings = Settings.from_env()

broker_url = _settings.broker_url
# Single calls answer through the ledger's Redis, which is there whatever the broker is.
result_backend = _settings.result_backend_url
# Results of single calls are read at once or never.
result_expires = 3600
answers.install()

# Only JSON, both ways: a pickled message could run code in a worker.
task_serializer = "json"
result_serializer = "json"
accept_content = ["json"]
result_accept_content = ["json"]

# A queue for each lane of each model, made when it is first used.
task_create_missing_queues = True
task_default_queue = "labelmill.default"
task_routes = ("jobs.lanes.route",)

# Tickets carry nothing that could be lost, so they are acknowledged when they are taken (the default). A single image
# is acknowledged when its answer is written; one that ends its process fails instead of ending the next one too.
task_annotations = {
    "labelmill.ticket": {"time_limit": _settings.chunk_time_limit_s + TURN_S},
    "labelmill.classify": {
        "acks_late": True,
        "acks_on_failure_or_timeout": True,
        "time_limit": _settings.chunk_time_limit_s,
    },
}

# A worker takes a message when it has a process free for it, so that an interactive request never waits behind bulk
# tickets that were fetched ahead.
worker_prefetch_multiplier = 1
worker_disable_prefetch = True
# KiB, in pools of processes; a process past it is replaced when its turn is over. Other pools: worker/watch.py.
worker_max_memory_per_child = _settings.memory_limit // 1024 or None
# A model loads longer than the 4 s that Celery gives a new process by default.
worker_proc_alive_timeout = _settings.setup_timeout_s
# The worker waits for a Redis that is gone instead of ending.
broker_connection_retry_on_startup = True
broker_connection_max_retries = None
# Running work is finished, not cancelled, when the connection is lost: its lease decides.
worker_cancel_long_running_tasks_on_connection_loss = False
# Takes up the connection a second after the broker is back, and says only once that it is gone.
worker_consumer = "worker.consumer:Consumer"
# Tickets are taken one by one: there is no prefetch to reduce after a loss of the connection.
worker_enable_prefetch_count_reduction = False
# Seconds; the second signal is hard.
worker_soft_shutdown_timeout = 0.0
# We log what matters ourselves; the root logger stays the operator's.
worker_hijack_root_logger = False
worker_redirect_stdouts = False

if broker_url.startswith(("redis", "sentinel")):
    transport.install()
    broker_transport_options = {
        # Which queue is asked first: interactive, with a share kept for bulk.
        "queue_order_strategy": "jobs.lanes:LaneCycle",
        # Lanes stand in for priorities: one list a queue, so one look at it instead of four.
        "priority_steps": [0],
        # What a killed worker had taken but not acknowledged comes back after a minute, not after an hour, and is
        # looked for each second, not after 100 s. Nothing of ours runs near as long without acknowledgement.
        "visibility_timeout": 60,
        "unacked_restore_interval": 1,
        "unacked_restore_throttle": 1,
        # A worker that is killed while it looks keeps the others from looking: for these seconds, not for 5 minutes.
        "unacked_mutex_expire": 10,
        "socket_keepalive": True,
        "health_check_interval": 10,
        # Only read for sentinel:// URLs: which of the groups that the Sentinels watch is ours.
        "master_name": _settings.sentinel_master,
    }
result_backend_transport_options = {"master_name": _settings.sentinel_master}
