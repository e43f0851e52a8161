"""One rank of test_patience.py: does its part of what ARGUMENTS say, and prints how it ended."""

import json
import os
import signal
import sys
import threading
import time
from datetime import timedelta

import torch
import torch.distributed as dist

from generative.training.patience import Patience

arguments = json.loads(sys.argv[1])
rank, world = int(os.environ["RANK"]), int(os.environ["WORLD_SIZE"])
seconds = arguments["timeout"]
dist.init_process_group("gloo", timeout=timedelta(seconds=seconds))
patience = Patience(world, seconds, arguments["limit"])
ended = "together"
if rank == 0 and arguments["stop"] and os.fork() == 0:
    # The child freezes its parent, and thaws it much later.
    time.sleep(0.5)
    os.kill(os.getppid(), signal.SIGSTOP)
    time.sleep(2 * seconds + 1)
    os.kill(os.getppid(), signal.SIGCONT)
    os._exit(0)
try:
    with patience.together():
        if rank == 0:
            time.sleep(arguments["busy"])
except TimeoutError as error:
    ended = str(error)
if ended == "together":
    total = torch.ones(1)
    dist.all_reduce(total)
    assert total.item() == world
assert not [thread for thread in threading.enumerate() if thread.name == "patience"]
print(json.dumps({"ended": ended}), flush=True)
os._exit(0)
