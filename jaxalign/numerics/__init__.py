"""What every formula uses: precision, matrix products, masked statistics, sums over devices."""
