"""A running service as operators meet it on the command line: what is asked of its ops port, and how it is told."""
