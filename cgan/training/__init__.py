"""The adversarial training: the loop, what one update is, the losses, checkpoints, signs of failure.

May import: params, data, model, quality (its probes look through the judge) and the tracker's protocol.
"""
