"""The work of one shard, and the processes that do it."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import asdict, dataclass
from functools import lru_cache
from multiprocessing import get_context
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
from numpy.typing import NDArray

from generative.data.documents import Corpus, Span
from generative.data.files import damaged, file_hash, write_json
from generative.data.manifest import Shard, check_shard
from generative.data.split import batches
from generative.data.tokenizers import Tokenizer, load_tokenizer
from generative.errors import DataError, ResourceError
from generative.pools import start_in_pool

ResultT = TypeVar("ResultT")


@dataclass(frozen=True)
class Task:
    """Shard `number` of a split: the spans of the split's corpus that it holds."""

    split: str
    number: int
    spans: Sequence[Span]

    @property
    def bytes(self) -> int:
        """Size of its text."""
        return sum(span.stop - span.start for span in self.spans)


@dataclass(frozen=True)
class Work:
    """What all tasks share; each process gets it once.

    Args:
        corpora: where the text of each split is read.
        folder: where the shards go; the tokenizer lies there too.
        dtype: integer type of the shards.
    """

    corpora: Mapping[str, Corpus]
    folder: Path
    dtype: str


def scan_characters(task: Task, work: Work) -> str:
    """All characters of a shard's text, sorted."""
    found: set[str] = set()
    for group in batches(task.spans):
        for text in work.corpora[task.split].texts(group):
            found.update(text)
    return "".join(sorted(found))


def tokenise_shard(task: Task, work: Work) -> Shard:
    """Write one shard, unless an earlier attempt has finished it; both are verified against the disk."""
    record = work.folder / f"{task.split}-{task.number:05d}.shard"
    finished = _finished(record, work)
    if finished is None:
        finished = _write_shard(task, work)
        write_json(record, asdict(finished))
    return finished


def _finished(record: Path, work: Work) -> Shard | None:
    try:
        shard = Shard(**json.loads(record.read_text(encoding="utf-8")))
        check_shard(record.parent, shard, np.dtype(work.dtype).itemsize, hashes=True)
    except (OSError, ValueError, TypeError, DataError):
        return None
    return shard


def _write_shard(task: Task, work: Work) -> Shard:
    tokenizer = _tokenizer(work.folder)
    path = work.folder / f"{task.split}-{task.number:05d}.bin"
    aside = path.with_suffix(f".{os.getpid()}.tmp")
    sha, tokens = hashlib.sha256(), 0
    kind = np.dtype(work.dtype).newbyteorder("<")
    try:
        with aside.open("wb") as file:
            for ids in _token_arrays(task, work.corpora[task.split], tokenizer):
                data = ids.astype(kind).tobytes()
                sha.update(data)
                file.write(data)
                tokens += len(ids)
            file.flush()
            os.fsync(file.fileno())
        if aside.stat().st_size != tokens * kind.itemsize or file_hash(aside) != sha.hexdigest():
            raise damaged(path, "what was read back differs from what was written")
        aside.replace(path)
    finally:
        aside.unlink(missing_ok=True)
    documents = sum(span.ends for span in task.spans)
    return Shard(path.name, tokens, documents, task.bytes, sha.hexdigest())


@lru_cache(maxsize=1)
def _tokenizer(folder: Path) -> Tokenizer:
    return load_tokenizer(folder)


def _token_arrays(task: Task, corpus: Corpus, tokenizer: Tokenizer) -> Iterator[NDArray[np.int64]]:
    eos = np.array([] if tokenizer.eos_id is None else [tokenizer.eos_id], dtype=np.int64)
    for group in batches(task.spans):
        arrays = tokenizer.encode_many(corpus.texts(group))
        for span, ids in zip(group, arrays, strict=True):
            yield np.concatenate([ids, eos]) if span.ends else ids


def run_tasks(
    function: Callable[[Task, Work], ResultT], tasks: Sequence[Task], work: Work, workers: int
) -> Iterator[tuple[Task, ResultT]]:
    """(task, result) as they are finished; in this process for one worker, else in spawned ones.

    Raises:
        ResourceError: a process was killed (memory, most likely).
    """
    if workers <= 1:
        for task in tasks:
            yield task, function(task, work)
        return
    # Spawned, not forked: the caller may run threads (Ray, OpenMP), which do not survive a fork.
    context = get_context("spawn")
    pool = ProcessPoolExecutor(min(workers, len(tasks)), context, initializer=_start_process, initargs=(work,))
    try:
        yield from _collect(pool, function, tasks, limit=2 * workers)
    except BrokenProcessPool as error:
        raise ResourceError(
            "a process that tokenised data was killed",
            expected="enough memory for all of them",
            remedy="use fewer workers; give the same command again and it goes on after the finished shards",
        ) from error
    finally:
        pool.shutdown(cancel_futures=True)


def _collect(
    pool: ProcessPoolExecutor, function: Callable[[Task, Work], ResultT], tasks: Sequence[Task], limit: int
) -> Iterator[tuple[Task, ResultT]]:
    """At most `limit` tasks are under way, so that a stop or an error does not wait for all of them."""
    rest = iter(tasks)
    running: dict[Future[Any], Task] = {}
    while True:
        while len(running) < limit and (task := next(rest, None)) is not None:
            running[pool.submit(_call, function, task)] = task
        if not running:
            return
        for future in wait(running, return_when=FIRST_COMPLETED).done:
            yield running.pop(future), future.result()


_work: Work | None = None
"""In a pool's process: what the tasks share."""


def _call(function: Callable[[Task, Work], ResultT], task: Task) -> ResultT:
    assert _work is not None
    return function(task, _work)


def _start_process(work: Work) -> None:
    global _work
    _work = work
    start_in_pool()
    os.environ["TOKENIZERS_PARALLELISM"] = "false"
