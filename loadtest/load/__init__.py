"""The parts of the load test: what callers do, how they are heard, and what all of them together show.

Nothing here imports locust or gevent: it is plain blocking code, which loadtest/locustfile.py runs in greenlets.
"""
