"""Commands and printers of Tessera for gdb: `source xtask/gdb/tessera.py`, then `help tessera`.

`cargo xtask gdb` loads this file by itself. gdb must have read a `tessera.debug` with full debug
information: the commands find everything by the types in there and keep no layout of their own.
"""

import importlib
import os
import sys

_HERE = os.path.dirname(os.path.abspath(__file__))
if _HERE not in sys.path:
    sys.path.insert(0, _HERE)

# A second `source` loads the files anew.
for _name in [name for name in sys.modules if name.split(".")[0] == "tessera_gdb"]:
    del sys.modules[_name]
importlib.import_module("tessera_gdb").register()
