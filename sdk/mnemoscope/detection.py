"""What a detector says of one prompt."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Detection"]


@dataclass(frozen=True)
class Detection:
    """What was measured for one prompt.

    Attributes:
        prompt: The prompt.
        score: What the detector made of it, mean over noises; larger for memorised prompts. The
            magnitude's is its mean over steps, in eps units, >= 0.
        scores: The same for each noise. Of a cascade those of the stage that decided, and `score`
            is the joint one of `mnemoscope.cascade`.
        rms: Of a magnitude, score / sqrt(C H W): the difference per latent element, comparable
            between models whose latents differ in size; None for other detectors, and for what
            the first stage cleared.
        p_value: Share of benign prompts, counting this one, that score as high: how unusual a
            benign prompt this would be. Not the probability that it is benign. None, like the
            next two, where the detector was asked for scores without verdicts and the setting is
            not calibrated.
        threshold: Above it a prompt counts as memorized, or None.
        memorized: score > threshold, or None, which is no verdict. None also of an empty prompt.
        truncated: Whether the prompt has more tokens than the bundle reads: its end was not
            screened. A pipeline that cuts it off as well does not see it either; one that reads
            long prompts in chunks does.
        detector: Name of the statistic.
        backend: The backend that ran.
        bundle: Id of the bundle.
        steps: Denoising steps that were measured.
        noises: Noises that were.
        seconds: Time per prompt, shared evenly within a batch.
        passes: UNet passes that it took.
        first: The first stage of a cascade, in words; None for a detector by itself.
        cleared: Whether that stage cleared the prompt, so that the second never looked. Detector,
            steps and noises name the second in any case.
        notes: What else to know about it, a sentence each: what was not read, or is read otherwise
            by some pipelines.
        empty: Whether the model reads the empty prompt there: it is compared with itself, which
            says nothing, so that there is no p-value and no verdict.
    """

    prompt: str
    score: float
    scores: tuple[float, ...]
    rms: float | None
    p_value: float | None
    threshold: float | None
    memorized: bool | None
    truncated: bool
    detector: str
    backend: str
    bundle: str
    steps: int
    noises: int
    seconds: float
    passes: int
    first: str | None = None
    cleared: bool = False
    notes: tuple[str, ...] = ()
    empty: bool = False
