"""What every loss costs, as a whole step and alone."""
