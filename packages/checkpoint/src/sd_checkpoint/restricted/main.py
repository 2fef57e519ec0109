"""The child process that reads a file of `torch.save`: the file is its input, the index its output.

python -I -S -c "import sys; sys.path.append('.../sd_checkpoint');
                 from restricted.main import main; main()" <file
"""

import gc
import json
import os
from typing import NoReturn

from .index import make_index
from .jail import confine
from .values import RefusedError

__all__ = ["main"]


def main() -> NoReturn:
    """Confine this process, index the file that is the standard input, and end."""
    gc.disable()  # it costs most of the time where there are many containers
    confined = confine()
    try:
        answer = {"index": make_index(0), "confined": confined}
    except RefusedError as error:
        answer = {"refused": str(error)}
    except MemoryError:
        answer = {"refused": "it needs too much memory"}
    except Exception as error:  # whatever it is, the parent shall hear of it in one line
        answer = {"refused": f"it could not be read ({type(error).__name__})"}
    data = json.dumps(answer, ensure_ascii=False).encode()
    while data:
        data = data[os.write(1, data) :]
    os._exit(0)
