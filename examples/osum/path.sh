# Where things are; sourced by run.sh.
export OSUM_ROOT=$(cd "$PWD/../.." && pwd)
export PYTHONPATH=$OSUM_ROOT:${PYTHONPATH:-}
export PYTHONIOENCODING=UTF-8
export PATH=$PWD:$PATH
