"""Imported by the fork server alone: puts it, and so all that it forks, into a process group of its own. A signal to the
program's group (``timeout``, a supervisor, Ctrl-C) is the program's affair: it lets those inside be answered, and ends its
processes itself."""

import os

os.setpgrp()
