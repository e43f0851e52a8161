"""`generative edit`: images in; reconstruction, edit, attention maps of the changed words and a line for each out."""

from __future__ import annotations

import time
from functools import partial
from typing import Any

import torch
from torch import Tensor

from evaluation.editing_report import build_editing_report
from evaluation.restoration import psnr
from generative.data.image_files import png
from generative.errors import DataError
from generative.methods.stsl.editing import Edited, edited
from generative.methods.stsl.operators.base import Operator
from generative.methods.stsl.operators.noise import with_noise
from generative.methods.stsl.problem import Cost, Problem, StreamDraws
from generative.methods.stsl.sampler import Stsl, stsl
from generative.randomness import Streams
from generative.training.runfolder import append_line, read_lines
from launch.edit_asked import EditAsked, Plan, make_plan
from launch.enhance_files import File
from launch.enhancing import Progress, Say
from launch.restore_files import REPORT, list_images, read_image
from launch.restore_worker import Line, write
from launch.restoring import RestoredFiles, is_done

RECORD = "edit.jsonl"


def edit_files(asked: EditAsked, say: Say, progress: Progress) -> RestoredFiles:
    """Edit what is not there yet, and write the report; what is wrong with an image is told, the rest goes on.

    Raises:
        ConfigError, CheckpointError, DataError: before anything is written.
        ResourceError: the results cannot be written.
    """
    begun = time.perf_counter()
    files = list_images(asked.source, asked.target)
    plan = make_plan(asked)
    facts = _facts(asked, plan)
    for name, text in facts.items():
        say(name, text)
    known = {line["file"]: line for line in read_lines(asked.target / RECORD)}
    todo = [file for file in files if not is_done(file, known.get(file.name), plan.stamp)]
    total = len(todo) * asked.steps
    lines = []
    for number, file in enumerate(todo):
        lines.append(_edit_one(asked, plan, file, partial(_advance, progress, number * asked.steps, total)))
    known = {line["file"]: line for line in read_lines(asked.target / RECORD)}
    shown = [known[file.name] for file in files if is_done(file, known.get(file.name), plan.stamp)]
    if shown:
        write(asked.target / REPORT, build_editing_report(asked.target, shown, facts).encode(errors="replace"))
    done = [line for line in lines if "failed" not in line]
    failed = [f"{line['file']}: {line['failed']}" for line in lines if "failed" in line]
    return RestoredFiles(done, len(files) - len(todo), failed, time.perf_counter() - begun)


def _advance(progress: Progress, before: int, total: int, done: int, _: int) -> None:
    """Progress of one image, told as that of all."""
    progress(before + done, total)


def _facts(asked: EditAsked, plan: Plan) -> dict[str, str]:
    words = ", ".join(dict.fromkeys(word for word, _ in plan.control.changed)) or "none"
    corrupted = "no: images are taken as they are"
    if plan.operator is not None:
        corrupted = f"{plan.operator.name}, noise {asked.noise:g}, " + ("simulated" if asked.simulate else "as given")
    return {
        "prior": plan.about,
        "source": asked.before,
        "target": asked.after,
        "mode": f"{asked.mode}; words that change: {words}",
        "corrupted": corrupted,
        "steps": f"{asked.steps}, guidance {asked.guidance:g}, cross-attention {asked.cross:g} and self-attention "
        f"{asked.own:g} of the steps, seed {asked.seed}",
    }


def _edit_one(asked: EditAsked, plan: Plan, file: File, progress: Progress) -> Line:
    begun, cost = time.perf_counter(), Cost()
    try:
        given, problem = _problem(asked, plan, file, cost)
    except DataError as error:
        return _told(asked, plan, file, failed=error.problem)
    pictures: dict[str, Tensor] = {"input.png": given}
    if plan.operator is None:
        with torch.no_grad():
            z = problem.encode(problem.y)
    else:
        restored = stsl(problem, Stsl(plan.settings.terms, steps=asked.steps))
        if bool(restored.failed.any()):
            return _told(asked, plan, file, failed="its restoration did not stay finite")
        z = restored.z
        pictures["restored.png"] = restored.image[0]
    model, measured = plan.model, plan.operator is not None
    found = edited(problem, model.prior_of, model.unet, z, plan.texts, plan.control, plan.settings, measured, progress)
    if not bool(found.image.isfinite().all()):
        return _told(asked, plan, file, failed="its edit did not stay finite (a smaller --guidance?)")
    with torch.no_grad():
        wanted = problem.decode(z)
    # what inversion loses; the autoencoder's own loss is not in it
    inversion = float(psnr(found.reconstruction.clamp(-1, 1), wanted.clamp(-1, 1))[0])
    pictures |= {"reconstruction.png": found.reconstruction[0], "edit.png": found.image[0]}
    pictures |= _maps(plan, found)
    for name, image in pictures.items():
        write(file.target / name, png(image.detach().float().cpu().clamp(-1, 1)))
    counts = {key: round(value, 1) for key, value in cost.by_image(1).items()}
    moved = float((found.image - found.reconstruction).square().mean().sqrt())
    told = {"files": list(pictures), "inversion_psnr": round(inversion, 2), "change": round(moved, 4), "cost": counts}
    return _told(asked, plan, file, **told, seconds=time.perf_counter() - begun)


def _problem(asked: EditAsked, plan: Plan, file: File, cost: Cost) -> tuple[Tensor, Problem]:
    """The picture that was given (or measured), and the problem under no text."""
    prior, operator, device = plan.model.prior_of(plan.texts.empty), plan.operator, plan.model.device
    streams, ids = Streams(asked.seed).within("edit"), torch.tensor([file.number])
    if operator is None:
        operator = Operator("none", prior.image, prior.image, lambda x: x, lambda y: y, lambda y: y)
        y = read_image(file.source, prior.image, asked.resize)[None]
    elif asked.simulate:
        clean = read_image(file.source, prior.image, asked.resize)[None]
        y = with_noise(operator(clean), "gaussian", asked.noise, ids, streams)
    else:
        y = read_image(file.source, operator.measured)[None]
        y = operator(y) if operator.masks else y
    picture = y if len(operator.measured) == 3 and operator.measured[0] in (1, 3) else operator.back(y)
    assert picture is not None
    noise = asked.noise if plan.operator is not None else 1.0
    draws = StreamDraws(streams, ids, device=device)
    return picture[0], Problem(prior, operator, y.to(device), noise, draws, cost)


def _maps(plan: Plan, found: Edited) -> dict[str, Tensor]:
    """The changed words' attention, white being each map's greatest value."""
    pictures: dict[str, Tensor] = {}
    for number, (word, tokens) in enumerate(plan.control.changed):
        one = found.maps.of(tokens)
        safe = "".join(sign for sign in word if sign.isalnum())[:40]
        pictures[f"attention_{number}_{safe}.png"] = 2 * one / one.max().clamp(min=1e-9) - 1
    return pictures


def _told(asked: EditAsked, plan: Plan, file: File, **what: Any) -> Line:
    line = {"file": file.name, "source": file.stamp, "settings": plan.stamp, **what}
    asked.target.mkdir(parents=True, exist_ok=True)
    append_line(asked.target / RECORD, line)
    return line
