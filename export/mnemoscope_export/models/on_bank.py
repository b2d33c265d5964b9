"""A network at one timestep on a bank of noises: what the screening graph runs."""

from __future__ import annotations

import copy
from abc import abstractmethod
from collections.abc import Callable
from typing import TypeVar

import torch
from torch import Tensor, nn

__all__ = ["FixedNoises", "OnBank", "for_each_noise", "for_each_prompt", "shared_copy"]

Network = TypeVar("Network", bound=nn.Module)
Predict = Callable[[Tensor, Tensor, tuple[Tensor, ...]], Tensor]


class OnBank(nn.Module):
    """Predictions for every prompt on every chosen noise."""

    @property
    @abstractmethod
    def network(self) -> nn.Module:
        """What predicts, whose layers can be tapped."""

    @abstractmethod
    def forward(self, embeds: tuple[Tensor, ...], noise_index: Tensor) -> Tensor:
        """Predict for every prompt and noise.

        Args:
            embeds: What the network is told of prompts. # [B, ...] each
            noise_index: Which noises of the bank. # [m]

        Returns:
            The network's output, prompt by prompt. # [B * m, C, H, W]
        """


class FixedNoises(OnBank):
    """Any network as it is."""

    def __init__(
        self, name: str, network: nn.Module, predict: Predict, noises: Tensor, timestep: int
    ) -> None:
        """Keep the noises.

        Args:
            name: The network's, in its family.
            network: What predicts.
            predict: Runs it.
            noises: # [n, C, H, W]
            timestep: t
        """
        super().__init__()
        self.add_module(name, network)
        self._name, self._predict = name, predict
        self.noises: Tensor
        self.register_buffer("noises", noises)
        # a number would become a tensor on the host, which keeps what is compiled from CUDA graphs
        self.timestep: Tensor
        self.register_buffer("timestep", torch.tensor(timestep, device=noises.device))

    @property
    def network(self) -> nn.Module:
        """The network that it was given."""
        return self.get_submodule(self._name)

    def forward(self, embeds: tuple[Tensor, ...], noise_index: Tensor) -> Tensor:
        """See `OnBank`."""
        count = noise_index.shape[0]
        latents = for_each_prompt(self.noises[noise_index], embeds[0].shape[0])
        repeated = tuple(for_each_noise(each, count) for each in embeds)
        return self._predict(latents, self.timestep, repeated)


def for_each_prompt(chosen: Tensor, prompts: int) -> Tensor:
    """[m, ...] -> [B * m, ...], prompt by prompt."""
    size = chosen.shape
    return chosen[None].expand(prompts, *size).reshape(prompts * size[0], *size[1:])


def for_each_noise(embeds: Tensor, noises: int) -> Tensor:
    """[B, ...] -> [B * m, ...], prompt by prompt."""
    size = embeds.shape
    return embeds[:, None].expand(size[0], noises, *size[1:]).reshape(size[0] * noises, *size[1:])


def shared_copy(network: Network) -> Network:
    """A new module tree over the same parameters."""
    memo = {id(p): p for p in [*network.parameters(), *network.buffers()]}
    return copy.deepcopy(network, memo)
