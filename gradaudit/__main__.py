"""`python -m gradaudit` is the command line."""

from gradaudit.cli import main

main()
