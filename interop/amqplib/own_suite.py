"""amqplib's own test suite, from its source archive, against the broker.

    own_suite.py HOST PORT DIRECTORY

DIRECTORY is the archive's tests/client_0_8, in the interpreter's own dialect of Python.
"""

from __future__ import print_function

import os
import sys
import traceback
import unittest

from suite import Report

HOST, PORT, DIRECTORY = sys.argv[1:4]
report = Report("0-8")


class Result(unittest.TestResult):
    # A test that fails may fail once more in its tearDown, so it is reported at the end.
    def startTest(self, test):
        self.failure = None

    def addError(self, test, error):
        self.failure = self.failure or "".join(traceback.format_exception(*error))

    addFailure = addError

    def stopTest(self, test):
        if self.failure:
            report.failed(test.id(), self.failure)
        else:
            report.passed(test.id())


# The suite's settings module reads the command line.
sys.argv = ["run_all.py", "--host", "%s:%s" % (HOST, PORT)]
sys.path.insert(0, DIRECTORY)
import run_all  # noqa: E402

from amqplib import client_0_8 as amqp  # noqa: E402

# The suite leaves most of its queues behind, so they are noted for deletion.
declared = set()
queue_declare = amqp.Channel.queue_declare


def noting_queue_declare(self, *args, **kwargs):
    answer = queue_declare(self, *args, **kwargs)
    declared.add(answer[0])
    return answer


amqp.Channel.queue_declare = noting_queue_declare

suite = unittest.TestLoader().loadTestsFromNames(run_all.TEST_NAMES)
print("%d tests of amqplib %s on Python %s" % (suite.countTestCases(), os.path.dirname(amqp.__file__),
                                              sys.version.split()[0]), file=sys.stderr)
suite.run(Result())

connection = amqp.Connection("%s:%s" % (HOST, PORT))
channel = connection.channel()
for queue in declared:
    channel.queue_delete(queue)
channel.exchange_delete("unittest.fanout")
connection.close()
sys.exit(report.finish())
