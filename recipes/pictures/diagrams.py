"""What is drawn of how things hang together."""

from __future__ import annotations

from .svg import GREEN, RED, Drawing


def words() -> Drawing:
    """The eight words of the house, and the way from one to the next."""
    drawing = Drawing(880, 230, "From a model to a verdict")
    boxes = {
        "model": (5, "model\n(diffusers, ONNX)"),
        "bundle": (180, "bundle\ngraphs, tokenizer,\nnoise bank, manifest"),
        "screener": (390, "screener\nmeasures"),
        "score": (570, "score"),
        "verdict": (735, "verdict\nand p-value"),
    }
    for x, text in boxes.values():
        drawing.box(x, 50, 140, 66, text)
    ways = [
        ("model", "bundle", "mnemoscope\nexport"),
        ("bundle", "screener", "a backend makes\nengines of graphs"),
        ("screener", "score", "a statistic"),
        ("score", "verdict", "a calibration's\nthreshold"),
    ]
    for start, end, text in ways:
        left, right = boxes[start][0] + 140, boxes[end][0]
        drawing.arrow((left, 83), (right, 83))
        drawing.text((left + right) / 2, 26, text)
    drawing.box(390, 155, 140, 60, "guard: what\nguidance computes")
    drawing.arrow((75, 116), (75, 185), (390, 185))
    drawing.text(230, 175, "diffusers' pipeline")
    drawing.arrow((530, 185), (640, 185), (640, 116))
    return drawing


def metric() -> Drawing:
    """Two predictions of one noise, and how far apart they are."""
    drawing = Drawing(790, 250, "The magnitude: how far a prompt moves the prediction")
    drawing.box(10, 95, 110, 60, "a fixed noise\nx_t")
    drawing.box(210, 30, 150, 60, "UNet, told\nthe prompt")
    drawing.box(210, 160, 150, 60, "UNet, told\nnothing", "#f5f5f5")
    drawing.box(470, 95, 120, 60, "difference,\nits length", "#fff3e0")
    drawing.arrow((120, 115), (165, 115), (165, 60), (210, 60))
    drawing.arrow((120, 135), (165, 135), (165, 190), (210, 190))
    drawing.arrow((360, 60), (415, 60), (415, 115), (470, 115))
    drawing.arrow((360, 190), (415, 190), (415, 135), (470, 135))
    drawing.text(400, 42, "the predicted noise", anchor="start")
    drawing.text(400, 216, "always the same: computed once, stored", anchor="start")
    drawing.arrow((590, 115), (650, 70))
    drawing.arrow((590, 135), (650, 180))
    drawing.text(655, 62, "large: memorised", colour=RED, anchor="start")
    drawing.text(655, 188, "small: ordinary", colour=GREEN, anchor="start")
    return drawing


def comfyui() -> Drawing:
    """A graph of ComfyUI with a guard in it."""
    drawing = Drawing(880, 190, "A guard in a graph of ComfyUI")
    drawing.box(10, 50, 110, 56, "Load\nCheckpoint", "#f5f5f5")
    drawing.box(205, 50, 130, 56, "Memorization\nGuard")
    drawing.box(420, 50, 95, 56, "KSampler", "#f5f5f5")
    drawing.box(590, 20, 95, 40, "VAE Decode", "#f5f5f5")
    drawing.box(590, 105, 120, 56, "Memorization\nVerdict")
    drawing.box(785, 112, 85, 42, "Save Image", "#f5f5f5")
    drawing.arrow((120, 78), (205, 78))
    drawing.text(162, 58, "MODEL\nCLIP")
    drawing.arrow((335, 78), (420, 78))
    drawing.text(377, 68, "MODEL")
    drawing.arrow((515, 66), (550, 66), (550, 40), (590, 40))
    drawing.arrow((515, 90), (550, 90), (550, 120), (590, 120))
    drawing.text(535, 24, "LATENT")
    drawing.arrow((685, 40), (735, 40), (735, 84), (650, 84), (650, 105))
    drawing.text(738, 28, "IMAGE")
    drawing.arrow((270, 106), (270, 148), (590, 148))
    drawing.text(400, 138, "guard")
    drawing.arrow((710, 133), (785, 133))
    drawing.text(748, 122, "IMAGE")
    return drawing
