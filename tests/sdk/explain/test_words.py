"""Words, their tokens, and prompts with some of them changed."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from qwen_tokenizers import qwen_tokenizer

from mnemoscope import InputError, embedded
from mnemoscope.explain.words import edited, read, word_spans, words_of
from mnemoscope_runtime import Bundle, Tokenizer, tokenizer_of
from mnemoscope_runtime.qwen_tokenizer import QwenTokenizer


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return tokenizer_of(Bundle.open(embedded.BUNDLE))


def dropped(prompt: str, *indices: int) -> str:
    spans = word_spans(prompt)
    return edited(prompt, {spans[i]: "" for i in indices})


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("google icon of rocket, on rings", ["google", "icon", "of", "rocket", "on", "rings"]),
        ("don't (a, b:1.2) 1girl,best 16:9", ["don't", "a", "b:1.2", "1girl", "best", "16:9"]),
        ("'quoted' -- \"words\".", ["quoted", "words"]),
        ("猫の絵 😀", ["猫の絵", "😀"]),
        ("日本の東京タワー、赤い塔。青い", ["日本の東京タワー", "赤い塔", "青い"]),
        ("「猫」と犬・鳥\uff0c魚\uff01虫\u3000花", ["猫", "と犬", "鳥", "魚", "虫", "花"]),
        ("一只“红猫”…蓝狗", ["一只", "红猫", "蓝狗"]),
        ("ရန်ကုန်၊မြို့။", ["ရန်ကုန်", "မြို့"]),
        (
            "art-deco o\u2019clock J.R.R. l\u00b7l 10\u301c20",
            ["art-deco", "o\u2019clock", "J.R.R", "l\u00b7l", "10\u301c20"],
        ),
        ("... !? ,", []),
        ("", []),
    ],
)
def test_words(text: str, words: list[str]) -> None:
    assert words_of(text) == words


@pytest.mark.parametrize(
    ("prompt", "indices", "expected"),
    [
        ("icon of rocket, on rings, in fez 2020", (3, 4), "icon of rocket, in fez 2020"),
        ("icon of rocket, on rings, in fez 2020", (5, 6, 7), "icon of rocket, on rings"),
        ("icon of rocket, on rings", (0,), "of rocket, on rings"),
        ("a, b", (0,), "b"),
        ("x,a,b,c", (1, 2), "x,c"),
        ("x, a b c", (1, 2), "x, c"),
        ("a cat.", (1,), "a."),
        ("a dog, cat. b", (2,), "a dog. b"),
        ("cat. b", (0,), "b"),
        ("日本の東京タワー、赤い塔。青い", (1,), "日本の東京タワー。青い"),
        ("日本の東京タワー、赤い塔。青い", (0,), "赤い塔。青い"),
        ("日本の東京タワー、赤い塔", (1,), "日本の東京タワー"),
        ("a  cat  sits", (1,), "a sits"),
        ("a cat", (0, 1), ""),
        ("a cat , here", (), "a cat , here"),
    ],
)
def test_words_are_dropped_with_the_comma_they_leave(
    prompt: str, indices: tuple[int, ...], expected: str
) -> None:
    assert dropped(prompt, *indices) == expected


def test_words_are_replaced_in_place() -> None:
    prompt = "icon of rocket, on rings"
    spans = word_spans(prompt)
    assert edited(prompt, {spans[2]: "a dog", spans[0]: "photo"}) == "photo of a dog, on rings"
    assert edited(prompt, {spans[2]: "", spans[0]: "photo"}) == "photo of, on rings"


@given(st.text(max_size=60), st.data())
@settings(deadline=None)
def test_what_is_not_dropped_stays(prompt: str, data: st.DataObject) -> None:
    words = words_of(prompt)
    chosen = data.draw(st.sets(st.integers(0, len(words) - 1)) if words else st.just(set()))
    text, at = dropped(prompt, *chosen), 0
    for word in (word for i, word in enumerate(words) if i not in chosen):
        at = text.find(word, at)
        assert at >= 0
        at += len(word)
    assert dropped(prompt) == prompt


def test_tokens_are_joined_into_words(tokenizer: Tokenizer) -> None:
    reading = read(tokenizer, "Viktor's rocket, in 2020 — café")
    assert reading.texts == ["Viktor's", "rocket", "in", "2020", "café"]
    spelled = ["".join(reading.pieces[k].text for k in group) for group in reading.groups]
    assert spelled[:4] == ["viktor</w>'s</w>", "rocket</w>", "in</w>", "2</w>0</w>2</w>0</w>"]
    for group, span in zip(reading.groups, reading.words, strict=True):
        assert reading.span(group) == span
    assert [reading.text(group) for group in reading.loose] == [",", "\u2014"]
    assert reading.start == (0,)
    assert reading.span(reading.start) is None
    everything = {*reading.start, *reading.end, *reading.padding}
    everything |= {k for group in (*reading.groups, *reading.loose) for k in group}
    assert everything == set(range(77))
    assert (reading.unread, reading.read) == ("", reading.prompt)


def test_signs_that_stand_together_are_one(tokenizer: Tokenizer) -> None:
    reading = read(tokenizer, 'a cat , a dog -- "red"\u3001 [x]!!! ')
    assert [reading.text(each) for each in reading.loose] == [
        ",",
        "--",
        '"',
        '"\u3001',
        "[",
        "]!!!",
    ]


def test_spaces_that_are_tokens() -> None:
    """A token's space is none of its characters, so that leaving it out joins no words."""
    definition = qwen_tokenizer().backend_tokenizer.to_str().encode()
    template = "<|im_start|>user\n{}<|im_end|>\n"
    reader = QwenTokenizer(
        definition, length=40, pad_token="<|endoftext|>", dropped=2, template=template, origin="it"
    )
    reading = read(Tokenizer([reader]), "a cat ,  dog\n\nred --")
    assert [reading.text(group) for group in reading.loose] == [",", "\n\n", "--"]
    assert [[reading.text((k,)) for k in group] for group in reading.groups] == [
        ["a"],
        ["c", "at"],
        ["do", "g"],
        ["re", "d"],
    ]
    first = reading.span(reading.groups[1][:1])
    assert first is not None
    assert edited(reading.read, {first: ""}).startswith("a at ,")


def test_pieces_are_what_the_ids_say(tokenizer: Tokenizer) -> None:
    for prompt in ["a cat", "", "word " * 100, "猫 <|endoftext|> x"]:
        assert len(tokenizer.pieces(prompt)) == tokenizer.encode([prompt]).ids.shape[1] == 77


def test_the_tail_that_is_not_read(tokenizer: Tokenizer) -> None:
    prompt = "icon " * 75 + "rocket, on rings"
    reading = read(tokenizer, prompt)
    assert len(reading.words) == 75
    assert reading.unread == "rocket, on rings"
    assert reading.read == ("icon " * 75).strip()
    assert reading.padding == ()


def test_a_word_of_which_a_part_is_read_is_no_tail(tokenizer: Tokenizer) -> None:
    prompt = "icon " * 74 + "word19, on rings"
    reading = read(tokenizer, prompt)
    assert len(reading.pieces[reading.groups[-1][-1]].text) < len("word19")  # it is cut
    assert reading.texts[-1] == "word19"
    assert reading.read.endswith("word19")
    assert reading.unread == ", on rings"


@pytest.mark.parametrize("prompt", ["", "   ", ", . !"])
def test_a_prompt_without_words(tokenizer: Tokenizer, prompt: str) -> None:
    with pytest.raises(InputError, match="holds no words"):
        read(tokenizer, prompt)


def test_what_is_no_text(tokenizer: Tokenizer) -> None:
    with pytest.raises(InputError, match="not valid Unicode"):
        read(tokenizer, "a \ud800 cat")
