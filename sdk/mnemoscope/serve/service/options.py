"""What a service is told before it starts."""

from __future__ import annotations

import ipaddress
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from mnemoscope_runtime import BackendOptions, InputError
from mnemoscope_runtime.options import check_options

from ...calibration.cascade import First
from ...detectors import Statistic
from ..batches import Limits

__all__ = ["MODEL", "ServiceOptions", "Source", "is_name"]

MODEL = "mnemoscope"
_NAME = re.compile(r"[A-Za-z0-9_][A-Za-z0-9._-]{0,99}")


def is_name(text: str) -> bool:
    """Whether a model may be called so: what needs no escaping in addresses, files and metrics."""
    return _NAME.fullmatch(text) is not None


@dataclass(frozen=True)
class Source:
    """Where a model comes from.

    Attributes:
        name: What clients call it.
        bundle: Its directory; None is the embedded one.
        calibration: A calibration file; None is the bundle's own.

    Raises:
        InputError: the name cannot be used.
    """

    name: str = MODEL
    bundle: Path | None = None
    calibration: Path | None = None

    def __post_init__(self) -> None:
        if not is_name(self.name):
            raise InputError(
                f"{self.name!r:.80} cannot be a model's name. Use up to 100 letters, digits, "
                "points, dashes and underscores, with none of the two in the middle at the start."
            )

    @classmethod
    def parse(cls, text: str) -> Source:
        """A model from NAME=BUNDLE[:CALIBRATION]; a directory may have colons in its name.

        Raises:
            InputError: it is not written so.
        """
        name, _, place = text.partition("=")
        if not place:
            raise InputError(
                f"{text!r:.80} names no bundle. Write --model NAME=BUNDLE or "
                "NAME=BUNDLE:CALIBRATION."
            )
        if Path(place).is_dir():
            return cls(name, Path(place))
        bundle, colon, calibration = place.rpartition(":")
        if not colon:
            return cls(name, Path(place))
        return cls(name, Path(bundle), Path(calibration))


@dataclass(frozen=True)
class ServiceOptions:
    """What is served, to whom, and how much of it.

    Attributes:
        host: The address to listen at; other machines reach what is not loopback.
        port: Of HTTP; 0 takes one that is free.
        grpc_port: Of gRPC; likewise. None: no gRPC.
        models: What is loaded before anybody is answered.
        models_dir: Folder of bundles that may be loaded later, by the names of their directories.
        control: Whether clients may load, reload and unload models.
        limits: How requests are gathered; of each model.
        cache: Detections of each model that are kept, for prompts that come again.
        steps: Denoising steps to measure.
        noises: Noises of the bank; None is all.
        detector: What is measured.
        first: A cheaper stage that goes first.
        backend: What runs the graphs, by name.
        backend_options: What it is told.
        trust: File of a public key: only what it signed is served.
        timeout: Seconds within which a request has to arrive, and again to be answered.
        linger: Seconds after a signal in which it still takes requests on, though it is not ready
            any more: for those that are on their way, and for balancers to notice.
        body: Bytes that a request may have.
        prompts: Prompts that a request may have.
        show_scores: Whether clients see scores, p-values and thresholds; see docs/security.md.
        refuse_truncated: Whether a prompt that was not read to its end has no verdict, unless what
            was read is memorised.
        keys: File of the keys that clients need; None: they need none.

    Raises:
        InputError: one of them cannot be used, or two do not go together.
    """

    host: str = "127.0.0.1"
    port: int = 8000
    grpc_port: int | None = 8001
    models: tuple[Source, ...] = (Source(),)
    models_dir: Path | None = None
    control: bool = False
    limits: Limits = field(default_factory=Limits)
    cache: int = 0
    steps: int = 1
    noises: int | None = None
    detector: str | Statistic = "magnitude"
    first: First | None = None
    backend: str = "onnxruntime"
    backend_options: BackendOptions = field(default_factory=BackendOptions)
    trust: Path | None = None
    timeout: float = 30.0
    linger: float = 0.5
    body: int = 2**20
    prompts: int = 64
    show_scores: bool = False
    refuse_truncated: bool = False
    keys: Path | None = None

    def __post_init__(self) -> None:
        check_options("text", host=self.host, backend=self.backend)
        check_options("a number", timeout=self.timeout, linger=self.linger)
        for name, port in (("port", self.port), ("grpc_port", self.grpc_port)):
            if port is not None:
                _require(name, port, 0, 65535)
        _require("body", self.body, 1, 2**30)
        _require("prompts", self.prompts, 1, self.limits.queue, "as many as the queue holds")
        if not 0 < self.timeout <= 3600:
            raise InputError(f"timeout is {self.timeout!r:.40}. Give seconds, at most 3600.")
        if not 0 <= self.linger <= 3600:
            raise InputError(f"linger is {self.linger!r:.40}. Give 0 to 3600 seconds.")
        if self.port and self.port == self.grpc_port:
            raise InputError(f"HTTP and gRPC cannot both have port {self.port}. Give two.")
        twice = [name for name, n in Counter(each.name for each in self.models).items() if n > 1]
        if twice:
            raise InputError(f"Two models are called {twice[0]!r}. Give each a name of its own.")
        if not self.models and self.models_dir is None:
            raise InputError("There is no model to serve. Name one: --model NAME=BUNDLE.")
        if self.models_dir is not None and not self.models_dir.is_dir():
            raise InputError(f"{self.models_dir} is no folder. Give one that holds bundles.")
        if self.models_dir is not None and not self.control:
            raise InputError(
                "Nothing can be loaded from a folder of bundles unless clients may load models. "
                "Add --control."
            )
        if self.control and self.keys is None and not _is_loopback(self.host):
            raise InputError(
                f"Whoever reaches {self.host} could load and unload models. Name the keys that "
                "clients need with --keys, leave --control out, or listen at --host 127.0.0.1."
            )


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def _require(name: str, value: int, least: int, most: int, why: str = "") -> None:
    check_options("a whole number", **{name: value})
    if not least <= value <= most:
        raise InputError(
            f"{name} is {value}. Give a number from {least} to {most:,}{why and f', {why}'}."
        )
