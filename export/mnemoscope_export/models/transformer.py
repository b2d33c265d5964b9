"""What families of transformers have in common: text encoders, and what they do not take."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Self

from mnemoscope_runtime.errors import ExportError, InputError
from mnemoscope_runtime.triggers import triggers

from .base import Configs, Model
from .options import LoadOptions

__all__ = ["TransformerModel", "refuse_triggers"]

_SAVE = "{}, save the pipeline with `pipeline.save_pretrained(DIR)`, and give DIR"
_TAPPED = 3  # of the first blocks: see docs/taps.md


class TransformerModel(Model):
    """A pipeline whose transformer predicts.

    Attributes:
        called: What errors call the family.
    """

    called: ClassVar[str]
    encodes_apart: ClassVar[bool] = True
    takes_any_length: ClassVar[bool] = False
    predictor: ClassVar[str] = "transformer"

    @classmethod
    def check(cls, configs: Configs, model: str, origin: str, options: LoadOptions) -> None:
        """See `Model.check`."""
        given = {
            "a single file": (options.config, _SAVE.format("load it with diffusers")),
            "LoRA adapters": (options.loras, _SAVE.format(cls.putting_adapters_in())),
            "textual inversions": (
                options.embeddings,
                "leave textual inversions out, and draw without",
            ),
            "clip_skip": (options.clip_skip, "leave clip_skip out, and draw without"),
        }
        if found := {
            name: todo for name, (value, todo) in given.items() if value not in (None, ())
        }:
            raise InputError(
                f"{model} is of the family {cls.called}, of which {' and '.join(found)} cannot be "
                f"read here. What to do: {'; '.join(found.values())}."
            )
        cls.check_configs(configs, origin)
        if options.latent_size is not None:
            cls.check_sides(configs["transformer"], model, options.latent_size)

    @classmethod
    def putting_adapters_in(cls) -> str:
        """What puts LoRA adapters into the weights of a pipeline."""
        if not hasattr(cls.pipeline_class, "load_lora_weights"):
            return "put adapters into the weights of its transformer (peft's `merge_and_unload`)"
        return (
            "put adapters into the weights (`pipeline.load_lora_weights(FILE)`, `fuse_lora()`, "
            "`unload_lora_weights()`)"
        )

    @classmethod
    @abstractmethod
    def check_configs(cls, configs: Configs, origin: str) -> None:
        """Make sure that a pipeline's configs are covered.

        Raises:
            ExportError: all that is in the way.
        """

    @classmethod
    @abstractmethod
    def check_sides(cls, config: Mapping[str, Any], model: str, size: tuple[int, int]) -> None:
        """Make sure that a transformer takes latents of a size.

        Raises:
            InputError: it does not.
        """

    @property
    def tokenizers(self) -> dict[str, tuple[Any, int]]:
        """Each tokenizer by its field, and how many embeddings its text encoder has."""
        found = {}
        for n in ("", "_2", "_3"):
            encoder = getattr(self, f"text_encoder{n}", None)
            if encoder is not None:
                rows = encoder.get_input_embeddings().weight.shape[0]
                found[f"tokenizer{n}"] = getattr(self, f"tokenizer{n}"), rows
        return found

    def resized(self, size: tuple[int, int]) -> Self:
        """The model (weights shared) on latents of another height and width.

        Raises:
            InputError: the transformer does not take them.
        """
        self.check_sides(self.network.config, self.id, size)
        return super().resized(size)

    @classmethod
    def assemble(cls, parts: Mapping[str, Any]) -> Any:
        """See `Model.assemble`; the scheduler is a copy."""
        scheduler = type(parts["scheduler"]).from_config(parts["scheduler"].config)
        return cls.pipeline_class(**{"vae": None, **parts, "scheduler": scheduler})

    @property
    def latent_shape(self) -> tuple[int, int, int]:
        """(C, H, W) of the latents: those the transformer was trained on, unless resized."""
        config = self.network.config
        height, width = self.latent_size or (config.sample_size, config.sample_size)
        return config.in_channels, height, width

    def tappable(self) -> list[str]:
        """The blocks; of joint ones what is compared is their image stream."""
        return [f"transformer_blocks.{i}" for i in range(self.network.config.num_layers)]

    def auto_taps(self) -> list[str]:
        """The first three blocks."""
        return self.tappable()[:_TAPPED]

    @staticmethod
    def written_out(prompts: Sequence[str], tokenizer: Any) -> list[str]:  # noqa: ARG004
        """Prompts as they are: there are no triggers."""
        return list(prompts)


def refuse_triggers(folder: Path, tokenizers: Mapping[str, Any], called: str) -> None:
    """Make sure that no tokenizer has triggers of several vectors.

    Raises:
        ExportError: one has.
    """
    for name, each in tokenizers.items():
        if several := triggers(set(each.get_added_vocab())):
            raise ExportError(
                f"{folder / name} has triggers of several vectors, {next(iter(several))!r} for "
                f"one, which are not written out for {called}. Use the tokenizer of the model."
            )
