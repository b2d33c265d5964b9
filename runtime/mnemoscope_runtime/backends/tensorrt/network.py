"""From a graph of a bundle to a TensorRT network, and the shapes it is built for."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ...bundle import Bundle
from ...errors import BackendError
from ..copying import private_copy
from ..cover import NOISES, Profile
from ..table import missing
from .library import Library

__all__ = ["define_network", "optimization_profile", "profiles_for"]


def define_network(
    library: Library, builder: Any, bundle: Bundle, graph: str
) -> tuple[Any, object]:
    """Parse a graph into a strongly typed network: the precision is the graph's.

    The graph and its weights come from the bytes that the bundle verified.

    Returns:
        The network, and what must live as long as it does.

    Raises:
        BackendUnavailable: onnx is not installed.
        BackendError: the graph cannot be parsed.
    """
    trt = library.trt
    typed = getattr(trt.NetworkDefinitionCreationFlag, "STRONGLY_TYPED", None)
    flags = 0 if typed is None else 1 << int(typed)
    network = library.got(builder.create_network(flags), "make a network")
    parser = trt.OnnxParser(network, library.logger)
    if hasattr(parser, "load_model_proto"):  # TensorRT 10.13, any TensorRT for RTX
        parsed, weights = _parse_from_memory(parser, bundle, graph, library.backend)
    else:
        parsed, weights = _parse_from_copy(parser, bundle, graph), {}
    if not parsed:
        reasons = "; ".join(str(parser.get_error(i)) for i in range(parser.num_errors))
        raise BackendError(
            f"{library.name} cannot parse {graph}: {reasons or library.logger.reason}. "
            "Export the model again with this version of mnemoscope, or use another backend."
        )
    return network, (parser, weights)


def optimization_profile(library: Library, builder: Any, network: Any, profile: Profile) -> Any:
    """TensorRT's form of a profile; it optimises for the smallest call, a prompt on a noise.

    Raises:
        BackendError: the library refuses the sizes, or an input takes any number of tokens.
    """
    what = f"make the profile {profile}"
    made = library.got(builder.create_optimization_profile(), what)
    for index in range(network.num_inputs):
        given = network.get_input(index)
        shape = tuple(given.shape)
        if -1 in shape[1:]:
            raise BackendError(
                f"{given.name} takes any number of tokens, and a plan is built for one. Export "
                "the model without --any-length for GPUs."
            )
        if -1 in shape:
            sizes = profile.noises if given.name == NOISES else profile.prompts
            low, high = (tuple(size if axis == -1 else axis for axis in shape) for size in sizes)
            try:
                made.set_shape(given.name, low, low, high)
            except ValueError:
                raise library.failed(what) from None
    return made


def _parse_from_memory(
    parser: Any, bundle: Bundle, graph: str, backend: str
) -> tuple[bool, object]:
    try:
        import onnx
    except ImportError as error:
        raise missing(backend, error) from None
    content = bundle.read(bundle.manifest.graphs[graph])
    model = onnx.load_model_from_string(content)
    weights = {}
    for tensor in model.graph.initializer:
        place = {entry.key: entry.value for entry in tensor.external_data}
        if place:
            weights[tensor.name] = np.frombuffer(
                bundle.read(place["location"]),  # a view: there are gigabytes of them
                np.uint8,
                count=int(place["length"]),
                offset=int(place.get("offset", 0)),
            )
    parsed = parser.load_model_proto(content) and all(
        parser.load_initializer(name, data.ctypes.data, len(data)) for name, data in weights.items()
    )
    return bool(parsed and parser.parse_model_proto()), weights


def _parse_from_copy(parser: Any, bundle: Bundle, graph: str) -> bool:
    """As older parsers need it, which find weights by path only."""
    with private_copy("TensorRT", bundle, bundle.manifest.graphs[graph]) as path:
        return bool(parser.parse_from_file(str(path)))


def profiles_for(graph: str, profiles: Sequence[Profile]) -> tuple[Profile, ...]:
    """What a graph takes of these: the first step alone goes by noises; smallest first."""
    if graph not in ("screen", "taps"):
        profiles = [Profile(profile.prompts) for profile in profiles]
    return tuple(sorted(set(profiles), key=lambda profile: (profile.most, profile.prompts)))
