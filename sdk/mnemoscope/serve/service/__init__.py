"""What `mnemoscope serve` runs: models by name, asked over HTTP and gRPC.

`options` says what is wanted, `models` holds engines by name, `asking` is what every protocol asks,
`answer` what each may be told; `v2` speaks the Open Inference Protocol; `app` and `running` put it
together.
"""
