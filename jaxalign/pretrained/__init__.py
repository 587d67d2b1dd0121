"""Loading and writing of published checkpoints."""
