"""The adversarial training: the loop, its state, what one update is, the losses, checkpoints, monitoring.

May import: params, data, model, quality (probes look through the judge) and the tracker's protocol.
"""
