"""Damaged and forged files for every reader of files that come from users: ``python -m tests.fuzzing --help``.

``readers`` has a module for each: it makes small sound files, reads one as the program does, and says what is wrong
with an answer. ``changes`` damages bytes and texts, ``archives`` forges ``.npz`` files; ``attempts`` judges one input,
``worker`` runs many of them in a process of its own, which ``__main__`` watches.
"""
