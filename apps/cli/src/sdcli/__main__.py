"""`python -m sdcli`, as launchers of several processes call a program."""

from sdcli.main import main

main()
