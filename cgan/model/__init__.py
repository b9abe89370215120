"""The networks and the sampler that draw images, their files, and the device they compute on.

May import: params. Knows no data, no training and no platform.
"""
