"""Time from the command to the saved model: `python -m benchmarks.first_result`."""
