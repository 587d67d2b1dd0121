"""Breaks the mathematics one place at a time and looks whether some test notices."""
