from __future__ import annotations

import json
import os
from pathlib import Path

import pytest
from audit_support import text

from mnemoscope import InputError
from mnemoscope.audit.source import REASONS, Source
from mnemoscope.prompts import read_prompt_file
from mnemoscope_runtime.tokenizer import LONGEST_PROMPT


def test_each_prompt_is_chosen_where_it_stands_first(tmp_path: Path) -> None:
    source = Source.scan(text(tmp_path / "p.jsonl", ["b", "a", "b", "c", "a", "b"]))
    assert source.chosen.tolist() == [True, True, False, True, False, False]
    assert source.place.tolist() == [0, 1, 0, 2, 1, 0]
    assert list(source.prompts()) == ["b", "a", "c"]
    assert source.measured == 3
    assert source.errors == {}


def test_many_prompts_are_told_apart(tmp_path: Path) -> None:
    prompts = [str(n * n % 1009) for n in range(3000)]
    source = Source.scan(text(tmp_path / "p.jsonl", prompts))
    distinct = list(dict.fromkeys(prompts))
    assert list(source.prompts()) == distinct
    assert [distinct[place] for place in source.place] == prompts


def test_what_cannot_be_screened_has_a_reason_and_no_place(tmp_path: Path) -> None:
    longest = "x" * LONGEST_PROMPT
    prompts = ["a", "", " \t ", longest + "x", longest, ""]
    source = Source.scan(text(tmp_path / "p.jsonl", prompts))
    assert [REASONS[code].partition(":")[0] for code in source.reason] == [
        *("", "empty", "empty", "longer than 100,000 characters", "", "empty")
    ]
    assert source.place.tolist() == [0, -1, -1, -1, 1, -1]
    assert list(source.prompts()) == ["a", longest]
    assert list(source.errors.values()) == [3, 1]


def test_a_missing_prompt_counts_as_empty(tmp_path: Path) -> None:
    lines = tmp_path / "p.jsonl"
    lines.write_text('{"prompt": null}\n{"prompt": "a"}\n')
    short = tmp_path / "p.csv"
    short.write_text("id,prompt\n1\n2,a\n")
    pyarrow = pytest.importorskip("pyarrow")
    parquet = tmp_path / "p.parquet"
    pytest.importorskip("pyarrow.parquet").write_table(
        pyarrow.table({"prompt": [None, "a"]}), parquet
    )
    for path in (lines, short, parquet):
        assert Source.scan(path).place.tolist() == [-1, 0]
        with pytest.raises(InputError, match="the prompt is None, not text"):
            list(read_prompt_file(path))  # to everybody else it is an error still


def test_a_number_is_no_missing_prompt(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text('{"prompt": "a"}\n{"prompt": 5}\n')
    with pytest.raises(InputError, match="row 2: the prompt is 5, not text"):
        Source.scan(path)


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("", "holds no prompts"),
        ('""\n" "\n', "None of the 2 prompts"),
        ('"a"\n{"prompt"\n', "line 2: not JSON"),
        ('"a"\n"\\ud800"\n', "line 2: not JSON"),
    ],
)
def test_a_useless_file(tmp_path: Path, content: str, words: str) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(content)
    with pytest.raises(InputError, match=words):
        Source.scan(path)


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="cannot be read: No such file"):
        Source.scan(tmp_path / "none.txt")
    os.mkfifo(tmp_path / "pipe.txt")
    with pytest.raises(InputError, match="reads one several times"):
        Source.scan(tmp_path / "pipe.txt")


def test_the_column_is_the_one_that_was_named(tmp_path: Path) -> None:
    path = tmp_path / "p.jsonl"
    path.write_text(json.dumps({"prompt": "a", "negative": "b"}) + "\n")
    assert list(Source.scan(path, "negative").prompts()) == ["b"]


def test_a_changed_file_is_noticed(tmp_path: Path) -> None:
    source = Source.scan(text(tmp_path / "p.jsonl", ["a"]))
    source.check()
    text(tmp_path / "p.jsonl", ["b"])
    with pytest.raises(InputError, match="was changed while it was audited"):
        source.check()
