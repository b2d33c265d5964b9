"""The calibrations of a bundle, in a file."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from mnemoscope_runtime import BACKENDS
from mnemoscope_runtime.errors import CalibrationError, MnemoscopeError
from mnemoscope_runtime.reading import read_file
from mnemoscope_runtime.signatures import check_signature
from mnemoscope_runtime.staging import unfinished

from ..detectors import DETECTORS
from ..detectors.taps import Taps
from ..outputs import require_regular, write_file
from .calibration import AGAIN, Calibration
from .cascade import First
from .remedies import calibrate_command, calibrates, carries
from .setting import Setting
from .written import decode, encode

__all__ = ["CalibrationFile", "read_whole"]

_HUGE = 64 * 2**20  # two million scores and more
_NAMED = 4  # settings, in a message


@dataclass(frozen=True)
class CalibrationFile:
    """The calibrations of one bundle, one for each setting.

    Attributes:
        calibrations: Of one setting each.
        origin: What messages call it: the file that it was read from.
    """

    calibrations: tuple[Calibration, ...]
    origin: str = field(default="This calibration", compare=False)

    @classmethod
    def read(
        cls, path: str | Path, *, trust: str | Path | None = None, older: bool = False
    ) -> CalibrationFile:
        """Read a calibration file; whatever follows from something else in it is worked out anew.

        Args:
            path: The file.
            trust: File of a public key: only a file that it signed is read.
            older: Whether one that an earlier version wrote will do. It has no digests, so that a
                score that was changed since is believed.

        Raises:
            CalibrationError: it cannot be read, is no calibration, or not what was written.
            SignatureError: it is not signed by the key that is trusted.
            InputError: the key cannot be used.
            BackendUnavailable: cryptography is not installed, and there is a key.
        """
        text = read_whole(Path(path))
        if trust is not None:
            check_signature(Path(path), text, trust)
        return cls.from_json(text, str(path), older=older)

    @classmethod
    def from_json(cls, text: bytes, origin: str, *, older: bool = False) -> CalibrationFile:
        """What the bytes of a file say; see `read`.

        Args:
            text: The bytes.
            origin: Name of the file, for messages.
            older: As of `read`.

        Raises:
            CalibrationError: as `read`.
        """
        found = decode(text, origin, older=older)
        if len({each.setting for each in found}) != len(found):
            raise CalibrationError(f"{origin} has two calibrations of one setting. {AGAIN}")
        return cls(found, origin)

    @classmethod
    def extend(
        cls, path: Path, found: Sequence[Calibration], *, trust: str | Path | None = None
    ) -> None:
        """Add calibrations of one bundle to a file, and to what others have added meanwhile.

        Args:
            path: The file; it need not be there.
            found: What was measured, which takes hours.
            trust: As of `read`.

        Raises:
            MnemoscopeError: as `read`, `check` and `write`; what was measured is then beside it.
        """
        try:
            known = cls.read(path, trust=trust) if path.exists() else cls(())
            known.check(found[0].setting.bundle)
        except MnemoscopeError as error:
            kept = unfinished(path)
            cls(tuple(found)).write(kept)
            raise type(error)(f"{error} What was measured is in {kept}.") from None
        known.with_(found).write(path)

    def write(self, path: str | Path) -> None:
        """Write the file as JSON.

        Raises:
            InputError: the file cannot be written.
        """
        require_regular(Path(path))
        write_file(Path(path), encode(self.calibrations), "Choose another file.")

    def check(self, bundle: str, path: Path | None = None) -> None:
        """Raise CalibrationError unless every calibration was made on that bundle.

        Args:
            bundle: Its id.
            path: Its directory, for the message.
        """
        for other in {each.setting.bundle for each in self.calibrations} - {bundle}:
            here = "" if path is None else f", which {path} is"
            raise CalibrationError(
                f"{self.origin} was made on bundle {other[:12]}, not on {bundle[:12]}{here}: its "
                f"thresholds mean nothing here. Calibrate this bundle (`{calibrate_command(path)}`)"
                ", or load the other one."
            )

    def find(self, setting: Setting) -> Calibration | None:
        """The calibration of a setting, or None."""
        return next((each for each in self.calibrations if each.setting == setting), None)

    def require(self, setting: Setting, bundle: Path | None = None) -> Calibration:
        """The calibration of a setting.

        Args:
            setting: The setting.
            bundle: Directory of its bundle, for the message.

        Raises:
            CalibrationError: it has none; the message says what it has and what makes one.
        """
        found = self.find(setting)
        if found is None:
            raise self.missing(setting, bundle)
        return found

    def backends(self, detector: str, first: First | None = None) -> list[str]:
        """Those on which a detector, or a cascade with it, is calibrated in some way."""
        settings = (each.setting for each in self.calibrations)
        alike = [s.backend for s in settings if (s.detector, s.first) == (detector, first)]
        return list(dict.fromkeys(alike))

    def missing(
        self, setting: Setting, bundle: Path | None = None, why: str = "", after: str = ""
    ) -> CalibrationError:
        """What to raise where a setting is not calibrated: what is, and what makes one.

        Settings of the same bundle, backend and detector are enough to choose from; if there are
        none, others are named: first those of the same detector, of these first those of the same
        engine. A threshold of the same setting on another backend may be carried over, that of the
        same engine rather than another's.

        Args:
            setting: What is not calibrated.
            bundle: Directory of its bundle, for the commands.
            why: What needs it.
            after: Other ways out.
        """
        known = sorted((each.setting for each in self.calibrations), key=setting.distance)
        alike = [
            s for s in known if replace(s, steps=setting.steps, noises=setting.noises) == setting
        ]
        named = alike or known
        has = "; ".join(map(str, named[:_NAMED]))
        has += f"; and {len(named) - _NAMED} more" if len(named) > _NAMED else ""
        parts = [f"There is no calibration of {setting}{f', only of: {has}' if has else ''}.", why]
        parts.append(
            calibrates(bundle, setting.options)
            if _has_names(setting)
            else "`mnemoscope.calibrate(detector, benign)` makes one."
        )
        measured = [s for s in known if (found := self.find(s)) and found.carried is None]
        elsewhere = [s.backend for s in measured if replace(s, backend=setting.backend) == setting]
        elsewhere = [each for each in elsewhere if _carries(each)]
        if elsewhere and setting.first is None and _carries(setting.backend):
            parts.append(
                f"Where {elsewhere[0]} and {setting.backend} agree, "
                f"{carries(bundle, elsewhere[0], setting.backend)}"
            )
        return CalibrationError(" ".join(filter(None, [*parts, after])))

    def with_(self, others: Iterable[Calibration]) -> CalibrationFile:
        """The same, with others added; they replace calibrations of the same setting."""
        known = {each.setting: each for each in self.calibrations}
        known |= {each.setting: each for each in others}
        return replace(self, calibrations=tuple(known.values()))

    def merged(self, other: CalibrationFile) -> CalibrationFile:
        """The settings of both; the benign prompts of both where they share one.

        Raises:
            CalibrationError: as `Calibration.merged`, or they belong to two bundles.
        """
        for each in self.calibrations[:1]:
            other.check(each.setting.bundle)
        pooled = [
            each if (mine := self.find(each.setting)) is None else mine.merged(each)
            for each in other.calibrations
        ]
        return self.with_(pooled)


def read_whole(path: Path) -> bytes:
    """The bytes of a calibration file.

    Raises:
        CalibrationError: it cannot be read.
    """
    try:
        return read_file(path, _HUGE)
    except OSError as error:
        raise CalibrationError(
            f"{path} cannot be read: {error.strerror or error}. Make a calibration "
            "(`mnemoscope calibrate`, `calibrate_guard`), or name another file."
        ) from None


def _carries(backend: str) -> bool:
    """Whether thresholds may be carried over from or to it: float32, and opened by its name."""
    name, _, precision = backend.partition(":")
    return name in BACKENDS and precision in ("", "float32")


def _has_names(setting: Setting) -> bool:
    """Whether the command line can open its backend and its detector, which are not the user's."""
    backend, detector = (each.partition(":")[0] for each in (setting.backend, setting.detector))
    known = backend in BACKENDS or backend.partition("-")[0] == "torch"
    return known and detector in (*DETECTORS, Taps.name, "tap")
