"""`python -m ttd` is the command `ttd`."""

from ttd.cli import main

if __name__ == "__main__":
    main()
