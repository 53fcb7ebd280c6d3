"""`python -m grevy` is the command line."""

from .cli import main

main()
