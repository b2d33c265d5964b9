"""What the page screens and explains with: detectors, opened when they are asked for."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from functools import cached_property
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec

from mnemoscope_runtime import BACKENDS, BackendOptions, Bundle, CalibrationError
from mnemoscope_runtime.closing import Closing
from mnemoscope_runtime.wording import pip_install

from .. import embedded
from ..calibration import Calibration, CalibrationFile
from ..detector import Detector
from ..detectors import DETECTORS
from ..explain import (
    Attribution,
    EditOptions,
    Edits,
    Explainer,
    Explanation,
    Method,
    Occlusion,
    Vocabulary,
    find_edits,
    load_attribution,
    load_model,
    read_lexicon,
)
from ..explain.edits import Alternatives
from ..explain.word_kinds import Lexicon
from ..quiet import quiet_libraries
from ..screening.detection import Detection
from ..screening.opening import read_calibration
from .options import UiOptions

__all__ = ["Desk", "Way"]


@dataclass(frozen=True)
class Way:
    """How a prompt is measured.

    Attributes:
        detector: Its name.
        backend: Likewise.
        steps: Denoising steps.
        noises: Noises of the bundle's bank.
    """

    detector: str
    backend: str
    steps: int
    noises: int


class Desk(Closing):
    """Screens, explains and edits prompts of one bundle in any way there is.

    Args:
        options: What the page is about.

    Raises:
        MnemoscopeError: the bundle, its calibration or the first way of measuring cannot be used.
    """

    def __init__(self, options: UiOptions) -> None:
        self.options = options
        path = options.bundle or embedded.BUNDLE
        self.bundle = Bundle.open(path, trust=options.trust)
        self.calibration = read_calibration(options.calibration, path, options.trust)
        self._opened: dict[tuple[str, str], Detector] = {}
        self._attributions: dict[Method, Attribution] = {"occlusion": Occlusion()}
        self._lock = threading.Lock()
        try:
            first = self._detector(options.detector, options.backend)
            found = first.setting(steps=options.steps, noises=options.noises)
            self.first = Way(options.detector, options.backend, found.steps, found.noises)
        except BaseException:
            self.close()
            raise

    @property
    def noises(self) -> int:
        """How many noises the bundle's bank has."""
        return self.bundle.manifest.noise_bank.shape[0]

    @property
    def steps(self) -> int:
        """How many denoising steps there are to measure."""
        return self.bundle.manifest.scheduler.inference_steps

    @property
    def detectors(self) -> list[str]:
        """Those that this bundle can be measured with, without PyTorch and without drawing."""
        known = [
            *(name for name, each in DETECTORS.items() if not each.needs_torch and not each.draws),
            *(["taps"] if self.bundle.manifest.taps else []),
        ]
        return list(dict.fromkeys([self.options.detector, *known]))

    @property
    def backends(self) -> list[str]:
        """Those whose packages are installed."""
        known = [name for name, spec in BACKENDS.items() if all(map(_is_installed, spec.packages))]
        return list(dict.fromkeys([self.options.backend, *known]))

    @property
    def why_no_gradient(self) -> str | None:
        """Why words cannot be weighed by gradient; None if they can."""
        if not self.options.draws:
            return "a gradient is the model's, which a bundle does not hold (--model)"
        if find_spec("torch") is None or find_spec("diffusers") is None:
            return f"it needs PyTorch: {pip_install('torch')}"
        return None

    def detector(self, way: Way) -> Detector:
        """What measures in this way; opened once.

        Raises:
            MnemoscopeError: as `Detector.load`.
        """
        return self._detector(way.detector, way.backend)

    def missing(self, way: Way) -> CalibrationError | None:
        """Why there are no verdicts in this way; None if there are."""
        return self.detector(way).missing(steps=way.steps, noises=way.noises)

    def calibrated(self, way: Way) -> Calibration | None:
        """What verdicts in this way come from; None if there are none."""
        return self.detector(way).calibrated(steps=way.steps, noises=way.noises)

    def benign(self, way: Way) -> Sequence[float]:
        """Scores of the benign prompts that a verdict compares with; none without a calibration."""
        found = self.calibrated(way)
        return () if found is None else tuple(found.ordered.tolist())

    def screen(self, prompt: str, way: Way) -> Detection:
        """Screen one prompt.

        Raises:
            MnemoscopeError: as `Detector.screen`.
        """
        [found] = self.detector(way).screen([prompt], steps=way.steps, noises=way.noises)
        return found

    def explain(self, prompt: str, way: Way, method: Method) -> Explanation:
        """Say where its score comes from.

        Raises:
            MnemoscopeError: as `Explainer.explain`, or the model of a gradient cannot be loaded.
        """
        explainer = Explainer(self.detector(way), self._attribution(method), lexicon=self._lexicon)
        return explainer.explain(prompt, steps=way.steps, noises=way.noises)

    def edits(self, prompt: str, way: Way, keep: Sequence[str]) -> Edits:
        """Find changes that bring it under the threshold.

        Args:
            prompt: The prompt.
            way: How it is measured.
            keep: Words that stay, as far as the prompt has them.

        Raises:
            MnemoscopeError: as `find_edits`.
        """
        options = EditOptions(keep=tuple(keep), alternatives=self._alternatives, signs=True)
        return find_edits(self.detector(way), prompt, options, steps=way.steps, noises=way.noises)

    def close(self) -> None:
        """Let go of the engines."""
        with self._lock:
            while self._opened:
                self._opened.popitem()[1].close()

    def _detector(self, name: str, backend: str) -> Detector:
        with self._lock:
            key = name, backend
            if key not in self._opened:
                self._opened[key] = Detector.load(
                    self.options.bundle,
                    backend=backend,
                    **asdict(self._told(backend)),
                    calibration=self.calibration or CalibrationFile(()),
                    detector=name,
                    uncalibrated="score",
                    trust=self.options.trust,
                )
            return self._opened[key]

    def _told(self, backend: str) -> BackendOptions:
        """The options that were given, as far as a backend takes them."""
        options = self.options.backend_options
        return options if backend == self.options.backend else options.taken_by(backend)

    def _attribution(self, method: Method) -> Attribution:
        with self._lock:
            if method not in self._attributions:
                quiet_libraries()
                loaded = load_model(self.options.model)
                self._attributions[method] = load_attribution(method, loaded)
            return self._attributions[method]

    @cached_property
    def _lexicon(self) -> Lexicon:
        return read_lexicon(embedded.LEXICON) if self.options.ships else {}

    @cached_property
    def _alternatives(self) -> Alternatives | None:
        """For a model that ships words of its world; of another's nothing is known."""
        if not self.options.ships:
            return None
        captions = embedded.read_prompts("seen", "held_out", "calibration")
        return Vocabulary(row.prompt for row in captions)


def _is_installed(package: str) -> bool:
    try:
        version(package)
    except PackageNotFoundError:
        return False
    return True
