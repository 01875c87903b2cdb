"""Simulated tokens as hosts see them: through the C ABI of their module, by ctypes and by other people's programs."""
