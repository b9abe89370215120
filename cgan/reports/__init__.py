"""What became of runs, and what their drawings and the data's labels are worth: the commands that tell it.

May import: everything but the command line.
"""
