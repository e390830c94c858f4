"""Protocol conformance over a raw socket: run HOST PORT [--only PATTERN]."""

import argparse
import importlib
import sys
from pathlib import Path

import harness
from peer import Mismatch


def main():
    parser = argparse.ArgumentParser(prog="run", description=__doc__)
    parser.add_argument("host")
    parser.add_argument("port", type=int)
    parser.add_argument("--only", default="*", metavar="PATTERN", help="shell pattern of names")
    options = parser.parse_args()

    try:
        broker = harness.detect(options.host, options.port)
    except (Mismatch, OSError, KeyError) as error:
        print(f"FAIL handshake/detect: {type(error).__name__}: {error}")
        print("0 passed, 1 failed")
        return 1
    print(f"{broker.product} {broker.version}", file=sys.stderr)
    for path in sorted((Path(__file__).parent / "cases").glob("[a-z]*.py")):
        importlib.import_module(f"cases.{path.stem}")
    return harness.run(broker, options.only)


if __name__ == "__main__":
    sys.exit(main())
