"""`python -m jaxalign`."""

from jaxalign.cli import main

main()
