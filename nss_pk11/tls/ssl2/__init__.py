"""SSL 2.0 (Hickman, "The SSL Protocol", February 1995).  Forbidden by RFC 6176, and rightly: only for who has to speak it."""
