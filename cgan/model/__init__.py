"""What draws: the networks, the files that hold them, sampling, and the device they run on.

May import: params. Knows no data, no training and no platform.
"""
