# Where things are; sourced by the recipes.
export OSUM_ROOT=$(cd "$PWD/../.." && pwd)
export PYTHONPATH=$OSUM_ROOT:${PYTHONPATH:-}
export PYTHONIOENCODING=UTF-8
export PATH=$PWD:$PATH
