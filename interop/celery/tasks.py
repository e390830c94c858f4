"""The Celery applications: imported by the workers and by main.py alike, which agree through the environment."""

import os
import signal

from celery import Celery, shared_task
from kombu import Exchange, Queue

PREFIX = os.environ["INTEROP_PREFIX"]


def application(queue_type):
    name = "%s-%s" % (PREFIX, queue_type)
    application = Celery("interop", broker=os.environ["INTEROP_BROKER"], backend="rpc://", set_as_current=False)
    application.conf.update(
        # A topic exchange, as quorum queues make Celery delay tasks in the broker, which needs one.
        task_queues=[Queue(name, Exchange(name, "topic"), name, queue_arguments={"x-queue-type": queue_type})],
        task_default_queue=name,
        task_default_exchange=name,
        task_default_exchange_type="topic",
        task_default_routing_key=name,
        control_exchange=name + "-control",
        event_exchange=name + "-events",
        worker_send_task_events=True,
        broker_connection_retry_on_startup=True,
        broker_transport_options={"confirm_publish": True},
    )
    return application


classic = application("classic")
quorum = application("quorum")
classic.set_default()


@shared_task
def add(x, y):
    return x + y


@shared_task
def echo(value):
    return value


@shared_task(bind=True, max_retries=3)
def succeed_at_third_try(self):
    if self.request.retries < 2:
        raise self.retry(countdown=0.2)
    return self.request.retries


@shared_task
def fail():
    raise ValueError("as it should")


@shared_task(bind=True, acks_late=True)
def die_once(self):
    """Kills its worker, until the broker delivers the task again."""
    if not self.request.delivery_info["redelivered"]:
        os.kill(os.getpid(), signal.SIGKILL)
    return "survived"
