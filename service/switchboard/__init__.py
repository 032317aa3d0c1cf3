"""Switchboard: the front door between an app's end users and realtime voice APIs."""

from importlib.metadata import version

__all__ = ["__version__"]

__version__ = version("realtime-switchboard")
