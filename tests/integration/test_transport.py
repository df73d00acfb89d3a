"""The broker's transport keeps its clients, and gets new ones where their connections are gone."""

from __future__ import annotations

from threading import Thread

import pytest
from kombu import Connection, Queue
from kombu.transport import TRANSPORT_ALIASES, _transport_cache
from kombu.transport.redis import Transport as KombusOwn

from jobs.transport import WAITING, QoS, Transport, install
from producer.client import Labelmill
from tests.support.servers import RedisServer
from worker.postbox import RedisBox, open_box


def connection_of(client: Labelmill) -> Connection:
    return client.celery.connection_for_write()


def test_a_channel_makes_one_client_for_all_that_it_sends(redis: RedisServer) -> None:
    client = Labelmill(redis.broker_url)
    with connection_of(client) as connection, connection.channel() as channel:
        first, blocking = channel._create_client(), channel._create_client(asynchronous=True)
        assert channel._create_client() is first is not blocking
        assert channel._create_client(asynchronous=True) is blocking


def test_it_is_meant_also_where_kombus_own_was_used_before(redis: RedisServer) -> None:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(TRANSPORT_ALIASES, "redis", "kombu.transport.redis:Transport")
        _transport_cache.pop("redis", None)
        assert Connection(redis.broker_url).get_transport_cls() is KombusOwn
    install()
    assert Connection(redis.broker_url).get_transport_cls() is Transport


def test_another_pool_has_another_client(redis: RedisServer) -> None:
    client = Labelmill(redis.broker_url)
    with connection_of(client) as connection, connection.channel() as channel:
        first = channel._create_client()
        channel._after_fork()  # as a process of the pool begins
        second = channel._create_client()
        assert second is not first
        assert second.connection_pool is channel.pool
        assert second.ping()


def test_messages_of_several_threads_all_arrive(redis: RedisServer) -> None:
    client = Labelmill(redis.broker_url)
    queue = Queue("threads")
    with connection_of(client) as connection, connection.Producer() as producer:

        def send() -> None:
            for number in range(100):
                producer.publish({"n": number}, routing_key="threads", declare=[queue])

        threads = [Thread(target=send) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
    assert client.ledger.redis.llen("threads") == 400


def test_a_delivery_is_noted_by_one_script_and_comes_back_where_it_is_not_acknowledged(redis: RedisServer) -> None:
    client = Labelmill(redis.broker_url)
    with connection_of(client) as connection, connection.SimpleQueue("one") as queue:
        for number in range(2):
            queue.put({"n": number})
        redis.client.config_resetstat()  # of what declaring a queue takes
        first, second = queue.get(timeout=10), queue.get(timeout=10)
        assert isinstance(first.channel.qos, QoS)
        assert (first.headers[WAITING], second.headers[WAITING]) == (1, 0), "what waited behind each of them"
        assert redis.client.zcard("unacked_index") == redis.client.hlen("unacked") == 2
        assert "cmdstat_multi" not in redis.client.info("commandstats")
        first.ack()
        assert redis.client.hkeys("unacked") == [second.delivery_tag.encode()]
        first.channel.qos.restore_by_tag(second.delivery_tag)
        again = queue.get(timeout=10)
        assert (again.payload, again.headers["redelivered"]) == ({"n": 1}, True)
        again.ack()
    assert redis.client.keys("unacked*") == []


def test_behind_a_prefix_of_keys_deliveries_are_noted_as_kombu_does(redis: RedisServer) -> None:
    options = {"global_keyprefix": "mine:"}
    with Connection(redis.broker_url, transport_options=options) as connection, connection.SimpleQueue("one") as queue:
        queue.put({"n": 1})
        message = queue.get(timeout=10)
        assert redis.client.hkeys("mine:unacked") == [message.delivery_tag.encode()]
        message.ack()


def test_calls_are_taken_from_it_by_one_script(redis: RedisServer) -> None:
    client = Labelmill(redis.broker_url)
    assert isinstance(open_box(client.celery), RedisBox)
