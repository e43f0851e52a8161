"""Settings of runs on images that are over in a moment."""

SMALL_LOOKS = (
    "evaluate.samples=40",
    "evaluate.reference_samples=100",
    "evaluate.batch_size=25",
    "evaluate.extractor=pixels",
    "sample.count=9",
    "sample.monitor=20",
    "sample.neighbours=4",
    "launch.backend=local",
    "launch.workers=1",
)
"""Few samples to draw and to measure, in this process."""

THREE_STEPS = (
    "train.steps=3",
    "train.batch_size=16",
    "train.sample_every=null",
    "train.checkpoint.every_steps=3",
    "train.validation.every_steps=null",
    "method.network.width=16",
    "evaluate.at_end=false",
    *SMALL_LOOKS,
)
"""A training in this process of which only the last checkpoint is of use."""
