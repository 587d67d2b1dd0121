"""`python -m jaxalign`."""

from jaxalign.cli import program

program()
