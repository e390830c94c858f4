"""txAMQP's own test suite, from its source archive, against the broker with one of the specs.

    own_suite.py HOST PORT SPEC
"""

import os
import sys
from pathlib import Path

from twisted.internet.defer import inlineCallbacks
from twisted.trial.reporter import TestResult
from twisted.trial.runner import TestLoader

from suite import Report

HOST, PORT, SPEC = sys.argv[1:4]
TEST_LIMIT_S = 20

report = Report(SPEC)


class Result(TestResult):
    # A test that fails may leave the reactor unclean besides, so it is reported at the end.
    def startTest(self, test):
        super().startTest(test)
        self.failure = None
        self.skip_reason = None

    def addError(self, test, failure):
        self.failure = self.failure or failure.getTraceback()

    addFailure = addError

    def addSkip(self, test, reason):
        self.skip_reason = reason

    def stopTest(self, test):
        super().stopTest(test)
        if self.failure:
            report.failed(test.id(), self.failure)
        elif self.skip_reason:
            report.skipped(test.id(), self.skip_reason)
        else:
            report.passed(test.id())


os.environ.update(TXAMQP_BROKER="RABBITMQ", TXAMQP_TEST_HOST=HOST, TXAMQP_TEST_PORT=PORT)
archive = Path(".build/txAMQP3-0.9.4").resolve()
sys.path.insert(0, str(archive))
# The suite names specs relative to a folder beside the package.
os.chdir(archive / "tests")

from tests.testlib import TestBase  # noqa: E402

# The suite's choice of a spec goes by the broker, with 0-9 for RabbitMQ; this is the way to the others.
choose_spec = TestBase.__init__


def with_spec(self, *args, **kwargs):
    choose_spec(self, *args, **kwargs)
    self.spec = str(archive / ("txamqp/specs/standard/amqp%s.stripped.xml" % SPEC))


TestBase.__init__ = with_spec
TestBase.timeout = TEST_LIMIT_S


class Cleanup(TestBase):
    @inlineCallbacks
    def test(self):
        yield self.channel.queue_delete(queue="test-queue")


modules = ["tests." + path.stem for path in sorted((archive / "tests").glob("test_*.py"))]
suite = TestLoader().loadByNames(modules)
print("%d tests of txAMQP3 0.9.4 with spec %s" % (suite.countTestCases(), SPEC), file=sys.stderr)
suite.run(Result())

# The one queue that the suite leaves behind.
cleaned = TestResult()
Cleanup("test").run(cleaned)
if not cleaned.wasSuccessful():
    report.failed("cleanup", str(cleaned.errors))
sys.exit(report.finish())
