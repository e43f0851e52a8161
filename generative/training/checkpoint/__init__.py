"""Training checkpoints: safetensors and JSON, written by all ranks in the background, read by any number of ranks.

On disk, under `checkpoints/` of a run folder:

    step_000100/rank0000.safetensors   the intervals of flattened tensors that rank 0 held, and so on for each rank
    step_000100/index.json             which interval lies in which file; size and sha256 of each file; `meta`
    step_000200.tmp-ATTEMPT-NUMBER/    being written, or left behind by a crash: never read
    protected.json                     steps that rotation must keep, by label

A step folder gets its name by one rename after everything in it is flushed to the disk. So a folder with that name is
complete, and damage that happens later (disk, copying) shows in the hashes.
"""

from generative.training.checkpoint.entries import Entry, shares
from generative.training.checkpoint.reader import Checkpoint, DamagedCheckpointError, newest_in, open_checkpoint
from generative.training.checkpoint.rotation import surplus_steps
from generative.training.checkpoint.store import CheckpointStore

__all__ = [
    "Checkpoint",
    "CheckpointStore",
    "DamagedCheckpointError",
    "Entry",
    "newest_in",
    "open_checkpoint",
    "shares",
    "surplus_steps",
]
