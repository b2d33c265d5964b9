"""Recipe of the embedded model: a tiny Stable Diffusion that memorised a hundred captions."""
