"""What restores images: reads or simulates measurements, samples, writes pictures and a line for each image."""

from __future__ import annotations

import hashlib
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from evaluation.restoration import coverage, psnr, ssim
from generative.data.image_files import png
from generative.errors import ConfigError, DataError
from generative.methods.stsl.methods import method_named, with_changes
from generative.methods.stsl.operators.base import Operator
from generative.methods.stsl.operators.catalogue import make_operator
from generative.methods.stsl.operators.noise import Kind, deviation, with_noise
from generative.methods.stsl.prior import recomputed
from generative.methods.stsl.problem import Cost, Problem, StreamDraws, check_sigma
from generative.randomness import Streams
from generative.training.runfolder import append_line, replace_file
from launch.enhance_files import File, writing
from launch.enhancing import Progress
from launch.restore_files import HELD_OUT, RECORD, read_image
from launch.restore_prior import OpenPrior, PriorAsked, open_prior

Line = dict[str, Any]


@dataclass(frozen=True)
class RestoreAsked:
    """What the command line asks for; see `launch.restore_cli`."""

    prior: PriorAsked
    source: Path
    target: Path
    operator: str
    method: str = "stsl"
    settings: Mapping[str, str] = field(default_factory=dict)
    noise: float = 0.05
    noise_model: Kind = "gaussian"
    simulate: bool = False
    samples: int = 4
    seed: int = 0
    batch_size: int = 16
    resize: bool = False
    count: int = 12
    checkpoint_decoder: bool = False

    def __post_init__(self) -> None:
        if self.resize and not self.simulate and self.source != Path(HELD_OUT):
            raise ConfigError(
                "--resize without --simulate: measurements are taken as they are",
                "clean images, which are cut and scaled before they are measured",
                "give --simulate where IN holds clean images, or leave out --resize",
            )
        if self.checkpoint_decoder and method_named(self.method).differentiates_twice:
            raise ConfigError(
                f"--checkpoint-decoder with {self.method}, which differentiates the decoder twice",
                "a method that does so once, such as stsl, psld or daps",
                "take another method; or a smaller --batch-size, which needs less memory too",
            )


def restore_worker(asked: RestoreAsked) -> RestoreWorker:
    """Restores parts of the images with a prior that is opened now (by an actor, or here)."""
    opened = open_prior(asked.prior)
    if asked.checkpoint_decoder:
        opened = replace(opened, prior=recomputed(opened.prior))
    return RestoreWorker(asked, opened, make_operator(asked.operator, opened.prior.image))


class RestoreWorker:
    """Restores images in batches of equal numbers of rows and writes each as soon as it is done."""

    def __init__(self, asked: RestoreAsked, opened: OpenPrior, operator: Operator) -> None:
        pictures = len(operator.measured) == 3 and operator.measured[0] in (1, 3)
        # what has no way back (magnitudes of a Fourier transform) is not in the range of images either
        blind = operator.pseudo_inverse is None and operator.rough is None
        if not asked.simulate and (blind or not pictures):
            raise ConfigError(
                f"measurements of {operator.name} are no pictures: {list(operator.measured)}",
                "an operator whose measurements are pictures, or images to simulate from",
                "give --simulate and clean images",
            )
        self.sigma = deviation(asked.noise_model, asked.noise)
        check_sigma(self.sigma)
        if asked.noise_model != "gaussian" and operator.greatest is None:
            raise ConfigError(
                f"{asked.noise_model} noise of measurements of {operator.name}, which are not in the range of images",
                "gaussian noise, or an operator such as superres, inpaint or gaussian_blur",
                "leave out --noise-model",
            )
        self.asked, self.opened, self.operator = asked, opened, operator
        self.method = method_named(asked.method)
        self.settings = with_changes(self.method.settings, asked.settings)
        told = (opened.fingerprint, operator.name, asked.method, self.settings, asked.noise, asked.simulate)
        more = (asked.noise_model, asked.samples, asked.seed, asked.resize)
        self.stamp = hashlib.sha256(repr((told, more)).encode()).hexdigest()[:16]
        self.at_once = max(1, asked.batch_size // asked.samples)

    def __call__(self, files: Sequence[File], progress: Progress = lambda done, total: None) -> list[Line]:
        """A line for each image."""
        lines: list[Line] = []
        for start in range(0, len(files), self.at_once):
            lines += self._batch(files[start : start + self.at_once])
            progress(min(start + self.at_once, len(files)), len(files))
        return lines

    def _batch(self, files: Sequence[File]) -> list[Line]:
        lines: list[Line] = []
        read: dict[File, tuple[Tensor, Tensor | None]] = {}
        for file in files:
            try:
                read[file] = self._measured(file)
            except DataError as error:
                lines.append(self._told(file, failed=error.problem))
        if not read:
            return lines
        begun, cost = time.perf_counter(), Cost()
        images, ratio = self._sample(list(read), torch.stack([y for y, _ in read.values()]), cost)
        seconds = (time.perf_counter() - begun) / len(read)
        counts = {key: round(value, 1) for key, value in cost.by_image(images.shape[0] * images.shape[1]).items()}
        counts["paper_nfe"] = self.method.nfe(self.settings)
        for number, (file, (y, truth)) in enumerate(read.items()):
            whole = images[number].flatten(1).isfinite().all(1)
            if not bool(whole.any()):
                reason = f"no sample stayed finite (smaller steps? --set {self.method.weight}=...)"
                lines.append(self._told(file, failed=reason))
                continue
            kept = images[number][whole]
            told = self._write(file, y, truth, kept)
            residual = [round(float(r), 3) for r in ratio[number][whole]]
            lost = int((~whole).sum())
            lines.append(self._told(file, **told, residual=residual, lost=lost, cost=counts, seconds=seconds))
        return lines

    def _measured(self, file: File) -> tuple[Tensor, Tensor | None]:
        """The measurement, and the image that it was simulated from."""
        if not self.asked.simulate:
            return self._seen(read_image(file.source, self.operator.measured)[None]), None
        truth = read_image(file.source, self.operator.image, self.asked.resize)
        streams = Streams(self.asked.seed).within("restore")
        ids, clean = torch.tensor([file.number]), self.operator(truth[None])
        return self._seen(with_noise(clean, self.asked.noise_model, self.asked.noise, ids, streams)), truth

    def _seen(self, y: Tensor) -> Tensor:
        """One measurement; what a mask takes away, and noise there, is not measured."""
        return (self.operator(y) if self.operator.masks else y)[0]

    def _sample(self, files: Sequence[File], y: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
        """Images [F, S, C, H, W] (NaN where a sample failed) and last residual ratios [F, S]."""
        count, most = self.asked.samples, self.asked.batch_size
        ids = torch.tensor([_sample_id(file, s) for file in files for s in range(count)])
        rows = y.repeat_interleave(count, 0)
        parts = [self._draw(*part, cost) for part in zip(torch.split(ids, most), torch.split(rows, most), strict=True)]
        image, ratio = (torch.cat(found) for found in zip(*parts, strict=True))
        return image.reshape(len(files), count, *image.shape[1:]), ratio.reshape(len(files), count)

    def _draw(self, ids: Tensor, y: Tensor, cost: Cost) -> tuple[Tensor, Tensor]:
        """A sample of each measurement, and its residual ratio."""
        device = self.opened.device
        draws = StreamDraws(Streams(self.asked.seed).within("restore"), ids, device=device)
        problem = Problem(self.opened.prior, self.operator, y.to(device), self.sigma, draws, cost)
        image = self.method.run(problem, self.settings).image
        with torch.no_grad():
            return image.cpu(), problem.ratio(problem.misfit(image)).cpu()

    def _write(self, file: File, y: Tensor, truth: Tensor | None, samples: Tensor) -> dict[str, Any]:
        """Write pictures; names, and what is measured where the truth is known."""
        mean = samples.mean(0)
        pictures = {f"sample_{i}.png": sample for i, sample in enumerate(samples)} | {"mean.png": mean}
        told: dict[str, Any] = {}
        if len(samples) > 1:
            spread = samples.std(0).mean(0, keepdim=True)
            told["spread"] = float(spread.mean())
            # white is the greatest spread of this image, which the report tells
            pictures["std.png"] = 2 * spread / spread.max().clamp(min=1e-9) - 1
            told["spread_max"] = float(spread.max())
        if y.dim() == 3 and y.shape[0] in (1, 3):
            pictures["measurement.png"] = y
        if truth is not None:
            pictures["truth.png"] = truth
            told |= _compared(samples, mean, truth)
        for name, image in pictures.items():
            write(file.target / name, png(image.clamp(-1, 1)))
        return told | {"files": list(pictures)}

    def _told(self, file: File, **what: Any) -> Line:
        line = {"file": file.name, "source": file.stamp, "settings": self.stamp, **what}
        self.asked.target.mkdir(parents=True, exist_ok=True)
        append_line(self.asked.target / RECORD, line)
        return line


def _sample_id(file: File, sample: int) -> int:
    """Address of a sample's noise, the same on every machine and in every batch."""
    return int.from_bytes(hashlib.sha256(f"{file.number}/{sample}".encode()).digest()[:7], "big")


def _compared(samples: Tensor, mean: Tensor, truth: Tensor) -> dict[str, Any]:
    against = truth.expand_as(samples)
    told = {
        "psnr_mean": float(psnr(mean[None], truth[None])[0]),
        "psnr": float(psnr(samples, against).mean()),
        "ssim": float(ssim(samples, against).mean()),
    }
    if len(samples) > 1:
        told["coverage"] = float(coverage(samples[:, None], truth[None])[0])
    return told


def write(path: Path, data: bytes) -> None:
    """Write a file whole or not at all; raises ResourceError."""
    with writing(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        replace_file(path, data, durable=False)
