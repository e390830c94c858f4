"""Runs the cases of a client program and prints the lines that ../README.md asks for.

    from cases import HOST, PORT, case, equal, main, not_applicable

    @case
    def get():
        equal(fetch().body, b"hello")

    if __name__ == "__main__":
        main()

Works on Python 2.7 too, for the clients of that time.
"""

from __future__ import print_function

import os
import signal
import sys
import time
import traceback

HOST = sys.argv[1]
PORT = int(sys.argv[2])

PROGRAM_LIMIT_S = 90
CASE_LIMIT_S = 30
WAIT_LIMIT_S = 10

_cases = []
_start = time.time()


class TimeLimit(BaseException):
    """Not an Exception, so that no `except Exception` of a client library can swallow it."""


class NotApplicable(Exception):
    """Raised by a case that finds out that it cannot be done here; the reason is reported."""


def case(function):
    """Registers a function as the case of that name; it fails by raising."""
    _cases.append((function.__name__, function, None))
    return function


def not_applicable(name, reason):
    """Registers a case that the client's own API cannot do."""
    _cases.append((name, None, reason))


def equal(actual, expected, what="value"):
    if actual != expected:
        raise AssertionError("%s is %s, expected %s" % (what, _short(actual), _short(expected)))


def check(condition, what):
    if not condition:
        raise AssertionError(what)


def raises(kind, function, *args, **kwargs):
    """Calls the function and returns the exception of that kind which it must raise."""
    try:
        function(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError("no %s was raised" % getattr(kind, "__name__", kind))


def wait_until(condition, what, step=None, limit_s=WAIT_LIMIT_S):
    """Polls until the condition holds; `step` is what lets the client library make progress meanwhile."""
    deadline = time.time() + limit_s
    while True:
        result = condition()
        if result:
            return result
        if time.time() > deadline:
            raise AssertionError("waited %s s for: %s" % (limit_s, what))
        if step is None:
            time.sleep(0.02)
        else:
            step()


def unique(name):
    """A name for a queue or exchange that cannot meet one of another run."""
    return "interop-%d-%x-%s" % (os.getpid(), int(time.time() * 1000), name)


def main(call=lambda function: function(), cleanup=None):
    """Runs all cases, and `cleanup` at the end.

    `call` runs the function of a case: asyncio.run, say, for clients with an event loop.
    """
    passed = failed = 0
    for name, function, reason in _cases:
        try:
            if function is None:
                raise NotApplicable(reason)
            if _succeeds(name, call, function):
                print("ok %s" % name)
                passed += 1
            else:
                failed += 1
        except NotApplicable as error:
            print("n/a %s: %s" % (name, error))
        sys.stdout.flush()
    if cleanup and not _succeeds("cleanup", lambda function: function(), cleanup):
        failed += 1
    print("%d passed, %d failed" % (passed, failed))
    sys.stdout.flush()
    # Not sys.exit: a thread that a failed case left behind must not keep the program from ending.
    os._exit(1 if failed or not passed else 0)


def _succeeds(name, call, function):
    try:
        _within_limit(call, function)
    except (KeyboardInterrupt, NotApplicable):
        raise
    except BaseException as error:
        traceback.print_exc()
        print("FAIL %s: %s" % (name, _reason(error)))
        return False
    return True


def _within_limit(call, function):
    # With a broker that does not answer at all, every case would use up its own limit.
    limit_s = min(CASE_LIMIT_S, _start + PROGRAM_LIMIT_S - time.time())
    if limit_s <= 0:
        raise TimeLimit("not run, as the program has taken %d s already" % PROGRAM_LIMIT_S)

    def expire(_signal, _frame):
        raise TimeLimit("still running after %d s" % limit_s)

    signal.signal(signal.SIGALRM, expire)
    # The repetition is for code that swallows the first one.
    signal.setitimer(signal.ITIMER_REAL, limit_s, 5)
    try:
        call(function)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _reason(error):
    where = traceback.extract_tb(sys.exc_info()[2])
    own = [entry for entry in where if not entry[0].endswith("cases.py")]
    # The line of the case itself says more than one deep in the library.
    here = [entry for entry in own if os.path.dirname(os.path.abspath(entry[0])) == os.getcwd()] or own or where
    place = "%s:%s" % (os.path.basename(here[-1][0]), here[-1][1])
    return " ".join(("%s: %s (%s)" % (type(error).__name__, error or repr(error), place)).split())


def _short(value):
    text = repr(value)
    return text if len(text) <= 300 else "%s... (%d characters)" % (text[:300], len(text))
