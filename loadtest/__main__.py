"""The load test: `python -m loadtest` is Locust with our callers (locustfile.py), and all of Locust's options."""

import sys
from pathlib import Path

from locust.argument_parser import LocustArgumentParser
from locust.main import main

from loadtest.load.options import add_options


def show_options() -> None:
    """Locust shows its own help before it has read ours."""
    parser = LocustArgumentParser(prog="python -m loadtest", add_help=False, add_env_var_help=False)
    add_options(parser)
    parser.print_help()
    print()


if __name__ == "__main__":
    if {"-h", "--help"} & set(sys.argv[1:]):
        show_options()
    sys.argv[1:1] = ["-f", str(Path(__file__).with_name("locustfile.py"))]
    main()
