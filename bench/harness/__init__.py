"""The parts of `bench/run`: tokens, contenders, load, measurement, report.  Knows nss_pk11 only by its command line and, for
raw signatures, by `nss_pk11.slots`."""
