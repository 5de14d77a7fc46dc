"""The load test: `python -m loadtest` is Locust with our callers (locustfile.py), and all of Locust's options."""

import sys
from pathlib import Path

from locust.main import main

if __name__ == "__main__":
    sys.argv[1:1] = ["-f", str(Path(__file__).with_name("locustfile.py"))]
    main()
