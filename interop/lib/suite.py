"""Reports the results of a client's own test suite as cases, with the failures that known-failures.txt expects.

A line of known-failures.txt is: test id, spec (or * for any), reason. A listed test may fail; when it passes, that
is worth a note, as the broker does better than the one the list was made with.
"""

from __future__ import print_function

import sys


class Report(object):
    def __init__(self, spec, path="known-failures.txt"):
        self._known = {}
        with open(path) as lines:
            for line in lines:
                if line.strip() and not line.startswith("#"):
                    test, only_spec, reason = line.split(None, 2)
                    if only_spec in ("*", spec):
                        self._known[test] = reason.strip()
        self._passed = self._failed = 0

    def passed(self, test):
        self._passed += 1
        if test in self._known:
            print("note: %s is a known failure, but passed" % test, file=sys.stderr)
        print("ok %s" % test)

    def failed(self, test, details):
        print("%s: %s" % (test, details), file=sys.stderr)
        if test in self._known:
            print("n/a %s: known failure: %s" % (test, self._known[test]))
        else:
            self._failed += 1
            print("FAIL %s: %s" % (test, " ".join(details.strip().splitlines()[-1].split())))

    def skipped(self, test, reason):
        print("n/a %s: skipped by the suite: %s" % (test, reason))

    def finish(self):
        """Prints the summary and returns the exit status."""
        print("%d passed, %d failed" % (self._passed, self._failed))
        sys.stdout.flush()
        return 0 if self._passed and not self._failed else 1
