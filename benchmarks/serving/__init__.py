"""What serving costs: see `python -m benchmarks.serving --help`."""
