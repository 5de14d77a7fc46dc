"""What a sampler sees of an engine's steps."""

import threading

from chroma_models.engine.step_log import KEPT, StepLog


def test_a_sampler_sees_each_step_once_and_in_order() -> None:
    log, seen, told = StepLog(), 0, list[tuple[float, int]]()
    for i in range(3000):
        log.add(i / 1000, i % 7)
        if i % 900 == 0:
            told += log.since(seen, log.steps)
            seen = log.steps
    told += log.since(seen, log.steps)
    assert told == [(i / 1000, i % 7) for i in range(3000)]
    assert log.rows == sum(i % 7 for i in range(3000))
    assert log.since(log.steps, log.steps) == []


def test_of_more_steps_than_are_kept_the_newest_are_told() -> None:
    log = StepLog()
    for i in range(3 * KEPT):
        log.add(float(i), 1)
    told = log.since(5, log.steps)
    assert [int(seconds) for seconds, _ in told] == list(range(2 * KEPT, 3 * KEPT))


def test_a_reader_beside_the_writer_sees_whole_steps() -> None:
    log, over = StepLog(), threading.Event()

    def step() -> None:
        i = 0
        while not over.is_set():
            log.add(float(i), i)
            i += 1

    writer = threading.Thread(target=step)
    writer.start()
    try:
        seen = count = 0
        while count < 20_000:
            last = log.steps
            told = log.since(max(seen, last - KEPT // 4), last)  # of the older ones some may be overwritten meanwhile
            assert all(seconds == rows for seconds, rows in told)
            count, seen = count + len(told), last
    finally:
        over.set()
        writer.join()
