"""FORTEZZA cards as a host sees them, through the C interface."""
