# stoppable COMMAND ...: run it; SIGTERM and Ctrl-C are passed on to it and its end is waited for, so that a training
# saves its state. Sourced by run.sh and run_mini.sh.
stoppable() {
  local pid status=0
  "$@" &
  pid=$!
  trap 'kill -TERM $pid 2>/dev/null || true' TERM INT
  wait $pid || status=$?
  while kill -0 $pid 2>/dev/null; do status=0; wait $pid || status=$?; done
  trap - TERM INT
  return $status
}
