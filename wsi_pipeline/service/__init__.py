"""The viewer with an interface for programs: slides and patches in, jobs that survive a restart, results out.

The server never runs a network: one worker process of its own does, so that neither a crash there nor torch touches
the server. Jobs stand in a database before anybody is told that they were taken.
"""
