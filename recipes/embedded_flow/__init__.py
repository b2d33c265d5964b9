"""The embedded flow: a tiny Stable Diffusion 3 that memorised what the embedded model did."""
