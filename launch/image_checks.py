"""What can be wrong with the evaluation of images, found before any is drawn."""

from __future__ import annotations

from collections.abc import Sequence

from evaluation.image import OF_CLASSES, MetricSettings, check_metrics, fewest_samples
from generative.data.images import ImageData
from generative.errors import ConfigError
from launch.following import METRICS
from launch.image_evaluation import reference_of
from launch.image_sections import AT_END
from launch.schema import RunConfig


def check_figures(config: RunConfig, data: ImageData) -> None:
    """Refuse unknown metrics, and those that the extractor cannot serve. Raises ConfigError."""
    extractor, metrics = config.evaluate.extractor, config.evaluate.metrics
    check_metrics(metrics)
    of_classes = [name for name in metrics or () if name in OF_CLASSES]
    if of_classes and not (extractor == "inception" or (extractor == "small" and data.classes is not None)):
        raise ConfigError(
            f"evaluate.metrics has {', '.join(of_classes)}, but evaluate.extractor={extractor} tells no classes here",
            expected="class probabilities: of inception, or of small where the data have labels",
            remedy=f"leave {' and '.join(of_classes)} out of evaluate.metrics, or set evaluate.extractor=inception",
        )


def check_weights(config: RunConfig) -> None:
    """Refuse weights that can only be had of a run that is there. Raises ConfigError."""
    for section, wanted in (("evaluate", config.evaluate.weights), ("sample", config.sample.weights)):
        if wanted not in AT_END:
            raise ConfigError(
                f"{section}.weights={wanted} in a training",
                expected=" or ".join(AT_END),
                remedy=f"train with {section}.weights=ema, and give {wanted} to `generative {section}` afterwards",
            )


def check_labels(config: RunConfig) -> None:
    """Refuse asked classes in a training: samples that are watched along it are of all. Raises ConfigError."""
    if config.sample.labels is not None:
        raise ConfigError(
            f"sample.labels={list(config.sample.labels)} in a training, which draws and watches samples of all classes",
            expected="null",
            remedy="leave it out, and give --label to `generative sample` afterwards",
        )


def check_classes(config: RunConfig, data: ImageData) -> None:
    """Refuse a model of classes (method.classes) on data that have none. Raises ConfigError."""
    wanted = getattr(config.method, "classes", None)
    if wanted and data.classes is None:
        raise ConfigError(
            f"method.classes={wanted}, but {data.description} has no classes",
            expected="data with labels, or a model that is told none",
            remedy="set method.classes=0, or data.classes=true (folder) or data.label_column (hub)",
        )


def check_reference(config: RunConfig, data: ImageData) -> None:
    """Refuse to compare with held-out images where nothing is held out. Raises ConfigError."""
    source, _ = reference_of(config.evaluate, data)
    if not len(source):
        raise ConfigError(
            f"evaluate.reference={config.evaluate.reference}, but {data.description} holds nothing out",
            expected="real images to compare with",
            remedy="set evaluate.reference=train, or data.validation_fraction=0.1",
        )


def check_counts(
    config: RunConfig, data: ImageData, metrics: Sequence[str] | None, otherwise: str | None = None
) -> None:
    """Refuse metrics of fewer samples, or real images, than they are defined for.

    Args:
        config: with the section evaluate.
        data: real images.
        metrics: that will be computed; None: all.
        otherwise: what helps where there can be no more of either; None: to leave these metrics out.

    Raises:
        ConfigError: with the metrics that need more.
    """
    settings = config.evaluate
    real = len(reference_of(settings, data)[1])
    count = min(settings.samples, settings.features, real)
    needed = fewest_samples(metrics, MetricSettings(neighbours=settings.neighbours))
    lacking = {name: fewest for name, fewest in needed.items() if fewest > count}
    if lacking:
        raise ConfigError(
            f"evaluate.samples={settings.samples}, evaluate.features={settings.features} and {real} real images are "
            f"too few for {', '.join(lacking)}",
            expected=f"{max(lacking.values())} or more of each",
            remedy="raise evaluate.samples, evaluate.features and evaluate.reference_samples to that, or "
            + (otherwise or f"leave {', '.join(lacking)} out of evaluate.metrics"),
        )


def check_following(config: RunConfig, data: ImageData) -> None:
    """Refuse figures along the training where there are no checkpoints to measure, or no images. Raises ConfigError."""
    every, saved = config.evaluate.every_steps, config.train.checkpoint.every_steps
    if every is None:
        return
    if data.kind != "image":
        raise ConfigError(
            f"evaluate.every_steps={every} with points, which have no FID",
            expected="images, or null",
            remedy="set evaluate.every_steps=null",
        )
    if saved is None or every % saved:
        raise ConfigError(
            f"evaluate.every_steps={every} with train.checkpoint.every_steps={saved}",
            expected="a multiple of the steps between checkpoints, which are what is measured",
            remedy=f"set train.checkpoint.every_steps={every}",
        )
    check_counts(config, data, METRICS, "set evaluate.every_steps=null")
