"""Screen a list of prompts, and look closer at what was flagged."""

from mnemoscope import Detector

PROMPTS = [
    "google icon of tokyo tower, on rings, in zagreb 2020",
    "google icon of tokyo tower, on dots, in paris 1999",
    "a quiet harbour at dawn",
]

with Detector.load() as detector:
    for detection in detector.screen(PROMPTS):
        verdict = {True: "memorized", False: "clean", None: "none"}[detection.memorized]
        print(f"{detection.score:.4f}  {verdict:9}  {detection.prompt}")
        if detection.memorized:
            # ten steps cost more than ten times as much and are surer
            [closer] = detector.screen([detection.prompt], steps=10)
            print(f"        after ten steps: {closer.score:.4f}, threshold {closer.threshold:.4f}")
