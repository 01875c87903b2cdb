"""Interoperability: our stack against others, both directions, our keys inside SoftHSM.

`support/peers` drives the others and says in `table.py` what each can do; the matrix grows from there.  Foreign servers run
as processes and are reused; our own server and client mostly run in this process (`support/ours.py`), as each cell would
otherwise pay for a start of Python; `test_command.py` has the command line.  `test_peers.py` proves the others against each
other, so that a failure elsewhere is known to be ours.
"""
