"""A guard notices whatever decides which tokens a prompt has, and when it is put back."""

from __future__ import annotations

import copy
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from guard_support import draw, guarded_at, pipe
from tokenizers import AddedToken, Tokenizer, normalizers, pre_tokenizers, processors
from transformers import CTRLTokenizer

from mnemoscope import CalibrationError, InputError
from mnemoscope.guard import Guard
from mnemoscope.guard.tokenizing import Tokenizing, read_traits, vocabulary

pytestmark = pytest.mark.slow

__all__ = ["pipe"]
OTHER = "a house by the sea"
LONG = " ".join(["a cat, a house, the sea"] * 20)


def components(name: str, value: Any) -> Callable[[Any], Callable[[], None]]:
    """Changes one of the backend's; returns what puts it back."""

    def change(tokenizer: Any) -> Callable[[], None]:
        backend = tokenizer.backend_tokenizer
        before = getattr(backend, name)
        setattr(backend, name, value)
        return lambda: setattr(backend, name, before)

    return change


def attributes(name: str, value: Any) -> Callable[[Any], Callable[[], None]]:
    def change(tokenizer: Any) -> Callable[[], None]:
        before = getattr(tokenizer, name)
        setattr(tokenizer, name, value)
        return lambda: setattr(tokenizer, name, before)

    return change


def other_words(tokenizer: Any) -> Callable[[], None]:
    """The same model but for two words that have changed places."""
    backend = tokenizer.backend_tokenizer
    before, told = backend.model, json.loads(backend.to_str())
    words = told["model"]["vocab"]
    words["cat</w>"], words["a</w>"] = words["a</w>"], words["cat</w>"]
    backend.model = Tokenizer.from_str(json.dumps(told)).model
    return lambda: setattr(backend, "model", before)


CHANGES = [
    (components("normalizer", normalizers.Replace("cat", OTHER)), "a cat"),
    (components("pre_tokenizer", pre_tokenizers.WhitespaceSplit()), "a cat, a house"),
    (components("post_processor", processors.ByteLevel()), "a cat"),
    (other_words, "a cat"),
    (attributes("truncation_side", "left"), LONG),
    (attributes("padding_side", "left"), "a cat"),
    (attributes("pad_token", "a</w>"), "a cat"),
    (attributes("split_special_tokens", True), "a cat <|endoftext|> a house"),
]


@pytest.mark.filterwarnings("ignore::mnemoscope.guard.MemorizationWarning")
@pytest.mark.parametrize(("change", "prompt"), CHANGES)
def test_an_edit_in_place_is_refused_until_it_is_undone(
    pipe: Any, change: Callable[[Any], Callable[[], None]], prompt: str
) -> None:
    bare = draw(pipe, [prompt])
    calibration = guarded_at(pipe, 1e6)
    with Guard(pipe, calibration=calibration):
        assert torch.equal(draw(pipe, [prompt]), bare)
        undo = change(pipe.tokenizer)
        try:
            with pytest.raises(CalibrationError, match=r"not the one any more.*tokenizer"):
                draw(pipe, [prompt])
        finally:
            undo()
        draw(pipe, ["dog"])  # of which the edit may have changed no token
        assert torch.equal(draw(pipe, [prompt]), bare)
    undo = change(pipe.tokenizer)
    try:
        assert not torch.equal(draw(pipe, [prompt]), bare)  # the witness
    finally:
        undo()


def test_while_it_draws(pipe: Any) -> None:
    backend = pipe.tokenizer.backend_tokenizer
    before = backend.normalizer

    def change(*told: Any) -> Any:
        backend.normalizer = normalizers.Replace("cat", OTHER)
        return told[-1]

    try:
        with (
            Guard(pipe, calibration=guarded_at(pipe, 1e6)),
            pytest.raises(CalibrationError, match="changed while it drew: tokenizer changed"),
        ):
            draw(pipe, ["a cat"], callback_on_step_end=change)
    finally:
        backend.normalizer = before


class Upper:
    def normalize(self, text: Any) -> None:
        text.uppercase()


def test_what_no_guard_can_tell(pipe: Any) -> None:
    tokenizer = pipe.tokenizer
    calibration = guarded_at(pipe, 1e6)
    for change, message in (
        (components("normalizer", normalizers.Normalizer.custom(Upper())), "cannot be read"),
        (attributes("tokenize", lambda text: [text]), "its method tokenize was replaced"),
        (attributes("__class__", type("Own", (type(tokenizer),), {})), "none of transformers"),
    ):
        with Guard(pipe, calibration=calibration):
            undo = change(tokenizer)
            try:
                with pytest.raises(InputError, match=f"tokenizer: .*{message}"):
                    draw(pipe, ["a cat"])
            finally:
                undo()
                vars(tokenizer).pop("tokenize", None)
            draw(pipe, ["a cat"])


def test_merges_left_out_at_random(pipe: Any) -> None:
    model = pipe.tokenizer.backend_tokenizer.model
    model.dropout = 0.5
    try:
        with pytest.raises(InputError, match="drops merges at random"):
            guarded_at(pipe, 1e6)
    finally:
        model.dropout = None


def test_added_tokens_and_how_they_stand(pipe: Any) -> None:
    tokenizer = copy.deepcopy(pipe.tokenizer)
    was = Tokenizing(tokenizer)
    assert was.holds(("a cat",))
    model = tokenizer.backend_tokenizer.model
    model.end_of_word_suffix = "!"  # does not show in words that it has read before
    assert not was.holds(("a cat",))
    model.end_of_word_suffix = "</w>"
    assert was.holds(("a cat",))
    tokenizer.add_tokens([AddedToken("<cat-toy>", lstrip=True)])
    assert not was.holds(("a cat",))
    other = copy.deepcopy(pipe.tokenizer)
    other.add_tokens([AddedToken("<cat-toy>")])
    assert vocabulary(other) != vocabulary(tokenizer)


@pytest.fixture
def slow(tmp_path: Path) -> Any:
    words = {"<unk>": 0, "c@@": 1, "at</w>": 2, "a</w>": 3, "cat": 4, "a": 5, "c": 6, "at": 7}
    (tmp_path / "vocab.json").write_text(json.dumps(words))
    (tmp_path / "merges.txt").write_text("#version\na t</w>\nc at</w>\n")
    return CTRLTokenizer(str(tmp_path / "vocab.json"), str(tmp_path / "merges.txt"))


def test_a_slow_tokenizer(slow: Any) -> None:
    was, before = Tokenizing(slow), vocabulary(slow)
    assert was.holds(("", "a cat"))
    slow("a cat at")  # fills its cache
    assert was.holds(("", "a cat"))
    assert vocabulary(slow) == before
    for holder, key, value in ((slow.encoder, "cat", 7), (slow.bpe_ranks, ("a", "t</w>"), 9)):
        original = holder[key]
        holder[key] = value
        assert not was.holds(("", "a cat"))
        assert vocabulary(slow) != before
        holder[key] = original
        assert was.holds(("", "a cat"))
        assert vocabulary(slow) == before
    assert read_traits(slow) == {}
