#!/usr/bin/env bash
# OSUM from Kaldi data dirs to scored answers, in WeNet's stages.
#
# bash run.sh                          the demo corpus: train both stages, decode, score
# bash run.sh --corpus asterisk        recordings of people (Debian's asterisk-core-sounds-* packages)
# bash run.sh --data DIR               your own DIR/{train,dev,test}, each a Kaldi data dir
# bash run.sh --data DIR --dir exp/tiny    DIR itself a Kaldi data dir: decode it with a trained model
#
# stages: 0 data  1 validate, lists, shards  2 tokenizer  3 stage 1 (Whisper)  4 stage 2 (OSUM)
#         5 average  6 decode every task  7 score
# Every variable below can be set as --name value, for example --stage 6 --stop_stage 7.

stage=0
stop_stage=7

corpus=tiny            # tiny | asterisk
data=                  # your own data in place of a corpus
size=full              # quick: a tenth of the demo corpus
lenient=false          # true: go on when validate finds faults; bad recordings are set aside and listed
seed=1
nj=2                   # processes for data preparation
languages=en,es,fr,it,ru    # of --corpus asterisk

data_type=shard        # raw | shard | shard_full_data
num_utts_per_shard=1000
vocab_size=            # 640, or 440 for --corpus asterisk, whose hour and a half is soon learned by heart
prompts=en             # languages of the prompts the tokenizer should know; as in the configs
time_step=0.04         # of timestamps, seconds; as in the configs
max_time=              # 5.0, or 0.5 for --corpus asterisk, which has no timestamps

stage1_config=         # conf/tiny_stage1.yaml, or conf/asterisk_stage1.yaml
train_config=          # conf/tiny.yaml, or conf/asterisk.yaml
dir=                   # exp/tiny, exp/asterisk or exp/NAME of --data DIR
tensorboard_dir=tensorboard
train_data=            # list(s) or a combine YAML (name: {path, weight}) to train on, in place of the train dir's list
resume=auto            # go on from the newest state of a run that was stopped; none: from the start
device=cpu
dtype=fp32
train_engine=torch_ddp # torch_ddp | torch_fsdp | deepspeed
deepspeed_config=conf/ds_stage2.json
nproc_per_node=2       # processes (ranks) that train and decode, one a GPU; on CPU ranks times threads should fill the cores
num_nodes=1            # machines; on each of them run the same command, with one HOST_NODE_ADDR
HOST_NODE_ADDR=localhost:29400   # of the first machine
job_id=2026
num_threads=1          # threads of each on CPU
num_workers=0          # data workers of each; on GPU take a few
override=              # KEY=VALUE for both stages' --override_config

average_num=1          # checkpoints; here the learning rate ends at 0, and the last one is better than a mean
decode_checkpoint=     # $dir/final.pt
decode_modes=          # llm_greedy, or llm_beam for --corpus asterisk
decode_batch=32
tasks=all              # of decoding: names with commas between
require=               # tasks that must have a score
normalizer=            # of transcripts: wenet (compute-wer.py's figures; not for asterisk) | no_marks | whisper_en | plain

options=               # end of what the command line may set
. ./parse_options.sh
. ./path.sh
. ./stoppable.sh
set -euo pipefail
# Names that follow from the others.
own=
if [ -n "$data" ]; then
  data=${data%/}
  own=$(basename "$data")
fi
name=${own:-$corpus}
dir=${dir:-exp/$name}
lists=data/$name
if [ "$corpus" = asterisk ] && [ -z "$own" ]; then recipe=asterisk; else recipe=tiny; fi
stage1_config=${stage1_config:-conf/${recipe}_stage1.yaml}
train_config=${train_config:-conf/$recipe.yaml}
decode_checkpoint=${decode_checkpoint:-$dir/final.pt}
if [ "$recipe" = asterisk ]; then
  # No wenet normaliser: it cuts French and Russian words at their letters beyond ASCII.
  vocab_size=${vocab_size:-440} max_time=${max_time:-0.5} decode_modes=${decode_modes:-llm_beam} normalizer=${normalizer:-no_marks}
fi
vocab_size=${vocab_size:-640} max_time=${max_time:-5.0} decode_modes=${decode_modes:-llm_greedy} normalizer=${normalizer:-wenet}
for option in stage stop_stage nj num_utts_per_shard vocab_size nproc_per_node num_nodes num_threads num_workers average_num decode_batch; do
  if ! [[ ${!option} =~ ^[0-9]+$ ]]; then echo "error: $0: --$option ${!option}: give a whole number" >&2; exit 1; fi
done
case $data_type in raw|shard|shard_full_data) ;; *) echo "error: $0: --data_type $data_type: choose raw, shard or shard_full_data" >&2; exit 1 ;; esac
case $lenient in true|false) ;; *) echo "error: $0: --lenient $lenient: choose true or false" >&2; exit 1 ;; esac
case $size in full|quick) ;; *) echo "error: $0: --size $size: choose full or quick" >&2; exit 1 ;; esac

if [ "$corpus" = tiny ] && [ -z "$own" ]; then
  # A tenth of the utterances, seen more often: else there are too few steps to learn anything at all.
  if [ "$size" = quick ]; then override=${override:-max_epoch=8}; fi
fi

if [ -n "$own" ] && [ -f "$data/wav.scp" ]; then
  sets=test            # a single data dir is only decoded
  decode_only=true
  [ -f "$decode_checkpoint" ] || { echo "error: $data is one data dir, to be decoded with a trained model, and there is no $decode_checkpoint; name its folder with --dir, or give a DIR with train, dev and test" >&2; exit 1; }
else
  sets="train dev test"
  decode_only=false
fi
if [ -n "$own" ]; then source_dir=$data; else source_dir=$lists/kaldi; fi
kaldi_dir() { if $decode_only; then echo "$data"; else echo "$source_dir/$1"; fi; }
data_list() { if [ "$data_type" = raw ]; then echo "$lists/$1/raw.list"; else echo "$lists/$1/data.list"; fi; }
launch="python -m"
if [ "$num_nodes" -gt 1 ]; then
  launch="torchrun --nnodes $num_nodes --nproc_per_node $nproc_per_node --rdzv_id $job_id --rdzv_backend c10d --rdzv_endpoint $HOST_NODE_ADDR -m"
elif [ "$nproc_per_node" -gt 1 ]; then
  launch="torchrun --standalone --nproc_per_node $nproc_per_node -m"
fi
export OMP_NUM_THREADS=$num_threads
started=$SECONDS
say() { echo "=== stage $1 ($((SECONDS - started)) s): $2"; }
on() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }

if on 0; then
  if [ -n "$own" ]; then
    say 0 "data: $data"
  elif [ "$corpus" = tiny ]; then
    say 0 "synthesise the demo corpus"
    if [ "$size" = quick ]; then counts="--train 900 --dev 40 --test 160"; else counts=; fi
    python local/make_tiny_corpus.py --output "$lists/kaldi" $counts --seed "$seed" --nj "$nj"
  elif [ "$corpus" = asterisk ]; then
    say 0 "Kaldi dirs of Debian's recorded prompts"
    python local/prepare_asterisk.py --output "$lists/kaldi" --languages "$languages" --seed "$seed"
  else
    echo "error: --corpus $corpus: choose tiny or asterisk, or give --data DIR" >&2; exit 1
  fi
fi

if on 1; then
  say 1 "validate, lists, shards"
  for x in $sets; do
    osum validate --num_threads "$nj" "$(kaldi_dir "$x")" || $lenient || {
      echo "error: $(kaldi_dir "$x"): mend these, or go on without the bad recordings by --lenient true" >&2; exit 1; }
    osum make_raw_list --data_dir "$(kaldi_dir "$x")" "$lists/$x/raw.list"
    if [ "$data_type" != raw ]; then
      osum make_shard_list --data_dir "$(kaldi_dir "$x")" --shard_type "$data_type" --num_threads "$nj" \
        --num_utts_per_shard "$num_utts_per_shard" "$lists/$x/shards" "$lists/$x/data.list"
    fi
  done
fi

if on 2 && ! $decode_only; then
  say 2 "tokenizer"
  osum train_tokenizer --data_list "$lists/train/raw.list" --vocab_size "$vocab_size" \
    --prompts "$prompts" --time_step "$time_step" --max_time "$max_time" --output "$dir/tokenizer.model"
fi

train() {  # CONFIG MODEL_DIR ...
  local config=$1 model_dir=$2; shift 2
  stoppable $launch wenet_osum.bin.train --config "$config" --model_dir "$model_dir" --data_type "$data_type" \
    --train_data ${train_data:-"$(data_list train)"} --cv_data "$(data_list dev)" --tensorboard_dir "$tensorboard_dir/$name" \
    --device "$device" --dtype "$dtype" --num_workers "$num_workers" --num_threads "$num_threads" \
    --train_engine "$train_engine" $(if [ "$train_engine" = deepspeed ]; then echo --deepspeed_config "$deepspeed_config"; fi) \
    --resume "$resume" --override_config "tokenizer_conf.model_path=$dir/tokenizer.model" \
    ${override:+--override_config "$override"} "$@"
}

if on 3 && ! $decode_only; then
  say 3 "stage 1: Whisper on all tasks"
  train "$stage1_config" "$dir/stage1"
fi

if on 4 && ! $decode_only; then
  say 4 "stage 2: encoder, adapter, LLM"
  train "$train_config" "$dir" --enc_init "$dir/stage1/final.pt" --enc_init_mods encoder.,ctc.
fi

if on 5 && ! $decode_only; then
  say 5 "average the last $average_num checkpoints"
  osum average_model --src_path "$dir" --dst_model "$dir/avg_$average_num.pt" --num "$average_num"
  decode_checkpoint=$dir/avg_$average_num.pt
elif [ -f "$dir/avg_$average_num.pt" ] && [ "$decode_checkpoint" = "$dir/final.pt" ]; then
  decode_checkpoint=$dir/avg_$average_num.pt
fi

result_dir=$dir/decode
if $decode_only; then result_dir=$dir/decode_$own; fi
if on 6; then
  say 6 "decode $tasks with $decode_checkpoint"
  labelled=--labelled_only
  if $decode_only; then labelled=; fi
  answers=$result_dir
  case $tasks in all|*,*) ;; *) answers=$result_dir/$tasks ;; esac  # for one task, recognize makes no folder of its name
  $launch wenet_osum.bin.recognize --config "$dir/train.yaml" --checkpoint "$decode_checkpoint" --test_data "$(data_list test)" \
    --data_type "$data_type" --task "$tasks" $labelled --modes $decode_modes --batch_size "$decode_batch" \
    --result_dir "$answers" --device "$device" --dtype "$dtype" --num_threads "$num_threads"
fi

if on 7 && $decode_only && [ ! -f "$data/text" ]; then
  say 7 "$data has no text to score against; the answers are in $result_dir"
elif on 7; then
  say 7 "score"
  scores=$dir/scores.json
  if $decode_only; then scores=$result_dir/scores.json; fi
  for mode in $decode_modes; do
    osum score --data "$lists/test/raw.list" --decode_dir "$result_dir" --mode "$mode" --output "$scores" \
      --normalizer "$normalizer" ${require:+--require "$require"}
  done
  say 7 "done: $scores and, with errors to look at and listen to, $(dirname "$scores")/report.html"
fi
