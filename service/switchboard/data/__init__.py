"""Files that the package serves or starts from, kept where people look for them (the repository's root, `deploy/`)."""

from importlib.resources import files


def text(name: str) -> str:
    """The content of a data file."""
    return files(__name__).joinpath(name).read_text(encoding="utf-8")
