"""How far an evaluation of images is: the training of its extractor, where it has to be trained, then the samples."""

from __future__ import annotations

from dataclasses import dataclass

from launch.modality import Progress


@dataclass
class EvaluationProgress:
    """Counts steps of the extractor's training and samples as one.

    Args:
        told: called with what is done, and all.
        samples: drawn and real ones together.
        trained: steps of the extractor's training, known once it is trained.
    """

    told: Progress | None
    samples: int
    trained: int = 0

    def training(self, done: int, steps: int) -> None:
        """The extractor has done some of its steps."""
        self.trained = steps
        self._tell(done)

    def measured(self, samples: int) -> None:
        """As many samples are measured, of all."""
        self._tell(self.trained + samples)

    def parts(self, done: int, items: int) -> None:
        """As many parts of about equal size are measured, of all."""
        self.measured(self.samples * done // items)

    def _tell(self, done: int) -> None:
        if self.told is not None:
            self.told(done, self.trained + self.samples)
