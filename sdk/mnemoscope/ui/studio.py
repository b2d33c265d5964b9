"""What the page draws with: the mitigator of the bundle's model, loaded when it is asked for."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

from mnemoscope_runtime import BundleError, InputError, MnemoscopeError

from .. import embedded
from ..drawing.alignment import load_alignment
from ..drawing.copy_detection import (
    CopyDescriptor,
    LatentDescriptor,
    copy_similarity,
    load_descriptor,
)
from ..prompts.printable import printable
from ..quiet import quiet_libraries
from .desk import Desk
from .runs import Run

if TYPE_CHECKING:
    from PIL.Image import Image

    from ..mitigate import Kit, Mitigation, Mitigator, Painter, Strategy

__all__ = ["Drawing", "Studio", "Training"]

_SHOWN = 60  # characters of a prompt that is being drawn
_LEARNT_ON = 20  # benign prompts that tell what is usual


@dataclass(frozen=True)
class Training:
    """The training picture that a drawn one is most like.

    Attributes:
        picture: It.
        similarity: Their cosine, in -1..1.
    """

    picture: Image
    similarity: float


@dataclass(frozen=True)
class Drawing:
    """What came of drawing a prompt.

    Attributes:
        mitigation: Its pictures, as drawn and mitigated.
        copied_above: A cosine above it counts as a copy; None if nobody knows one.
        scored_steps: How many first steps of drawing a picture's score is the mean of.
        training: Of the first picture as drawn; None if there are no training pictures to look at.
    """

    mitigation: Mitigation
    copied_above: float | None
    scored_steps: int
    training: Training | None


class Studio:
    """Draws prompts with the bundle's model, one at a time.

    Args:
        desk: What screens them.
    """

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._lock = threading.Lock()
        self._run: Run[Drawing] | None = None
        self._made: tuple[Mitigator, Kit] | None = None

    def draw(self, prompt: str, seeds: int, run: Run[Drawing]) -> Drawing:
        """Draw a prompt as it is and, if it is flagged, so that the training picture stays away.

        Args:
            prompt: The prompt.
            seeds: How many pictures.
            run: Told how far it is.

        Raises:
            MnemoscopeError: the model cannot be loaded, is not the bundle's, or the prompt cannot
                be drawn or judged.
            Stopped: the run was stopped.
        """
        if not prompt.strip():
            raise InputError("There is nothing to draw: type a prompt.")
        run.say("Waiting for another picture" if self._lock.locked() else "Loading the model")
        with self._lock:
            self._run = run
            try:
                return self._drawn(prompt, seeds, run)
            finally:
                self._run = None

    def _drawn(self, prompt: str, seeds: int, run: Run[Drawing]) -> Drawing:
        from ..mitigate import LADDER

        if self._made is None:
            run.say("Loading the model")
            self._made = self._load()
        mitigator, kit = self._made
        shown = f"“{printable(prompt, _SHOWN)}”"

        def ladder() -> Iterator[Strategy]:
            for name in LADDER:
                run.say(f"Learning what is usual, to draw {shown} with the strategy {name}")
                strategy = kit.make(name)
                run.say(f"Drawing {shown} with the strategy {name}")
                yield strategy

        run.say(f"Drawing {shown} as it is")
        known = embedded.memorized_pictures() if self._desk.options.own else []
        detector = self._desk.detector(replace(self._desk.first, detector="magnitude"))
        found = mitigator.auto(prompt, ladder(), detector, range(seeds), references=known)
        run.say("Looking for the training picture")
        descriptor = mitigator.descriptor
        training = None
        if known:
            likeness = copy_similarity(descriptor, [found.originals[0].image], known)[0]
            nearest = int(likeness.argmax())
            training = Training(known[nearest], float(likeness[nearest]))
        return Drawing(found, descriptor.copied_above, mitigator.yardstick.steps, training)

    def _load(self) -> tuple[Mitigator, Kit]:
        from mnemoscope_export import LoadOptions

        from ..mitigate import Kit, Mitigator, Painter, Sampling, Yardstick

        options, bundle = self._desk.options, self._desk.bundle
        if not options.draws:
            raise InputError(
                f"Pictures are drawn by the model that {options.bundle} was exported from, which a "
                "bundle does not hold. Start the page with --model."
            )
        quiet_libraries()
        sides = LoadOptions(latent_size=bundle.manifest.noise_bank.shape[2:])
        painter = replace(Painter.load(options.model, options=sides), watch=self._watch)
        sampling = Sampling.of(bundle.manifest)
        drawing, _ = painter.model.guided(sampling.guidance)
        if why := drawing.unlike(bundle.manifest.model, bundle.path):
            raise BundleError(why)
        yardstick = Yardstick.of(self._desk.calibration, bundle, sampling)
        benign = []
        if options.own:
            rows = embedded.read_prompts("calibration")[:_LEARNT_ON]
            benign = [row.prompt for row in rows]
        alignment = load_alignment() if options.own else None
        descriptor = load_descriptor() if options.own else _other(painter)
        mitigator = Mitigator(painter, descriptor, alignment, yardstick, sampling, benign)
        return mitigator, Kit(painter, yardstick, None, benign, sampling)

    def _watch(self, done: int, steps: int) -> None:
        if self._run is not None:
            self._run.tell(done, steps)


def _other(painter: Painter) -> CopyDescriptor:
    """What compares another model's pictures: SSCD, or at worst its own VAE."""
    try:
        return load_descriptor("sscd")
    except MnemoscopeError:
        return LatentDescriptor(painter.vae, painter.side)
