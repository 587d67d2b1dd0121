"""Time from the command to the saved model, beside other libraries: `python -m benchmarks.first_result`."""
