#!/usr/bin/env bash
# Both tables of the OSUM paper with a trained model: prepares, decodes and scores every row whose corpus is there,
# and prints them beside the paper's figures.
#
# bash eval.sh --checkpoint exp/tiny/final.pt --config exp/tiny/train.yaml --librispeech /corpora/LibriSpeech
# bash eval.sh --checkpoint osum/ --corpora /corpora     /corpora/{librispeech,aishell1,...}, as the options below
#
# Where to get the corpora: docs/corpora.md. Rows whose corpus is not given are printed as "not given". What was
# prepared or decoded already is kept; a decode that was stopped goes on where it was.
#
# stages: 0 Kaldi dirs  1 lists  2 decode  3 score, tables -> DIR/eval.json, DIR/eval.md
# Every variable below can be set as --name value, for example --stage 2 --stop_stage 3.

stage=0
stop_stage=3

checkpoint=            # .pt, or a model folder (osum convert)
config=                # the run's train.yaml; for a model folder its own
corpora=               # folder with a folder for each of these, or name them one by one:
librispeech=
aishell1=
aishell2=
wenetspeech=
esc50=
vocalsound=
meld=
mer2023=
common_voice=          # the set of 2017 on Kaggle, with cv-valid-test.csv
air_bench=
dir=exp/eval           # one for each model
allow_partial=false    # true: corpora that are not whole; the table says so

rows=eval_rows.yaml    # the rows and the paper's figures
decode_mode=llm_greedy # or llm_beam
decode_batch=16
device=cpu
dtype=                 # the config's
nproc_per_node=1       # processes that decode, one a GPU
num_threads=1          # threads of each on CPU
num_workers=0          # data workers of each; on GPU take a few
score_options=         # further ones of osum score, such as '--judge URL --judge_model NAME' for air_bench

options=               # end of what the command line may set
. ./parse_options.sh
. ./path.sh
set -euo pipefail
for option in stage stop_stage decode_batch nproc_per_node num_threads num_workers; do
  if ! [[ ${!option} =~ ^[0-9]+$ ]]; then echo "error: $0: --$option ${!option}: give a whole number" >&2; exit 1; fi
done
case $allow_partial in true|false) ;; *) echo "error: $0: --allow_partial $allow_partial: choose true or false" >&2; exit 1 ;; esac
[ -e "$checkpoint" ] || { echo "error: $0: --checkpoint ${checkpoint:-is missing}: give a .pt or a model folder" >&2; exit 1; }
[ -z "$corpora" ] || [ -d "$corpora" ] || { echo "error: $0: --corpora $corpora: no such folder" >&2; exit 1; }

# $parts: what there is to do, a line a subset: corpus, script, subset, tasks, normaliser. $given: corpora that are there.
todo=$(python local/eval_rows.py "$rows")
parts= given=
while IFS=$'\t' read -r corpus script subset tasks normalizer; do
  root=${!corpus:-}
  if [ -z "$root" ] && [ -n "$corpora" ] && [ -d "$corpora/$corpus" ]; then root=$corpora/$corpus; fi
  if [ -n "$root" ]; then
    [ -d "$root" ] || { echo "error: $0: --$corpus $root: no such folder" >&2; exit 1; }
    parts+="$corpus"$'\t'"$script"$'\t'"$subset"$'\t'"$tasks"$'\t'"$normalizer"$'\t'"$root"$'\n'
    case ,$given, in *,$corpus,*) ;; *) given=${given:+$given,}$corpus ;; esac
  fi
done <<< "$todo"
[ -n "$given" ] || { echo "error: $0: no corpus is given; name their folders, see --help and docs/corpora.md" >&2; exit 1; }

launch="python -m"
if [ "$nproc_per_node" -gt 1 ]; then launch="torchrun --standalone --nproc_per_node $nproc_per_node -m"; fi
export OMP_NUM_THREADS=$num_threads
started=$SECONDS
say() { echo "=== stage $1 ($((SECONDS - started)) s): $2"; }
on() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
keep() {  # FILE MADE TEXT: MADE, if it is there, was made with the same; else it may not be gone on with
  if [ -e "$2" ] && [ -f "$1" ] && [ "$(cat "$1")" != "$3" ]; then
    echo "error: $0: $1 says $(cat "$1"), and now it is $3: give another --dir" >&2; exit 1
  fi
  mkdir -p "$(dirname "$1")"; echo "$3" > "$1"
}
keep "$dir/made_with" "$dir/decode" \
  "$(realpath "$checkpoint") of $(stat -c %Y "$checkpoint"), ${config:+$(realpath "$config"), }$decode_mode"

each() {  # FUNCTION: called for every subset with its line's fields
  local corpus script subset tasks normalizer root
  while IFS=$'\t' read -r corpus script subset tasks normalizer root <&3; do
    "$1" "$corpus" "$script" "$subset" "$tasks" "$normalizer" "$root"
  done 3< <(printf %s "$parts")
}

prepare() {  # a corpus once, with all subsets that are asked for
  local subsets
  subsets=$(awk -F'\t' -v corpus="$1" '$1 == corpus {printf "%s%s", comma, $3; comma = ","}' <<< "$todo")
  keep "$dir/data/$1.root" "$dir/data/$1" "$(realpath "$6"): $subsets"
  if [ -d "$dir/data/$1" ]; then return; fi
  rm -f "$dir/data/$1.partial"
  if $allow_partial; then touch "$dir/data/$1.partial"; fi
  python "local/$2" "$6" "$dir/data/$1" $(if $allow_partial; then echo --allow_partial; fi) --subsets "$subsets"
}
make_list() {
  if [ -f "$dir/data/$1.$3.list" ] || [ ! -d "$dir/data/$1/$3" ]; then return; fi
  osum make_raw_list --data_dir "$dir/data/$1/$3" "$dir/data/$1.$3.list"
}
decode() {
  local out=$dir/decode/$1/$3 answers
  if [ ! -f "$dir/data/$1.$3.list" ]; then echo "$1 $3: not there"; return; fi
  if [ -f "$out/decoded" ] && [ "$(cat "$out/decoded")" = "$4" ]; then echo "$1 $3: decoded already"; return; fi
  # For one task, recognize makes no folder of its name.
  case $4 in *,*) answers=$out ;; *) answers=$out/$4 ;; esac
  $launch wenet_osum.bin.recognize --checkpoint "$checkpoint" ${config:+--config "$config"} --task "$4" --labelled_only \
    --test_data "$dir/data/$1.$3.list" --modes "$decode_mode" --result_dir "$answers" --batch_size "$decode_batch" \
    --device "$device" ${dtype:+--dtype "$dtype"} --num_threads "$num_threads" --num_workers "$num_workers"
  echo "$4" > "$out/decoded"
}
score() {
  if [ ! -f "$dir/decode/$1/$3/decoded" ]; then return; fi
  osum score --data "$dir/data/$1/$3" --decode_dir "$dir/decode/$1/$3" --mode "$decode_mode" --normalizer "$5" \
    --output "$dir/decode/$1/$3/scores.json" $score_options
}

if on 0; then say 0 "Kaldi dirs of $given"; each prepare; fi
if on 1; then say 1 "lists"; each make_list; fi
if on 2; then say 2 "decode with $checkpoint"; each decode; fi
if on 3; then
  say 3 "score"
  each score
  partial=  # corpora whose counts were not checked, in this run or an earlier one
  for corpus in ${given//,/ }; do
    if [ -f "$dir/data/$corpus.partial" ]; then partial=${partial:+$partial,}$corpus; fi
  done
  python local/eval_table.py --rows "$rows" --checkpoint "$checkpoint" ${config:+--config "$config"} --results "$dir" \
    --given "$given" --mode "$decode_mode" --partial "$partial"
  say 3 "done: $dir/eval.json, $dir/eval.md"
fi
