"""`python -m dciml`."""

from dciml.cli import main

main()
