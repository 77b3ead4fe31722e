"""Parallel: work for every CPU core, in order, with few results waiting and no process left behind. prepare.py uses it."""

import multiprocessing
import multiprocessing.connection
import os
import signal
import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ProcessPoolExecutor
from concurrent.futures.process import BrokenProcessPool
from typing import Any

import cv2
import numpy as np

CHUNK = 32  # pieces of work that a process is given at once


def cores() -> int:
    """CPU cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def in_order(
    work: Callable[[int], Any], indices: Sequence[int] | np.ndarray, workers: int
) -> Iterator[tuple[int, Any]]:
    """(i, work(i)) for each index, in order, by several processes; few results wait at a time."""
    indices = np.asarray(indices, np.int64)
    if workers <= 1 or len(indices) <= CHUNK:
        yield from ((int(i), work(int(i))) for i in indices)
        return
    chunks = (indices[start : start + CHUNK] for start in range(0, len(indices), CHUNK))
    with ProcessPoolExecutor(workers, initializer=_begin_worker, initargs=(work,)) as pool:
        waiting: deque[tuple[np.ndarray, Future]] = deque()
        try:
            for chunk in chunks:
                waiting.append((chunk, pool.submit(_work_on, chunk)))
                if len(waiting) > 3 * workers:
                    done, future = waiting.popleft()
                    yield from zip(map(int, done), future.result())
            for done, future in waiting:
                yield from zip(map(int, done), future.result())
        except BrokenProcessPool:
            raise RuntimeError(
                "a worker process was ended (is the memory full?); the same command goes on, fewer --workers need less"
            ) from None
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


_work: Callable[[int], Any] = int  # of a worker process


def _begin_worker(work: Callable[[int], Any]) -> None:
    global _work
    _work = work
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # Ctrl+C is for the main process
    cv2.setNumThreads(0)
    parent = multiprocessing.parent_process()
    if parent is not None:  # a killed main process must not leave its workers behind
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()


def _end_with(sentinel: int) -> None:
    multiprocessing.connection.wait([sentinel])
    os._exit(1)


def _work_on(chunk: np.ndarray) -> list[Any]:
    return [_work(int(i)) for i in chunk]
