"""What draws: the kinds of generators, their files, sampling, and the device they compute on.

Knows no params, no data, no training and no platform.
"""
