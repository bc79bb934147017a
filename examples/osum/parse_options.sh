# --name value on the command line overrides the variable "name" set before this file is sourced;
# --some-name sets some_name; an unknown name is an error.
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) grep '^#' "$0" | sed 's/^# \{0,1\}//' | tail -n +2; exit 0 ;;
    --*)
      name=${1#--}; name=${name//-/_}
      if ! declare -p "$name" >/dev/null 2>&1; then echo "error: $0: unknown option $1; see --help" >&2; exit 1; fi
      if [ $# -lt 2 ]; then echo "error: $0: $1 needs a value" >&2; exit 1; fi
      printf -v "$name" '%s' "$2"; shift 2 ;;
    *) echo "error: $0: unexpected $1; options are --name value" >&2; exit 1 ;;
  esac
done
