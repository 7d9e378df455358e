//! Quantize trained networks, within the accuracy bound you set, and with the proof.
