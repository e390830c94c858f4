"""Runs the programs of the article "Rabbits and Warrens" as a reader would.

    article.py HOST PORT DIRECTORY INTERPRETER...

DIRECTORY holds the programs, in the dialect of Python that the command INTERPRETER... understands. They are run as
they are printed; only the place of the broker is put in at run time.
"""

import os
import subprocess
import sys
from contextlib import contextmanager

from amqplib import client_0_8 as amqp

from cases import HOST, PORT, WAIT_LIMIT_S, case, equal, main, raises, wait_until

DIRECTORY, INTERPRETER = sys.argv[3], sys.argv[4:]
PRINTED_PLACE = '"localhost:5672 "'


def start(program, *arguments):
    with open(os.path.join(DIRECTORY, program)) as file:
        printed = file.read()
    equal(printed.count(PRINTED_PLACE), 1, "occurrences of the broker's place in " + program)
    # The blank at the end is the article's own.
    place = '"%s:%d "' % ("localhost" if HOST == "127.0.0.1" else HOST, PORT)
    command = INTERPRETER + ["-u", "-c", printed.replace(PRINTED_PLACE, place)] + list(arguments)
    return subprocess.Popen(command, stdout=subprocess.PIPE, text=True)


def run(program, *arguments):
    process = start(program, *arguments)
    output, _ = process.communicate(timeout=WAIT_LIMIT_S)
    equal(process.returncode, 0, "exit status of " + program)
    return output


@contextmanager
def channel():
    connection = amqp.Connection("%s:%d" % (HOST, PORT))
    try:
        yield connection.channel()
    finally:
        connection.close()


def delete_objects():
    with channel() as chan:
        chan.queue_delete("po_box")
        try:
            chan.exchange_delete("sorting_room")
        except amqp.AMQPChannelException as error:
            equal(error.amqp_reply_code, 404, "reply code")  # brokers before RabbitMQ 3.2 minded


def passive_declare():
    """The numbers of messages and consumers, or None while there is no such queue."""
    with channel() as chan:
        try:
            return chan.queue_declare("po_box", passive=True)[1:]
        except amqp.AMQPChannelException as error:
            equal(error.amqp_reply_code, 404, "reply code")


@case
def article_consumer():
    delete_objects()
    consumer = start("amqp_consumer.py")
    try:
        wait_until(lambda: passive_declare() == (0, 1), "the consumer to be there")
        run("amqp_publisher.py", "AMQP rocks.")
        equal(consumer.stdout.readline(), "Received: AMQP rocks.\n", "output of the consumer")
        run("amqp_publisher.py")
        equal(consumer.stdout.readline(), "Received: Test message!\n", "output of the consumer")
        equal(consumer.poll(), None, "exit status of the consumer")
    finally:
        consumer.kill()
        consumer.wait()
    # No-ack, so nothing comes back.
    wait_until(lambda: passive_declare() == (0, 0), "the consumer to be gone")


@case
def article_get():
    run("amqp_publisher.py", "one")
    run("amqp_publisher.py", "two")
    wait_until(lambda: passive_declare() == (2, 0), "the messages to be in the queue")
    equal(run("amqp_get.py"), "one\n", "output")
    equal(run("amqp_get.py"), "two\n", "output")
    equal(passive_declare(), (0, 0), "messages and consumers after the acks")


@case
def article_durability():
    run("amqp_publisher.py", "persistent")
    with channel() as chan:
        message = chan.basic_get("po_box")
        equal(message.properties["delivery_mode"], 2, "delivery mode")
        chan.basic_ack(message.delivery_tag)
        error = raises(amqp.AMQPChannelException, chan.queue_declare, "po_box", durable=False, auto_delete=False)
        equal(error.amqp_reply_text, "PRECONDITION_FAILED - inequivalent arg 'durable' for queue 'po_box' in vhost "
              "'/': received 'false' but current is 'true'", "reply text")
    with channel() as chan:
        error = raises(amqp.AMQPChannelException, chan.exchange_declare, "sorting_room", "direct", durable=False,
                       auto_delete=False)
        equal(error.amqp_reply_text, "PRECONDITION_FAILED - inequivalent arg 'durable' for exchange 'sorting_room' in "
              "vhost '/': received 'false' but current is 'true'", "reply text")


if __name__ == "__main__":
    main(cleanup=delete_objects)
