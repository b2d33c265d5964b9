"""Draw a memorised prompt so that the training picture does not come out, and check that."""

from mnemoscope import CalibrationFile, embedded
from mnemoscope.drawing.alignment import load_alignment
from mnemoscope.drawing.copy_detection import load_descriptor
from mnemoscope.mitigate import Kit, Mitigator, Painter, Sampling, Yardstick
from mnemoscope_runtime import Bundle

PROMPT = "umbrella, from alma trade fair"

sampling = Sampling(steps=50, guidance=7.5)
calibration = CalibrationFile.read(embedded.BUNDLE / "calibration.json")
yardstick = Yardstick.of(calibration, Bundle.open(embedded.BUNDLE), sampling)
painter = Painter.load()  # the embedded model; or Painter.load("my-model")
mitigator = Mitigator(painter, load_descriptor(), load_alignment(), yardstick, sampling)
strategy = Kit(painter, yardstick).make("embedding")

done = mitigator.mitigate(PROMPT, strategy, [0], references=embedded.memorized_pictures())
for name, found in (("before", done.before), ("after", done.after)):
    print(
        f"{name:6}  score {found.score:.2f}  p {found.p_value:.3f}  "
        f"copy {found.copy_similarity:.2f}  alignment {found.alignment:.2f}"
    )
print("passes" if done.passed else "does not pass")
