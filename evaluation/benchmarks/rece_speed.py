"""What an erasure costs (UCE, one derivation, one epoch of RECE) at SD 1.4 and SDXL shapes, and what it loses.

Matrices and embeddings are synthetic, of the shapes of these models. Text encoders, files and images are not timed.
"""

from __future__ import annotations

import subprocess
import sys
from functools import partial

from evaluation.benchmarks.figure import Figure, figure, say
from evaluation.benchmarks.rece_forms import SD14, SDXL, Shapes, case, deviation, exact, ours, plain, released
from evaluation.benchmarks.timing import interleave, one_thread
from evaluation.estimate import Estimate, ratio_of_medians

QUICK14, QUICKXL = Shapes("SD 1.4, a tenth", 96, (40,) * 6, 20), Shapes("SDXL, a tenth", 192, (80,) * 8, 20)

SAMPLE = 20
"""Of the 140 layers of SDXL each twentieth: one of the 20 narrow ones, six of the 120 wide ones."""

_MEMORY = """
import re, torch
from safetensors import safe_open
from evaluation.benchmarks.rece_forms import Case, case, ours, Shapes
shapes = Shapes({name!r}, {width}, {rows}, {length})
small = case(Shapes("", {width}, (), {length}))
torch.set_num_threads(1)
with safe_open({path!r}, framework="pt") as file:
    weights = [file.get_tensor(str(i)) for i in range(len(shapes.rows))]
sum(float(w.sum()) for w in weights)
def memory(field):  # of this program alone: ru_maxrss would count what the one that started it had
    return 1024 * int(re.search(field + r":\\s+(\\d+)", open("/proc/self/status").read())[1])
level = memory("VmRSS")
ours(Case(weights, small.concept, small.guide, small.kept))
print(memory("VmHWM") - level)
"""


def run(quick: bool) -> dict[str, Figure]:
    """speedup_released, speedup_plain, error_ratio, peak_memory_gb at SD 1.4 and SDXL shapes."""
    small, large = (QUICK14, QUICKXL) if quick else (SD14, SDXL)
    with one_thread():
        found = of_model(small, "", pairs=3 if quick else 9, slow_pairs=3)
        say(f"{small.name} done")
        return found | of_model(large, "_sdxl", pairs=2, slow_pairs=2, every=1 if quick else SAMPLE)


def of_model(shapes: Shapes, ending: str, pairs: int, slow_pairs: int, every: int = 1) -> dict[str, Figure]:
    """Figures of one model.

    Args:
        shapes: of its matrices.
        ending: of the figures' names.
        pairs: timings of each form, in turns.
        slow_pairs: of the released form.
        every: only each such layer of the released form, whose time then counts so often; 1: all.
    """
    given = case(shapes)
    note = (
        f"UCE + derivation + 1 epoch, {len(shapes.rows)} matrices of {shapes.name} ({shapes.width} columns), 1 thread"
    )
    goals = not ending
    quickly, slowly = partial(ours, given), partial(plain, given)
    warm = 1 if goals else 0
    plain_times, our_times = interleave(slowly, quickly, pairs, warmup=warm)
    median = sorted(our_times)[len(our_times) // 2]
    found = {
        f"speedup_plain{ending}": figure(
            ratio_of_medians(plain_times, our_times),
            ">= 2" if goals else None,
            f"{note}: layer by layer with float32 inverses, over ours in float64 (median {median:.2f} s)",
        )
    }
    released_times, our_times = interleave(partial(released, given, every), quickly, slow_pairs, warmup=0)
    part = f", {every} times its two edits of each {every}th layer, derivation left out" if every > 1 else ""
    found[f"speedup_released{ending}"] = figure(
        ratio_of_medians([every * seconds for seconds in released_times], our_times),
        ">= 15" if goals else None,
        f"{note}: as published{part}, over ours",
    )
    reference = exact(given)
    errors = [deviation(form(), reference, given.weights) for form in (slowly, quickly)]
    found[f"error_ratio{ending}"] = figure(
        Estimate(errors[0] / errors[1], None, 1),
        ">= 1e4" if goals else None,
        f"{note}: deviation from float64 over |dW|, plain {errors[0]:.2g}, ours as float32 {errors[1]:.2g}",
    )
    found[f"peak_memory_gb{ending}"] = figure(
        Estimate(peak_bytes(shapes) / 1e9, None, 1, "GB"),
        "<= 0.5" if goals else None,
        f"{note}: largest resident size above the level after imports and with the matrices mapped, results included",
    )
    return found


def peak_bytes(shapes: Shapes) -> int:
    """What our form takes in a process of its own, beyond the matrices."""
    import tempfile
    from pathlib import Path

    from safetensors.torch import save_file

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "weights.safetensors"
        save_file({str(i): weight for i, weight in enumerate(case(shapes).weights)}, path)
        text = _MEMORY.format(
            name=shapes.name, width=shapes.width, rows=shapes.rows, length=shapes.length, path=str(path)
        )
        done = subprocess.run([sys.executable, "-c", text], capture_output=True, text=True, check=True)
    return int(done.stdout.split()[-1])
