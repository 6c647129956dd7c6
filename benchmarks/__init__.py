"""What an SVD costs and what this package costs, measured: see `python -m benchmarks.run --help`."""
