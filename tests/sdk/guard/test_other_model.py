"""In what a pipeline is another one, told of what a calibration says it was made of."""

from __future__ import annotations

from mnemoscope.guard.other_model import differing, read, why, written

HASHES = {"unet weights": "a" * 64, "text_encoder weights": "b" * 64, "tokenizer": "c" * 64}
DTYPES = {"unet": "float32", "text_encoder": "float32"}
MADE_OF = written(HASHES, DTYPES)


def test_what_is_written_is_read() -> None:
    assert read(MADE_OF) == {
        "unet weights": "a" * 8, "text_encoder weights": "b" * 8, "tokenizer": "c" * 8,
        "unet dtype": "float32", "text_encoder dtype": "float32",
    }  # fmt: skip


def test_what_is_missing_is_another_one_too() -> None:
    assert differing({"a": "1", "b": "2"}, {"b": "2", "c": "3"}) == ["a", "c"]


def test_the_nearest_calibration_is_told() -> None:
    tokens = written({**HASHES, "tokenizer": "d" * 64}, DTYPES)
    far = written({**HASHES, "tokenizer": "e" * 64, "unet weights": "f" * 64}, DTYPES)
    for order in ((far, tokens), (tokens, far)):
        calibrated = [{"pipeline": "P", "made of": each} for each in order]
        assert why("P", MADE_OF, calibrated) == "tokenizer is another one"
