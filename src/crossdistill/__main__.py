"""`python -m crossdistill` is the command `crossdistill`."""

from crossdistill.cli import main

main()
