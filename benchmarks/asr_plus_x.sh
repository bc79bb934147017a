#!/usr/bin/env bash
# ASR+X against X alone (paper, section 2.3): does the transcript in front help the label?
# Both arms start from one encoder that has only learned to transcribe, as Whisper has, and train the
# same model, encoder and all, on the same utterances for the same number of steps; only the tasks' form
# differs.
# Needs the demo's data (run.sh --stop_stage 2). Usage: bash benchmarks/asr_plus_x.sh [EPOCHS]
set -euo pipefail
cd "$(dirname "$0")/../examples/osum"
. ./path.sh
export OMP_NUM_THREADS=1
epochs=${1:-2}
dir=exp/asr_plus_x
launch="torchrun --standalone --nproc_per_node 2 -m wenet_osum.bin.train --num_threads 1 --data_type shard
  --train_data data/tiny/train/data.list --cv_data data/tiny/dev/data.list
  --override_config tokenizer_conf.model_path=exp/tiny/tokenizer.model"

$launch --config conf/tiny_stage1.yaml --model_dir $dir/encoder --override_config "max_epoch=$epochs" \
  --override_config "dataset_conf.task_weights={asr: 1}"
arm() {  # NAME TASKS
  local weights; weights="{$(echo "$2" | sed 's/,/: 1, /g'): 1}"
  $launch --config conf/tiny.yaml --model_dir "$dir/$1" --enc_init $dir/encoder/final.pt \
    --override_config "max_epoch=$epochs" --override_config "model_conf.trainable=[encoder, adapter, llm]" \
    --override_config "dataset_conf.task_weights=$weights"
  for n in $(seq 0 $((epochs - 1))); do
    osum recognize --config "$dir/$1/train.yaml" --checkpoint "$dir/$1/epoch_$n.pt" --num_threads 2 \
      --test_data data/tiny/test/data.list --data_type shard --task "$2" --labelled_only --batch_size 32 \
      --modes llm_greedy --result_dir "$dir/$1/decode_$n"
    osum score --data data/tiny/test/raw.list --decode_dir "$dir/$1/decode_$n" --output "$dir/$1/scores_$n.json"
  done
}
arm with_transcript ved,ser,ssr,sgc,sap
arm label_alone ved_only,ser_only,ssr_only,sgc_only,sap_only
