from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from audit_support import TOKENIZER, text
from qwen_tokenizers import qwen_tokenizer

from mnemoscope import InputError
from mnemoscope.audit.source import Source
from mnemoscope_runtime.qwen_tokenizer import QwenTokenizer
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT, Tokenizer


def test_each_prompt_is_chosen_where_it_stands_first(tmp_path: Path) -> None:
    source = Source.scan(text(tmp_path / "p.jsonl", ["b", "a", "b", "c", "a", "b"]), TOKENIZER)
    assert source.chosen.tolist() == [True, True, False, True, False, False]
    assert source.place.tolist() == [0, 1, 0, 2, 1, 0]
    assert list(source.prompts()) == ["b", "a", "c"]
    assert source.measured == 3
    assert source.errors == {}


def test_many_prompts_are_told_apart(tmp_path: Path) -> None:
    prompts = [str(n * n % 1009) for n in range(3000)]
    source = Source.scan(text(tmp_path / "p.jsonl", prompts), TOKENIZER)
    distinct = list(dict.fromkeys(prompts))
    assert list(source.prompts()) == distinct
    assert [distinct[place] for place in source.place] == prompts


def test_what_cannot_be_screened_has_a_reason_and_no_place(tmp_path: Path) -> None:
    longest = "x" * LONGEST_PROMPT
    prompts = ["a", "", " \t ", longest + "x", longest, ""]
    source = Source.scan(text(tmp_path / "p.jsonl", prompts), TOKENIZER)
    assert [source.reasons[code].partition(":")[0] for code in source.reason] == [
        *("", "empty", "empty", "longer than 100,000 characters", "", "empty")
    ]
    assert source.place.tolist() == [0, -1, -1, -1, 1, -1]
    assert list(source.prompts()) == ["a", longest]
    assert list(source.errors.values()) == [3, 1]


def test_what_the_tokenizer_refuses_stops_nothing(tmp_path: Path) -> None:
    """Prompts that end in what stands for no token, in a template: Qwen's cannot be told apart."""
    definition, pad = qwen_tokenizer().backend_tokenizer.to_str().encode(), "<|endoftext|>"
    reader = QwenTokenizer(
        definition, length=24, pad_token=pad, template="user {}\n", dropped=1, origin="it"
    )
    texts = ["a cat", pad * 40, "a dog", "a cat "]
    with pytest.raises(InputError, match="Prompt 1 ends"):
        reader.encode(texts)
    source = Source.scan(text(tmp_path / "p.jsonl", texts), Tokenizer([reader]))
    assert source.place.tolist() == [0, -1, 1, 2]  # which keeps spaces
    assert list(source.errors) == ["refused by the tokenizer: `screen` says why"]


def broken(tmp_path: Path, name: str, content: bytes) -> list[str]:
    """Why rows of a file have no place; those that have are numbered."""
    path = tmp_path / name
    path.write_bytes(content)
    source = Source.scan(path, TOKENIZER)
    assert len(list(source.rows())) == len(source.place)
    return [
        source.reasons[code] or str(place)
        for code, place in zip(source.reason, source.place, strict=True)
    ]


def test_a_broken_row_of_text_stops_nothing(tmp_path: Path) -> None:
    assert broken(tmp_path, "p.txt", b"a\ncaf\xe9\nb\n") == ["0", "not UTF-8", "1"]


def test_a_broken_row_of_json_stops_nothing(tmp_path: Path) -> None:
    rows = [
        *(b'{"prompt": "a"}', b'{"prompt": null}', b'{"prompt": 5}', b'{"id": 1}', b'{"prompt"'),
        *(b'"\\ud800"', b'"caf\xe9"', b"7", b'{"prompt": "x", "prompt": "y"}', b'"a"', b'"b"'),
    ]
    assert broken(tmp_path, "p.jsonl", b"\n".join(rows)) == [
        *("0", "no prompt: null", "not text", "no prompt", "not JSON"),
        *("half of a surrogate pair: no character", "not UTF-8", "neither text nor an object"),
        *("more than one prompt", "0", "1"),
    ]


def test_a_broken_row_of_csv_stops_nothing(tmp_path: Path) -> None:
    long = b"x" * 131_073  # the limit of Python's csv
    rows = [b"id,prompt", b"1,a", b"2", b"3,a,b", b"4," + long, b"5,caf\xe9", b"6,", b"7,b"]
    fields = "not as many fields as the header has"
    assert broken(tmp_path, "p.csv", b"\n".join(rows)) == [
        *("0", fields, fields, "longer than 100,000 characters", "not UTF-8"),
        *("empty: there is nothing to compare with the empty prompt", "1"),
    ]


def test_a_broken_row_of_parquet_stops_nothing(tmp_path: Path) -> None:
    pa, parquet = pytest.importorskip("pyarrow"), pytest.importorskip("pyarrow.parquet")
    rows = [b"a", None, b"caf\xe9", b"\xed\xa0\x80", b"b"]
    strings = pa.array(rows, pa.binary()).view(pa.string())  # which nothing looks at
    parquet.write_table(pa.table({"prompt": strings}), tmp_path / "p.parquet")
    content = (tmp_path / "p.parquet").read_bytes()
    assert broken(tmp_path, "p.parquet", content) == [
        *("0", "no prompt: null", "not UTF-8", "not UTF-8", "1")
    ]


def test_what_is_broken_is_no_repetition(tmp_path: Path) -> None:
    """What can be shown of a broken row may look like a prompt."""
    assert broken(tmp_path, "p.csv", b'prompt\na,b\n"a,b"\na,b\n') == [
        *("not as many fields as the header has", "0", "not as many fields as the header has")
    ]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no prompts"),
        ('""\n" "\n', "None of the 2 prompts"),
        ('{"prompt"\n"\\ud800"\n', "None of the 2 prompts .* the first is not JSON"),
    ],
)
def test_a_useless_file(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        Source.scan(path, TOKENIZER)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Source.scan(tmp_path / "none.txt", TOKENIZER)
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="reads one several times"):
        Source.scan(tmp_path / "pipe.txt", TOKENIZER)


def test_the_column_is_the_one_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "a", "negative": "b"}) + "\n")
    assert list(Source.scan(path, TOKENIZER, "negative").prompts()) == ["b"]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    source = Source.scan(text(tmp_path / "p.jsonl", ["a"]), TOKENIZER)
    source.check()
    text(tmp_path / "p.jsonl", ["b"])
    with pytest.raises(InputError, match="was changed while it was audited"):
        source.check()
