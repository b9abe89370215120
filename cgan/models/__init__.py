"""The kinds of generators, their files, sampling, and the device they compute on."""
