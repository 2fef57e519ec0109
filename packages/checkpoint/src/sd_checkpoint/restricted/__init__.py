"""Reading what `torch.save` wrote, without torch and without running anything of it.

These modules import the standard library alone and one another relatively, so that a child process
can load them without their parent package: see `main.py`.
"""
