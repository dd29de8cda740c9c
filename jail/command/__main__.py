# The command line as a program: snakehook.py runs this folder for every command but `serve`.

import sys

# Our own package comes last, so that nothing beside it stands for a module of the library. Nothing
# but it is looked for there.
sys.path.append(f"{sys.path.pop(0)}/../..")
from jail.command.main import main

sys.path.pop()
sys.exit(main())
