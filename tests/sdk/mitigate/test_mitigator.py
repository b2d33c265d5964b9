"""Before and after, and what `auto` makes of flags."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from mitigate_support import LOADED, MEMORIZED, OtherNoise
from PIL import Image
from torch import Tensor

from mnemoscope import CalibrationError, CalibrationFile, Detector, InputError, embedded
from mnemoscope.drawing.copy_detection import SSCD, LatentDescriptor, copy_similarity
from mnemoscope.mitigate import (
    Agreement,
    Guidance,
    Kit,
    Mitigator,
    Picture,
    Plain,
    Plan,
    RandomWords,
    Rule,
    Sampling,
    Strategy,
    Task,
    Yardstick,
)
from mnemoscope_runtime import Bundle

pytestmark = pytest.mark.slow

BENIGN = "a quiet harbour at dawn"


def test_before_and_after(mitigator: Mitigator) -> None:
    done = mitigator.mitigate("a cat", RandomWords("words"), [5, 6])
    assert done.strategy == "random-words"
    assert done.seeds == (5, 6)
    assert done.detection is None
    assert done.before.copy_similarity is None  # with what? nothing was given
    assert done.after.copy_similarity is None
    assert (done.before.unmitigated_similarity, done.flagged) == (None, None)
    assert [each.strategy for each in done.originals] == ["none", "none"]
    assert all("a" in each.prompt.split() for each in done.pictures)
    scores = [each.judged.score for each in done.pictures]
    assert done.after.score == pytest.approx(np.mean(scores))
    likeness = [each.judged.unmitigated_similarity for each in done.pictures]
    assert done.after.unmitigated_similarity == max(filter(None, likeness))
    assert done.after.alignment == pytest.approx(
        np.mean([np.asarray(each.image)[..., 0].mean() / 255 for each in done.pictures])
    )
    row = done.as_json()
    assert {"prompt", "strategy", "before", "after", "seconds", "seeds"} <= set(row)
    judged = {"score", "p_value", "copy_similarity", "alignment", "unmitigated_similarity"}
    assert row["before"].keys() == judged
    assert row["before"]["p_value"] is None


def test_what_comes_out_again_does_not_pass(mitigator: Mitigator) -> None:
    done = mitigator.mitigate("a cat", Plain(), [0])
    assert done.after.unmitigated_similarity == pytest.approx(1)
    assert not done.passed
    assert mitigator.mitigate("a cat", OtherNoise(), [0]).passed


def test_what_comes_out_again_of_a_prompt_that_is_not_flagged_passes(mitigator: Mitigator) -> None:
    """By the scores of its pictures; a reference is not to come out of it either."""
    judged = replace(mitigator, yardstick=Ordinary())
    done = judged.mitigate("a cat", Plain("does-nothing"), [0])
    assert done.after.unmitigated_similarity == pytest.approx(1)
    assert (done.flagged, done.flagged_by) == (False, None)
    assert (done.verified, done.passed) == (None, True)
    assert [each.strategy for each in done.pictures] == ["does-nothing"]
    drawn = done.originals[0].image
    done = judged.mitigate("a cat", Plain(), [0], references=[drawn])
    assert (done.flagged_by, done.verified, done.passed) == ("reference", False, False)
    assert "copy of a reference" in str(done.why)
    done = judged.mitigate("a cat", OtherNoise(), [0], references=[drawn])
    assert (done.flagged_by, done.verified, done.passed) == ("reference", True, True)
    assert (
        replace(mitigator, yardstick=Unusual()).mitigate("a cat", Plain()).flagged_by == "drawing"
    )


def test_auto_flags_what_draws_a_reference(mitigator: Mitigator, detector: Detector) -> None:
    """Whatever its score is."""
    [avoided] = mitigator.draw([BENIGN], [0], Plain())
    judged = replace(mitigator, yardstick=Ordinary())
    done = judged.auto(BENIGN, [OtherNoise()], detector, [0], references=[avoided.image])
    assert done.detection is not None
    assert done.detection.p_value > 0.05
    assert (done.flagged, done.flagged_by, done.verified) == (True, "reference", True)


def test_references_count(mitigator: Mitigator) -> None:
    other = mitigator.mitigate("a cat", OtherNoise(), [0])
    again = mitigator.mitigate("a cat", OtherNoise(), [0], references=[other.pictures[0].image])
    assert again.after.copy_similarity == pytest.approx(1)
    avoided = other.pictures[0].image
    shown = [avoided, *mitigator.painter.rendered([avoided])]
    cosines = mitigator.descriptor.describe([again.originals[0].image, *shown])
    assert again.before.copy_similarity == pytest.approx(max(cosines[0] @ cosines[1:].T))
    assert not again.passed


def test_no_seeds_and_no_prompt(mitigator: Mitigator) -> None:
    for none in ([], 0):
        with pytest.raises(InputError, match="at least one seed"):
            mitigator.mitigate("a cat", Plain(), none)  # type: ignore[arg-type]
    for nothing in ("", "  ", ["a cat"], None):
        with pytest.raises(InputError, match="a text that is not empty"):
            mitigator.mitigate(nothing, Plain(), [0])  # type: ignore[arg-type]


class Wrong:
    """A strategy that does something to the plan."""

    name = "wrong"

    def __init__(self, change: Callable[[Plan], Any]) -> None:
        self._change = change

    def plan(self, task: Task) -> Any:
        return self._change(task.plan())


@pytest.mark.parametrize(
    ("strategy", "words"),
    [
        ("embedding", "'embedding' is no strategy.*Kit.make"),
        (object(), "is no strategy"),
        (Wrong(lambda _: None), "planned a NoneType, which is no Plan.*dataclasses.replace"),
        (Wrong(lambda plan: replace(plan, latents=plan.latents[:, :1])), "Keep the shapes"),
        (Wrong(lambda plan: replace(plan, embeds=(plan.embeds[0][:, :3],))), "Keep the shapes"),
        (Wrong(lambda plan: replace(plan, embeds=())), "Keep the shapes"),
    ],
)
def test_what_is_no_strategy(mitigator: Mitigator, strategy: Any, words: str) -> None:
    with pytest.raises(InputError, match=f"(?s){words}"):
        mitigator.mitigate("a cat", strategy, [0])


@pytest.fixture(scope="module")
def detector() -> Detector:
    return Detector.load()


@pytest.fixture(scope="module")
def real() -> Mitigator:
    """The embedded model and its judges."""
    sampling = Sampling()
    bundle = Bundle.open(embedded.BUNDLE)
    file = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    yardstick = Yardstick.of(file, bundle, sampling)
    judges = (LOADED["load_descriptor"](), LOADED["load_alignment"]())
    return Mitigator(LOADED["load"](), *judges, yardstick, sampling)


def recited() -> Image.Image:
    """What the embedded model draws of the memorised prompt."""
    prompts = [row.prompt for row in embedded.read_prompts("memorized")]
    return embedded.memorized_pictures()[prompts.index(MEMORIZED)]


def test_auto_climbs_until_each_picture_settles(real: Mitigator, detector: Detector) -> None:
    kit = Kit(real.painter, real.yardstick)
    ladder = [Plain("does-nothing"), kit.make("embedding"), kit.make("noise")]
    references = [recited()]
    done = real.auto(MEMORIZED, ladder, detector, [0], references=references)
    assert done.detection is not None
    assert (done.detection.steps, len(done.detection.scores)) == (10, 4)  # the surest there is
    assert done.detection.p_value <= 0.05
    assert done.before.copy_similarity > 0.9
    assert done.before.p_value <= 0.05
    assert done.passed
    assert done.pictures[0].strategy == "embedding"
    assert done.after.copy_similarity < 0.9
    assert done.after.p_value > 0.05
    assert done.after.score < done.before.score


def test_auto_without_judges_goes_by_the_score(real: Mitigator, detector: Detector) -> None:
    latents = LatentDescriptor(real.painter.vae, real.painter.side)
    blind = replace(real, descriptor=latents, alignment=None)
    blind.usual.__dict__["likeness"] = np.array([0.2, 0.9])
    kit = Kit(real.painter, real.yardstick)
    ladder = [Plain("does-nothing"), kit.make("embedding"), kit.make("noise")]
    done = blind.auto(MEMORIZED, ladder, detector, [0])
    assert done.pictures[0].strategy == "embedding"  # the first whose score benign prompts have
    assert done.after.p_value > 0.05
    assert (done.verified, done.passed, done.descriptor) == (None, False, "vae-latents")
    assert done.after.alignment is None
    assert done.after.unmitigated_similarity is not None  # told, and no verdict


def test_pictures_are_as_wide_as_they_are_drawn(real: Mitigator, mitigator: Mitigator) -> None:
    for each in (real, mitigator):
        [image] = each.painter.pictures(each.painter.task(["a cat"], [0]).noises)
        assert image.size == (each.painter.side, each.painter.side)


def test_sscd_knows_a_copy_that_is_as_blurred_as_the_vae(real: Mitigator, sscd: SSCD) -> None:
    """Against the picture as it is SSCD sees nothing of that."""
    judges = replace(real, descriptor=sscd)
    reference = recited()
    done = judges.mitigate(MEMORIZED, OtherNoise(), [0], references=[reference])
    drawn = [done.originals[0].image]
    assert copy_similarity(sscd, drawn, [reference]) < sscd.copied_above
    assert done.before.copy_similarity > 0.8
    assert done.verified is False


def test_auto_says_when_nothing_helps(mitigator: Mitigator, detector: Detector) -> None:
    done = mitigator.auto(MEMORIZED, [Plain("does-nothing")], detector, [0])
    assert not done.passed
    assert done.pictures[0].strategy == "does-nothing"
    with pytest.raises(InputError, match="no strategy to try"):
        mitigator.auto(MEMORIZED, [], detector)


def test_auto_needs_a_calibration(mitigator: Mitigator) -> None:
    with Detector.load() as bare:
        bare.calibration = None
        with pytest.raises(CalibrationError, match="mnemoscope calibrate"):
            mitigator.auto("a cat", [Plain()], bare)


@pytest.fixture
def watched(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, tuple[int, ...]]]:
    """Strategy and seeds of everything that a mitigator draws."""
    drawn: list[tuple[str, tuple[int, ...]]] = []
    plain = Mitigator.draw

    def draw(
        self: Mitigator,
        prompts: list[str],
        seeds: list[int],
        strategy: Strategy,
        *rest: Any,
        **named: Any,
    ) -> list[Picture]:
        drawn.append((strategy.name, tuple(seeds)))
        return plain(self, prompts, seeds, strategy, *rest, **named)

    monkeypatch.setattr(Mitigator, "draw", draw)
    return drawn


def test_only_what_is_left_is_tried_again(
    mitigator: Mitigator, detector: Detector, watched: list[tuple[str, tuple[int, ...]]]
) -> None:
    ladder = [OtherNoise((1,)), Plain("does-nothing"), Guidance(until=1)]
    told: list[str] = []
    rule = Rule(0.9, tolerance=1.0)
    done = mitigator.auto(MEMORIZED, ladder, detector, [0, 1], rule=rule, progress=told.append)
    assert [each for each in told if each != "preparing a strategy"] == [
        "screening it",
        "drawing it as it is",
        *(f"drawing it with {name}" for name in ("other-noise", "does-nothing", "guidance")),
    ]
    assert watched == [
        ("none", (0, 1)),
        ("other-noise", (0, 1)),
        ("does-nothing", (1,)),
        ("guidance", (1,)),
    ]
    assert done.pictures[0].strategy == "other-noise"


class Looks:
    """A copy descriptor for which all pictures are one, or none is like another."""

    name = "looks"
    copied_above: float | None = 0.9

    def __init__(self, *, alike: bool) -> None:
        self._alike, self._seen = alike, 0

    def describe(self, images: list[Image.Image]) -> np.ndarray:
        rows = np.zeros(len(images), int) if self._alike else self._seen + np.arange(len(images))
        self._seen += len(images)
        return np.eye(64, dtype=np.float32)[rows]


def test_auto_flags_what_several_seeds_agree_on(
    mitigator: Mitigator, detector: Detector, watched: list[tuple[str, tuple[int, ...]]]
) -> None:
    """Whatever the score is: the seeds draw one picture, and benign prompts do not."""
    agreeing = replace(mitigator, descriptor=Looks(alike=True))
    agreeing.usual.__dict__["likeness"] = np.array([0.2, 0.6])
    done = agreeing.auto(BENIGN, [OtherNoise()], detector, [7])
    assert done.detection is not None
    assert done.detection.p_value > 0.05
    assert done.agreement == Agreement(1, 0.9)
    assert (done.flagged, done.passed, done.verified) == (True, False, False)
    assert done.flagged_by == "agreement"
    assert watched == [("none", (7,)), ("none", (6,)), ("other-noise", (7,))]
    assert done.as_json()["agreement"] == {"highest": 1, "usual": 0.9, "recites": True}
    agreeing.usual.__dict__["likeness"] = np.array([0.2, 1.0])  # benign prompts do so too
    assert not agreeing.auto(BENIGN, [OtherNoise()], detector, [0]).flagged
    assert watched[-1] == ("none", (1,))


class Ordinary(Yardstick):
    """One by which benign prompts have every score."""

    def p_value(self, score: float) -> float:
        return 0.4 if score >= 0 else 1.0


class Unusual(Yardstick):
    """One by which the first picture's score is one that few benign prompts have."""

    def scores(self, magnitudes: Tensor) -> list[float]:
        return [float(i) for i in range(len(magnitudes))]

    def p_value(self, score: float) -> float:
        return 0.02 if score == 0 else 0.4


def test_auto_without_a_known_threshold_asks_for_what_is_usual(
    mitigator: Mitigator, detector: Detector
) -> None:
    """Of how alike two pictures are: what comes out again is refused, and nothing is verified."""
    for alike, verified in ((True, False), (False, None)):
        looks = Looks(alike=alike)
        looks.copied_above = None
        judged = replace(mitigator, descriptor=looks)
        judged.usual.__dict__["likeness"] = np.array([0.2, 0.6])
        done = judged.auto(MEMORIZED, [OtherNoise()], detector, [0])
        assert (done.flagged_by, done.verified) == ("screening", verified)
        assert done.after.unmitigated_similarity == float(alike)


def test_auto_flags_by_the_score_of_a_picture(
    mitigator: Mitigator, detector: Detector, watched: list[tuple[str, tuple[int, ...]]]
) -> None:
    """A prompt may recite from one seed alone, of which screening saw none."""
    done = replace(mitigator, yardstick=Unusual()).auto(BENIGN, [OtherNoise()], detector, [3, 4])
    assert done.detection is not None
    assert done.detection.p_value > 0.05
    assert (done.flagged, done.flagged_by, done.agreement) == (True, "drawing", None)
    assert watched == [("none", (3, 4)), ("other-noise", (3, 4))]
    assert (done.verified, done.as_json()["flagged_by"]) == (False, "drawing")


def test_auto_learns_nothing_where_seeds_do_not_agree(
    mitigator: Mitigator, detector: Detector, watched: list[tuple[str, tuple[int, ...]]]
) -> None:
    done = replace(mitigator, descriptor=Looks(alike=False)).auto(BENIGN, [], detector, [3, 4])
    assert done.agreement == Agreement(0, None)
    assert (done.flagged, done.passed, done.verified) == (False, True, None)
    assert done.pictures == done.originals
    assert watched == [("none", (3, 4))]  # no other seed, and no benign prompt


def test_auto_takes_no_picture_that_another_seed_recited(
    mitigator: Mitigator, detector: Detector
) -> None:
    """Of three seeds two draw one picture; the third must not draw it either."""

    class Second(Looks):
        def describe(self, images: list[Image.Image]) -> np.ndarray:
            return np.eye(3, dtype=np.float32)[[0, 0, 1] if len(images) == 3 else [0] * len(images)]

    judged = replace(mitigator, descriptor=Second(alike=True))
    judged.usual.__dict__["likeness"] = np.array([0.2, 0.6])
    done = judged.auto(MEMORIZED, [OtherNoise((0, 1))], detector, [0, 1, 2])
    assert [each.judged.unmitigated_similarity for each in done.pictures] == [1, 1, 1]


def test_the_yardstick() -> None:
    bundle = Bundle.open(embedded.BUNDLE)
    file = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
    found = Yardstick.of(file, bundle, Sampling())
    assert found.first is not None
    assert (found.first.setting.steps, found.first.setting.noises) == (1, 1)
    assert (found.steps, found.longest.setting.noises) == (10, 1)
    assert (found.first.ordered < found.target(0.25)).mean() == pytest.approx(0.25, abs=0.01)
    assert found.p_value(1e9) == pytest.approx(1 / 1001)
    with pytest.raises(InputError, match="lies between 0 and 1"):
        found.target(1.5)
    said = r"50 steps with guidance 7\.5, and says nothing of 20 .* OUT --inference-steps 20 --guid"
    with pytest.raises(InputError, match=said):
        Yardstick.of(file, bundle, Sampling(steps=20))
    with pytest.raises(InputError, match=r"`mnemoscope export MODEL OUT --inference-steps 50`"):
        Yardstick.of(file, bundle, Sampling(guidance=None))
    none = Yardstick.of(None, bundle, Sampling(steps=20))
    assert none.p_value(1.0) is None
    with pytest.raises(CalibrationError, match="--bundle"):
        none.target(0.5)
