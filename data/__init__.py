"""What ships with the workbench: drawn pictures, two small detectors trained here, and the scripts that made both.

Run from the repository's root: `python -m data.draw` draws the pictures again, `python -m data.train` trains the
detectors again.
"""
