"""Broken losses that attack whoever judges them, or behave while they are judged.

What they do has been seen of generated kernels in public judges. None may conform, none may end the
run or leave a process. They know nothing of the suite: what a file here imports is torch and
``forger.py``, since it is judged over the wall as a user's file is.
"""
