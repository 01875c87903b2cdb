"""A virtual PIV card behind real PC/SC: pcscd, vpcd and OpenSC."""
