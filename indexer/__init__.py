"""Batch jobs: pictures from any source into any store. They start, finish and say by an exit code how it went.

A job is the library's `ingest` with a description, a sink, a display and a report around it. Run from a checkout:
`python -m indexer run …`, `python -m indexer load …`. Nothing imports this package.
"""
