"""NSS's test programs: `selfserv`, `tstclnt` and `strsclnt` with NSS's own flags, exit codes and lines.

A shell script written for NSS's programs runs with these in their place.  They use `nss_pk11.nss` as any program would, by its
public names alone, and are the proof that those suffice.  They know neither engine nor slots.
"""
