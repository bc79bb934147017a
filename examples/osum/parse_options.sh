# --name value on the command line overrides the variable "name" set before this file is sourced;
# --some-name sets some_name; an unknown name is an error.
while [ $# -gt 0 ]; do
  case "$1" in
    --help|-h) sed -n '2,/^$/s/^# \{0,1\}//p' "$0"; sed -n '/^stage=/,/^options=/{/^options=\|^$/!s/^/  --/p}' "$0"; exit 0 ;;
    --*)
      name=${1#--}; name=${name//-/_}
      if ! grep -qx "$name=.*" <(sed -n '/^stage=/,/^options=/p' "$0"); then echo "error: $0: unknown option $1; see --help" >&2; exit 1; fi
      if [ $# -lt 2 ]; then echo "error: $0: $1 needs a value" >&2; exit 1; fi
      printf -v "$name" '%s' "$2"; shift 2 ;;
    *) echo "error: $0: unexpected $1; options are --name value" >&2; exit 1 ;;
  esac
done
