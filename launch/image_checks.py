"""What can be wrong with the evaluation of images, found before any is drawn."""

from __future__ import annotations

from evaluation.image import OF_CLASSES, check_metrics
from generative.data.images import ImageData
from generative.errors import ConfigError
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
