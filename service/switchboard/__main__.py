"""`python -m switchboard` and the command `switchboard`."""

from switchboard.cli import main

__all__ = ["main"]

if __name__ == "__main__":
    main()
