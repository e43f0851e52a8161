"""Enhanced speech to listen to: sounds of the run folder beside their spectrograms, put into the page as data."""

from __future__ import annotations

import base64
import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from evaluation.figure_names import KNOWN_FIGURES
from evaluation.reporting.folder import Run, read_beside
from evaluation.reporting.markup import Html, element, join
from evaluation.reporting.pictures import Picture, read_picture, step_of, title_of
from evaluation.reporting.values import items, mapping, number
from evaluation.speech_scores import METRICS
from generative.data.speech_wave import Sound, UnusableError, wave_header

KIND = "speech"
"""Of items that are sounds; one of `pictures.KINDS`."""

NOISY, ENHANCED = "noisy", "enhanced"
"""Sounds that figures compare."""

MAX_PAGE = 6_000_000
"""Bytes of files that are put into the page; as text they become a third longer."""
MAX_SHOWN = 4
MAX_SOUNDS = 6
MAX_FIGURES = 6
MAX_NAME = 40


@dataclass
class Room:
    """Bytes that the page, or a part of it, may still take.

    Args:
        left: so many.
        whole: what this is a part of, which must have room too.
    """

    left: int
    whole: Room | None = None

    def takes(self, content: bytes) -> bool:
        """Whether a file still fits; if so, its bytes are taken."""
        fits = len(content) <= self.left and (self.whole is None or self.whole.takes(content))
        self.left -= len(content) if fits else 0
        return fits


@dataclass(frozen=True)
class Clip:
    """A sound with what is said of it.

    Args:
        name: noisy, enhanced, clean, or whatever the samples file calls it.
        about: what is heard, for those who do not see what stands around it.
        file: its name in the folder of the samples.
        content: of the wav file; None where the page has no room for it.
        sound: its header.
        figures: (label, value as written).
    """

    name: str
    about: str
    file: str
    content: bytes | None
    sound: Sound
    figures: list[tuple[str, str]]

    @property
    def label(self) -> str:
        """What a person reads."""
        words = self.name[:MAX_NAME].replace("_", " ")
        return words[:1].upper() + words[1:]

    def player(self) -> Html:
        """<audio>, or where the file lies that the page has no room for."""
        if self.content is None:
            return element("p", f"Too large for this page: samples/{self.file}", class_="quiet")
        return element(
            "audio",
            controls=True,
            preload="metadata",
            src=f"data:audio/wav;base64,{base64.b64encode(self.content).decode()}",
            aria_label=f"{self.label}: {self.about}",
        )


@dataclass(frozen=True)
class Utterance:
    """The sounds of one item, and the picture of their spectrograms where there is one, with their order in it."""

    title: str
    order: str
    clips: list[Clip]
    picture: Picture | None

    def shown(self) -> Html:
        """The picture with a player beside each of its spectrograms."""
        sounds = element("ol", [_row(clip.label, clip) for clip in self.clips], class_="sounds")
        picture = self.picture.tag(self.picture.width) if self.picture else None
        axes = element("figcaption", self._axes()) if picture else None
        place = element("div", picture, sounds, class_="heard") if picture else sounds
        return element("figure", element("h3", self.title), axes, place, class_="utterance")

    def _axes(self) -> str:
        sound = self.clips[0].sound
        return (
            f"From top to bottom: {self.order}. Each: 0 to {sound.rate / 2000:g} kHz upwards, "
            f"{sound.frames / sound.rate:.1f} s to the right."
        )


def _row(label: str, clip: Clip) -> Html:
    """A player below its label and its figures."""
    told = [element("span", f"{name} ", element("b", value)) for name, value in clip.figures]
    return element("li", element("p", element("b", label, class_="name"), told), clip.player())


def listen(run: Run) -> tuple[Mapping[str, Any], Html]:
    """(content of the samples file, markup) of the newest sounds, and one of each file before; nothing without any."""
    room = Room(MAX_PAGE)
    for index in reversed(range(len(run.samples))):
        content = run.samples[index]
        found = list(_utterances(run, content, room))
        if found:
            latest = element("div", [one.shown() for one in found], class_="utterances")
            return content, join([latest, _earlier(run, run.samples[:index], room)])
    return {}, Html("")


def newest(run: Run, room: Room) -> Html:
    """The first utterance of the newest sounds; nothing without any."""
    found = (one for content in reversed(run.samples) for one in _utterances(run, content, room))
    first = next(found, None)
    return first.shown() if first else Html("")


def _speech(content: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    found = [mapping(item) for item in items(content.get("items"))]
    return [item for item in found if item.get("kind") == KIND][:MAX_SHOWN]


def _utterances(run: Run, content: Mapping[str, Any], room: Room) -> Iterator[Utterance]:
    """Those items of a samples file of which at least one sound can be played."""
    step = step_of(content)
    for item in _speech(content):
        names = list(mapping(item.get("sounds")))[:MAX_SOUNDS]
        first = sorted(names, key=lambda name: name != ENHANCED)  # what the run is about, if there is room for one only
        read = {name: _clip(run, item, name, step, room) for name in first}
        clips = [clip for name in names if (clip := read[name])]
        if any(clip.content is not None for clip in clips):
            title = title_of(item, "Speech")
            order = ", ".join(name[:MAX_NAME] for name in names)
            about = f"Spectrograms of {title}: {order}, from top to bottom,"
            picture = read_picture(run, item.get("file"), about, step)
            yield Utterance(title, order, clips, picture if picture and room.takes(picture.content) else None)


def _clip(run: Run, item: Mapping[str, Any], name: str, step: str, room: Room) -> Clip | None:
    """A sound of an item; None where it is not there, not a whole wav file, or larger than any page may be."""
    file = mapping(item.get("sounds")).get(name)
    content = read_beside(run.path / "samples", file, MAX_PAGE)
    sound = whole_wave(content) if content is not None else None
    if content is None or sound is None:
        return None
    about = f"{title_of(item, 'speech')}{f', after step {step}' if step else ''}"
    return Clip(name, about, str(file), content if room.takes(content) else None, sound, _figures(item, name))


def whole_wave(content: bytes) -> Sound | None:
    """Header of a wav file; None for anything else, and for one with less or more in it than its header says."""
    if int.from_bytes(content[4:8], "little") != len(content) - 8:
        return None
    try:
        sound = wave_header(content)
    except UnusableError:
        return None
    return sound if sound.frames else None


def _figures(item: Mapping[str, Any], name: str) -> list[tuple[str, str]]:
    """Figures of a sound; of the enhanced one with those of the noisy one, from which it comes."""
    found = []
    for key, value in list(mapping(item.get("figures")).items())[:MAX_FIGURES]:
        sides = [number(mapping(value).get(side)) for side in (NOISY, name)]
        if math.isfinite(sides[1]):
            unit = METRICS[key].unit if key in METRICS else ""
            kept = [side for side in sides[name != ENHANCED :] if math.isfinite(side)]
            numbers = " → ".join(f"{side:.{1 if unit else 2}f}" for side in kept)
            known = KNOWN_FIGURES.get(key)
            label = known.label if known else key[:MAX_NAME].replace("_", " ")
            found.append((label, f"{numbers} {unit}".rstrip()))
    return found


def _earlier(run: Run, before: list[Mapping[str, Any]], room: Room) -> Html | None:
    """The enhanced sound of the first item of each earlier file, from the first on."""
    first = [(step_of(content), item) for content in before for item in _speech(content)[:1]]
    found = [(step, clip) for step, item in first if (clip := _clip(run, item, ENHANCED, step, room))]
    shown = [_row(f"step {step}" if step else "", clip) for step, clip in found if clip.content is not None]
    row = element("ol", shown, class_="sounds earlier")
    return element("div", element("h3", "Earlier in the training"), row) if shown else None
