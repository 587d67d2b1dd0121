"""Runs worth keeping: each file gives its command, its device and the numbers to expect."""
