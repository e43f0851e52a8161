"""One function over many items with Ray Data actors, each of which loads what it needs once: `map_items`.

What is mapped, and over what, is the caller's affair: windows of text, seeds of images, files of sound.
"""

from __future__ import annotations

import contextlib
import logging
import os
import pickle
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from generative.allocator import keep_freed_memory
from generative.errors import GenerativeError, ResourceError
from launch import ray_cluster
from launch.imports import uncollected
from launch.ray_slim import bare_data
from launch.stopping import abandoned

if TYPE_CHECKING:
    from launch.sections import LaunchConfig

Function = Callable[[Any], Any]
Make = Callable[[], Function]
Progress = Callable[[int, int], None]

TRIES = 4
"""How often an item is tried where the actor that works on it dies."""

START_SECONDS = 300
"""How long all actors may take to start."""

ITEM_SECONDS = 3600.0
"""How long nothing at all may be finished."""

POLL_SECONDS = 0.2


class MapError(GenerativeError):
    """A fault of the program in an actor, or actors that die again and again."""

    exit_code = 1


@dataclass(frozen=True)
class _Result:
    """What an actor says of one item: a value, or the error that it met (with its traceback)."""

    value: Any = None
    error: Exception | None = None
    trace: str = ""


class _Actor:
    """Makes the function when its first item comes, so that errors in the making come back as results."""

    def __init__(self, make: Make, folder: str, threads: int) -> None:
        if os.path.isdir(folder):
            os.chdir(folder)
        self._make, self._threads = make, threads
        self._function: Function | None = None

    def __call__(self, batch: dict[str, Any]) -> dict[str, Any]:
        """One item, pickled, to one pickled result."""
        # Pickled by `_results` below, in the command that started this actor: both ends are one program and one user.
        results = [pickle.dumps(self._result(pickle.loads(item))) for item in batch["item"]]
        return {"index": batch["index"], "result": results}

    def _result(self, item: Any) -> _Result:
        try:
            if self._function is None:
                with uncollected():
                    import torch

                torch.set_num_threads(self._threads)
                keep_freed_memory()
                self._function = self._make()
            return _Result(self._function(item))
        except GenerativeError as error:
            return _Result(error=error)
        except Exception as error:
            return _Result(error=MapError(f"{type(error).__name__}: {error}"), trace=traceback.format_exc())


def map_items(
    items: Sequence[Any], make: Make, launch: LaunchConfig, log: Path, progress: Progress | None = None
) -> list[Any]:
    """`[make()(item) for item in items]`, by `launch.workers` actors at once; results are in the order of the items.

    An item whose actor dies is tried again, so the function must not mind being called twice for one item.

    Args:
        items: what an actor does in one go; to be pickled, like the results.
        make: called once in each actor; makes the function. It must be importable (a function of a module, or a
            partial of one). `ray` is up where it runs.
        launch: number of actors, their cores and GPUs, address of a cluster; one actor without an address is this
            process, without Ray.
        log: file for what Ray and the actors have to say.
        progress: told the items that are done, and all.

    Raises:
        ResourceError: the cluster has no room, or does not answer.
        GenerativeError: the first that the function raised.
        MapError: another exception of the function, or actors that died too often.
    """
    if not items:
        return []
    if launch.workers == 1 and launch.address is None:
        return _map_here(items, make, progress)
    ray_cluster.precheck(launch)
    job = _Job(items, make, launch, progress)
    temporary = ray_cluster.temporary_folder()
    log.parent.mkdir(parents=True, exist_ok=True)
    with contextlib.ExitStack() as quiet:
        quiet.enter_context(ray_cluster.ray_environment(launch))
        quiet.enter_context(chatter_to(log))
        try:
            return job.wait(temporary, log)
        finally:
            ray_cluster.remove_temporary(temporary)


def _map_here(items: Sequence[Any], make: Make, progress: Progress | None) -> list[Any]:
    function, found = make(), []
    for item in items:
        found.append(function(item))
        if progress is not None:
            progress(len(found), len(items))
    return found


@contextlib.contextmanager
def chatter_to(path: Path) -> Iterator[None]:
    """Send Ray's messages to a file: its loggers, and what C++ and child processes write to descriptors 1 and 2."""
    handler, kept = logging.FileHandler(path), []
    handler.setFormatter(logging.Formatter("%(asctime)s %(levelname)s %(name)s: %(message)s"))
    for logger in (logging.getLogger("ray"), ray_cluster.LOG):
        kept.append((logger, logger.handlers, logger.propagate))
        logger.handlers, logger.propagate = [handler], False
    ray_cluster.LOG.setLevel(logging.INFO)
    log = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND, 0o644)
    saved = [(number, os.dup(number)) for number in (1, 2)]
    for number, _ in saved:
        os.dup2(log, number)
    try:
        yield
    finally:
        for number, copy in saved:
            os.dup2(copy, number)
            os.close(copy)
        os.close(log)
        for logger, handlers, propagate in kept:
            logger.handlers, logger.propagate = handlers, propagate
        handler.close()


class _Job:
    """One mapping. Ray is used in a thread of its own, whose end is the end of a local cluster; see `RayBackend`."""

    def __init__(self, items: Sequence[Any], make: Make, launch: LaunchConfig, progress: Progress | None) -> None:
        self._items, self._make, self._launch, self._progress = items, make, launch, progress
        self._found: dict[int, _Result] = {}
        self._error: BaseException | None = None
        self._stopped, self._joined = threading.Event(), threading.Event()
        self._changed = time.monotonic()

    def wait(self, temporary: Path, log: Path) -> list[Any]:
        """Run it to its end; see `map_items`."""
        thread = threading.Thread(target=self._main, args=(temporary,), name="ray-map", daemon=True)
        thread.start()
        told = -1
        try:
            while thread.is_alive():
                thread.join(POLL_SECONDS)
                if self._progress is not None and len(self._found) > told:
                    told = len(self._found)
                    self._progress(told, len(self._items))
                silent = time.monotonic() - self._changed
                if silent > ray_cluster.JOIN_SECONDS and not self._joined.is_set():
                    raise ray_cluster.not_joined(self._launch)
                if silent > ITEM_SECONDS:
                    raise _nothing_done(log)
        except BaseException:
            self._stopped.set()
            abandoned.set()
            raise
        if self._error is not None:
            raise self._explained(self._error, log)
        results = [self._found[index] for index in range(len(self._items))]
        return [result.value for result in results]

    def _main(self, temporary: Path) -> None:
        try:
            ray_cluster.connect(self._launch, temporary)
            self._joined.set()
            ray_cluster.find_seats(self._launch, ray_cluster.LOG.info)
            self._changed = time.monotonic()
            with bare_data():
                self._collect()
        except BaseException as error:
            self._error = error
        finally:
            import ray

            ray.shutdown()

    def _collect(self) -> None:
        for index, result in self._results():
            self._changed = time.monotonic()
            self._found[index] = result
            if result.error is not None:
                ray_cluster.LOG.error("item %d: %s\n%s", index, result.error, result.trace)
                raise result.error
            if self._stopped.is_set():
                return

    def _results(self) -> Iterator[tuple[int, _Result]]:
        """(place, result) of each item, as they are finished."""
        import ray.data

        context = ray.data.DataContext.get_current()
        context.enable_progress_bars = False
        context.wait_for_min_actors_s = START_SECONDS
        rows = [{"index": index, "item": pickle.dumps(item)} for index, item in enumerate(self._items)]
        launch = self._launch
        actors = min(launch.workers, len(rows))
        found = ray.data.from_items(rows, override_num_blocks=len(rows)).map_batches(
            _Actor,
            fn_constructor_args=(self._make, os.getcwd(), max(1, int(launch.cpus_per_worker))),
            batch_size=1,
            compute=ray.data.ActorPoolStrategy(size=actors, max_tasks_in_flight_per_actor=1),
            num_cpus=launch.cpus_per_worker,
            num_gpus=launch.gpus_per_worker or None,
            memory=launch.memory_per_worker * 1e9 if launch.memory_per_worker else None,
            max_restarts=TRIES - 1,
            max_task_retries=TRIES - 1,
        )
        for row in found.iter_rows():
            yield int(row["index"]), pickle.loads(row["result"])  # from an actor of this command, see `_Actor`

    def _explained(self, error: BaseException, log: Path) -> BaseException:
        """What is told of an error in the thread."""
        if isinstance(error, MapError):
            return MapError(
                f"a worker met {error.problem}",
                "no such thing; this is a fault of the program, not of your input",
                f"please report it with the traceback in {log}",
            )
        if isinstance(error, GenerativeError) or not isinstance(error, Exception):
            return error
        first = next(iter(str(error).strip().splitlines()), "")
        told = MapError(
            f"the workers could not finish: {type(error).__name__}: {first[:200]}",
            f"workers that live; each part of the work is tried {TRIES} times",
            f"look at {log} (not enough memory, a lost node?), then give the command again, with fewer workers perhaps",
        )
        told.__cause__ = error
        return told


def parts(count: int, workers: int, most: int) -> list[tuple[int, int]]:
    """range(count) cut into (first, last plus one) of at most `most`, and small enough that each worker has one."""
    size = max(1, min(most, -(-count // workers)))
    return [(start, min(start + size, count)) for start in range(0, count, size)]


def log_file(folder: Path) -> Path:
    """Where Ray and the workers write, for a run in `folder`."""
    return folder / "logs" / "ray_map.log"


def _nothing_done(log: Path) -> ResourceError:
    return ResourceError(
        f"no worker has finished anything for {ITEM_SECONDS / 3600:g} h",
        "a part of the work now and then",
        f"look at {log} and at the cluster, or give the work smaller parts",
    )
