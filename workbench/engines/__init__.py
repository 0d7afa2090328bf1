"""The far side of `runners/worker.py`: the scripts that run inside the child processes which hold native code.

They are started by their path and import nothing of the workbench, so a child starts in a moment and holds its engine
alone.
"""
