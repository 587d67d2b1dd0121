"""The configurations of all commands: frozen, keyword-only dataclasses, checked when they are made.

Batch sizes are global. Every field is read by the command that declares it; `--help` of a command
shows them all.
"""
