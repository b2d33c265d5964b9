"""Which words of a prompt its score comes from."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

from mnemoscope_runtime import BackendUnavailable
from mnemoscope_runtime.wording import pip_install

from .. import embedded
from ..detector import Detector
from ..screening.detection import Detection
from ..shipped import model_at
from .attribution import Attribution, Method, Occlusion, load_attribution
from .edits import Edit
from .word_kinds import Kind, Lexicon, classify, read_lexicon
from .words import Group, Reading, Span, read

__all__ = [
    "DEFAULT",
    "Explainer",
    "Explanation",
    "Other",
    "OtherKind",
    "Token",
    "Word",
    "explain",
    "load_model",
]

DEFAULT: Method = "occlusion"
"""How words are weighed unless told otherwise."""

OtherKind = Literal["punctuation", "space", "start", "end", "padding"]
"""What a model reads besides words; the last three are added to every prompt."""


@dataclass(frozen=True)
class Token:
    """A token of a prompt.

    Attributes:
        token: As the vocabulary spells it.
        span: Its characters in the prompt; None for what the tokenizer adds.
        score: What the attribution makes of it; None where it cannot tell.
    """

    token: str
    span: Span | None
    score: float | None


@dataclass(frozen=True)
class Other(Token):
    """What a model reads besides words, taken together where it stands together.

    Attributes:
        token: As the vocabulary spells it; "padding" for all of that. Of what stands before and
            behind every prompt the first token.
        span: Its characters in the prompt; None for what the tokenizer adds.
        score: What the attribution makes of it; None where it cannot tell: by occlusion of spaces,
            and of what is added.
        kind: What it is.
    """

    kind: OtherKind


@dataclass(frozen=True)
class Word:
    """A word of a prompt.

    Attributes:
        word: The word.
        span: Its characters in the prompt.
        score: What the attribution makes of it: by occlusion how far the prompt's score drops
            without it (negative if it rises), by gradient the norm over its tokens (>= 0). Compare
            it within the prompt.
        kind: What kind of word it is, as far as `kinds.classify` can tell.
        tokens: What the model reads it as.
    """

    word: str
    span: Span
    score: float
    kind: Kind
    tokens: tuple[Token, ...]


@dataclass(frozen=True)
class Explanation:
    """Where the score of a prompt comes from.

    Attributes:
        prompt: The prompt.
        score: The detector's; see `Detection`.
        words: Those that the model reads, in the order of the prompt.
        others: What is read besides: punctuation, spaces that are tokens, start, end and padding.
        edits: Changes that bring the prompt under the threshold, the best first; of `find_edits`.
        unread: The end of a prompt longer than what the model reads; empty if it reads all.
        method: How words were weighed.
        p_value: See `Detection`.
        threshold: See `Detection`.
        memorized: See `Detection`.
        detector: Name of the statistic.
        steps: Denoising steps that were measured.
        noises: Noises that were measured.
        backend: The backend that ran.
        bundle: Id of the bundle.
    """

    prompt: str
    score: float
    words: tuple[Word, ...]
    others: tuple[Other, ...]
    edits: tuple[Edit, ...]
    unread: str
    method: Method
    p_value: float | None
    threshold: float | None
    memorized: bool | None
    detector: str
    steps: int
    noises: int
    backend: str
    bundle: str

    @property
    def ranked(self) -> list[Word]:
        """The words, the one that matters most first."""
        return sorted(self.words, key=lambda word: -word.score)

    @property
    def signs(self) -> tuple[Other, ...]:
        """Punctuation that belongs to no word, in the order of the prompt."""
        return tuple(each for each in self.others if each.kind == "punctuation")

    @cached_property
    def _positive(self) -> float:
        """The sum of positive scores of words and signs."""
        scores = [word.score for word in self.words] + [sign.score or 0.0 for sign in self.signs]
        return sum(max(each, 0.0) for each in scores)

    def share(self, score: float) -> float:
        """What a score is of the sum of positive scores of words and signs: in 0..1."""
        return max(score, 0.0) / self._positive if self._positive else 0.0

    def shares(self) -> list[float]:
        """Of the sum of positive scores, what each word has: in 0..1, in the prompt's order."""
        return [self.share(word.score) for word in self.words]

    def as_json(self) -> dict[str, Any]:
        """As plain data, with the keys that `mnemoscope explain --format json` writes."""

        def token(each: Token) -> dict[str, Any]:
            return {"token": each.token, "span": each.span, "score": each.score}

        words = [
            {
                "word": word.word,
                "span": word.span,
                "score": word.score,
                "kind": word.kind,
                "tokens": [token(each) for each in word.tokens],
            }
            for word in self.words
        ]
        return {
            "prompt": self.prompt,
            "score": self.score,
            "words": words,
            "edits": [edit.as_json() for edit in self.edits],
            "others": [token(each) | {"kind": each.kind} for each in self.others],
            "unread": self.unread,
            "method": self.method,
            "p_value": self.p_value,
            "threshold": self.threshold,
            "memorized": self.memorized,
            "detector": self.detector,
            "steps": self.steps,
            "noises": self.noises,
            "backend": self.backend,
            "bundle": self.bundle,
        }


class Explainer:
    """Explains prompts with a detector.

    Args:
        detector: What scores them.
        attribution: What weighs their words.
        lexicon: Kinds of words that are known; see `kinds`.
    """

    def __init__(
        self,
        detector: Detector,
        attribution: Attribution | None = None,
        *,
        lexicon: Lexicon | None = None,
    ) -> None:
        self.detector = detector
        self.attribution = attribution or Occlusion()
        self._lexicon = lexicon or {}

    def explain(self, prompt: str, *, steps: int = 1, noises: int | None = None) -> Explanation:
        """Score a prompt and weigh its words.

        Args:
            prompt: The prompt.
            steps: Denoising steps to measure.
            noises: How many noises of the bundle's bank; all by default.

        Raises:
            InputError: the prompt holds no words, or an option cannot be used.
            BundleError: the model is not the bundle's.
            NumericsError: a score or a gradient is NaN or infinite.
        """
        reading = read(self.detector.screener.tokenizer, prompt)
        [detection] = self.detector.screen([prompt], steps=steps, noises=noises)
        others = _others(reading)
        alone: list[Group] = [(k,) for group in reading.groups for k in group]
        groups = [*reading.groups, *alone, *others]
        scores = self.attribution.scores(
            self.detector, reading, list(dict.fromkeys(groups)), steps=steps, noises=noises
        )
        return self._explanation(reading, detection, scores, others)

    def _explanation(
        self,
        reading: Reading,
        detection: Detection,
        scores: dict[Group, float],
        others: dict[Group, OtherKind],
    ) -> Explanation:
        def token(k: int) -> Token:
            return Token(reading.pieces[k].text, reading.span((k,)), scores.get((k,)))

        def other(group: Group, kind: OtherKind) -> Other:
            span = reading.span(group)
            spelled = [reading.pieces[k].text for k in (group if span else group[:1])]
            text = "padding" if kind == "padding" else "".join(spelled)
            return Other(text, span, scores.get(group), kind)

        kinds = classify(reading.prompt, reading.words, self._lexicon)
        words = tuple(
            Word(text, span, scores[group], kind, tuple(map(token, group)))
            for text, span, group, kind in zip(
                reading.texts, reading.words, reading.groups, kinds, strict=True
            )
        )
        return Explanation(
            prompt=reading.prompt,
            score=detection.score,
            words=words,
            others=tuple(other(group, kind) for group, kind in others.items()),
            edits=(),
            unread=reading.unread,
            method=self.attribution.method,
            p_value=detection.p_value,
            threshold=detection.threshold,
            memorized=detection.memorized,
            detector=detection.detector,
            steps=detection.steps,
            noises=len(detection.scores),
            backend=detection.backend,
            bundle=detection.bundle,
        )


def _others(reading: Reading) -> dict[Group, OtherKind]:
    """The tokens that belong to no word, and what they are."""
    found: dict[Group, OtherKind] = {
        group: "punctuation" if reading.text(group).strip() else "space" for group in reading.loose
    }
    found |= {reading.start: "start", reading.end: "end", reading.padding: "padding"}
    return {group: kind for group, kind in found.items() if group}


def explain(
    prompt: str,
    *,
    detector: Detector | None = None,
    method: Method = DEFAULT,
    model: str | Path | None = None,
    steps: int = 1,
    noises: int | None = None,
    lexicon: Lexicon | None = None,
) -> Explanation:
    """Explain one prompt; for several, keep an `Explainer`.

    Args:
        prompt: The prompt.
        detector: What scores it; the embedded model's by default.
        method: How its words are weighed.
        model: For gradients: what the bundle was exported from; the embedded model by default.
        steps: Denoising steps to measure.
        noises: How many noises of the bundle's bank; all by default.
        lexicon: Kinds of words that are known; the embedded model's if no detector is given.

    Raises:
        InputError: the prompt holds no words, or an option cannot be used.
        BundleError: the model is not the bundle's.
        BackendUnavailable: a gradient, and PyTorch is not installed.
        ExportError: the model cannot be loaded.
        NumericsError: a score or a gradient is NaN or infinite.
    """
    loaded = None if method == "occlusion" else load_model(model)
    weighs = load_attribution(method, loaded)
    if detector is not None:
        explainer = Explainer(detector, weighs, lexicon=lexicon)
        return explainer.explain(prompt, steps=steps, noises=noises)
    known = read_lexicon(embedded.LEXICON) if lexicon is None else lexicon
    with Detector.load() as own:
        return Explainer(own, weighs, lexicon=known).explain(prompt, steps=steps, noises=noises)


def load_model(model: str | Path | None = None) -> Any:
    """The model that gradients need, the embedded one by default.

    Raises:
        BackendUnavailable: PyTorch is not installed.
        ExportError: it cannot be loaded.
    """
    try:
        from mnemoscope_export import load_model as load
    except ImportError as error:
        raise BackendUnavailable(
            f"Gradients need PyTorch and diffusers: {error}. Install them with "
            f"{pip_install('torch')}, or explain by occlusion."
        ) from None
    return load(model_at(model))
