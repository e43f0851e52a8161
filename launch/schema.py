"""The configuration of a whole run, put together from the sections of each room."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field, model_validator

from generative.config import Config, load_layers, validate
from generative.config_messages import combination
from generative.data.config import TextDataConfig
from generative.data.image_config import ImageDataConfig
from generative.data.speech_config import SpeechDataConfig
from generative.methods.autoregressive.config import AutoregressiveConfig
from generative.methods.edm.config import EdmConfig
from generative.methods.f_distill.config import FDistillConfig
from generative.methods.kl_vae.config import KlVaeConfig
from generative.methods.masked_diffusion.config import MaskedDiffusionConfig
from generative.methods.mee_gan.config import MeeGanConfig
from generative.methods.sgmse.config import SgmseConfig
from generative.methods.text_to_image.config import TextToImageConfig
from generative.training.config import ParallelConfig, TrainConfig
from launch.image_sections import ImageEvaluation, ImageSampling
from launch.published_teachers import is_published
from launch.sections import LaunchConfig, PlanConfig, RunSection, TextEvaluation, TextSampling, TrackerConfig
from launch.speech_sections import SpeechEvaluation, SpeechSampling


class RunConfig(Config):
    """A run: method, data, training, evaluation, and where it runs. Each kind of data has a subclass of its own."""

    kind: ClassVar[Literal["text", "image", "speech"]]
    """What the samples are; picks the module that knows how to open, draw and measure them (`launch.modality`)."""

    name: str = ""
    """Name of the run; set from the configuration's name."""
    method: Any
    data: Any
    train: TrainConfig
    evaluate: Any = None
    sample: Any = None
    run: RunSection = RunSection()
    launch: LaunchConfig = LaunchConfig()
    parallel: ParallelConfig = ParallelConfig()
    track: TrackerConfig = TrackerConfig()
    plan: PlanConfig = PlanConfig()

    @model_validator(mode="after")
    def _batch_fits_workers(self) -> RunConfig:
        if self.train.batch_size < self.launch.workers:
            raise combination(
                f"train.batch_size={self.train.batch_size} is smaller than launch.workers={self.launch.workers}",
                "at least one sample of each batch for every worker",
                "raise train.batch_size, or lower launch.workers",
            )
        return self

    @property
    def threads(self) -> int:
        """CPU threads of each worker."""
        return self.train.threads or max(1, int(self.launch.cpus_per_worker))

    @property
    def folder(self) -> str:
        """The run folder."""
        return self.run.dir or f"runs/{self.name}"


class TextRunConfig(RunConfig):
    """A text model."""

    kind = "text"
    method: Annotated[MaskedDiffusionConfig | AutoregressiveConfig, Field(discriminator="name")]
    data: TextDataConfig
    evaluate: TextEvaluation = TextEvaluation()
    sample: TextSampling = TextSampling()


class ImageRunConfig(RunConfig):
    """A model of images, or of points in the plane."""

    kind = "image"
    method: Annotated[
        MeeGanConfig | EdmConfig | FDistillConfig | TextToImageConfig | KlVaeConfig, Field(discriminator="name")
    ]
    data: ImageDataConfig
    evaluate: ImageEvaluation = ImageEvaluation()
    sample: ImageSampling = ImageSampling()

    @model_validator(mode="after")
    def _captions_for_texts(self) -> ImageRunConfig:
        captions, text = self.data.name == "captions", is_published(self.method)
        teacher = getattr(self.method, "teacher", None)
        if captions and not text:
            raise combination(
                f"data.name=captions with method.name={self.method.name}, which makes images without a text",
                "a text-to-image model (f_distill with method.network={name: stable_diffusion})",
                "begin with configs/f_distill/sd15.yaml, or set data.name=folder for images alone",
            )
        if text and not captions:
            raise combination(
                f"a text-to-image teacher ({teacher}), and data.name={self.data.name} without captions",
                "captions, with images for the discriminator",
                "set data={name: captions, images: FOLDER, captions: FILE}, a .csv, .jsonl or .parquet file with the "
                "columns file_name and text",
            )
        return self

    @model_validator(mode="after")
    def _buffer_fits_batch(self) -> ImageRunConfig:
        method, size = self.method, self.train.batch_size
        if not isinstance(method, MeeGanConfig):
            return self
        if method.buffer == "released" and method.entropy.weight and method.buffer_columns != size:
            raise combination(
                f"buffer=released with method.buffer_columns={method.buffer_columns} and train.batch_size={size}",
                "a column for each sample of a batch",
                f"set method.buffer_columns={size}, or method.buffer=fifo",
            )
        return self


class SpeechRunConfig(RunConfig):
    """A model that enhances speech."""

    kind = "speech"
    method: SgmseConfig
    data: SpeechDataConfig
    evaluate: SpeechEvaluation = SpeechEvaluation()
    sample: SpeechSampling = SpeechSampling()


SCHEMAS: dict[str, type[RunConfig]] = {
    "masked_diffusion": TextRunConfig,
    "autoregressive": TextRunConfig,
    "mee_gan": ImageRunConfig,
    "edm": ImageRunConfig,
    "f_distill": ImageRunConfig,
    "text_to_image": ImageRunConfig,
    "kl_vae": ImageRunConfig,
    "sgmse": SpeechRunConfig,
}
"""The configuration that belongs to a method."""

KINDS: tuple[type[RunConfig], ...] = tuple(dict.fromkeys(SCHEMAS.values()))


class AnyRunConfig(RunConfig):
    """Of a method that is not known: says which there are."""

    method: Annotated[
        MaskedDiffusionConfig
        | AutoregressiveConfig
        | MeeGanConfig
        | EdmConfig
        | FDistillConfig
        | TextToImageConfig
        | KlVaeConfig
        | SgmseConfig,
        Field(discriminator="name"),
    ]


def schema_for(values: Mapping[str, Any]) -> type[RunConfig]:
    """The model that checks a configuration: that of its method."""
    return SCHEMAS.get(_method_name(values), AnyRunConfig)


def _has_latents(values: Mapping[str, Any]) -> bool:
    method = values.get("method")
    return isinstance(method, Mapping) and isinstance(method.get("latents"), Mapping)


def _method_name(values: Mapping[str, Any]) -> str:
    method = values.get("method")
    return str(method.get("name") if isinstance(method, Mapping) else None)


def load_run_config(name: str, overrides: Sequence[str] = ()) -> RunConfig:
    """Load, check and name a run's configuration.

    Raises:
        ConfigError: with file, line and remedy.
    """
    layers = load_layers(name, overrides)
    stem = name.removesuffix(".yaml").split("/configs/")[-1].removeprefix("configs/").lstrip("./")
    if _method_name(layers.values) == "f_distill":
        from launch.teachers import complete

        complete(layers, _folder(layers.values, stem))
    if _has_latents(layers.values):
        from launch.autoencoders import complete

        complete(layers, _folder(layers.values, stem))
    config = validate(layers, schema_for(layers.values))
    return config if config.name else config.model_copy(update={"name": stem})


def _folder(values: Mapping[str, Any], stem: str) -> str:
    """The run folder of settings that are not checked yet; as `RunConfig.folder`."""
    run = values.get("run")
    given = run.get("dir") if isinstance(run, Mapping) else None
    return str(given or f"runs/{values.get('name') or stem}")
