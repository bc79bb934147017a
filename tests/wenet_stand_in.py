"""A package called ``wenet`` as small as can be, with the tables, names and calls that ours rely on.

Written to a folder by the tests that need one; the real one is used in ``tests/integration``.
"""

from __future__ import annotations

from pathlib import Path

FILES = {
    "__init__.py": "from wenet.cli import model\n",
    "cli/__init__.py": "",
    "cli/model.py": "from wenet.utils.init_model import init_model\n"
    "from wenet.utils.init_tokenizer import init_tokenizer\n",
    "bin/__init__.py": "",
    "bin/train.py": "from wenet.utils.init_tokenizer import init_tokenizer\nprint('trained')\n",
    "models/squeezeformer/conv2d.py": "",
    "utils/__init__.py": "",
    "utils/checkpoint.py": """
def load_checkpoint(model, path):
    return {'stock': path}

def save_state_dict_and_infos(state_dict, path, infos=None):
    return state_dict

def load_trained_modules(model, args):
    return {'stock': args.enc_init}
""",
    "utils/init_tokenizer.py": """
def init_tokenizer(configs):
    return ('stock tokenizer', configs['tokenizer'])
""",
    "utils/init_model.py": """
from wenet.utils.checkpoint import load_checkpoint, load_trained_modules

class StockCTC:
    pass

WENET_ENCODER_CLASSES = {'conformer': dict}
WENET_DECODER_CLASSES = {'transformer': dict}
WENET_CTC_CLASSES = {'ctc': StockCTC}
WENET_MODEL_CLASSES = {'asr_model': dict}

def init_speech_model(args, configs):
    if configs['model'] == 'asr_model':
        return {'ctc': WENET_CTC_CLASSES['ctc']}, configs
    encoder = WENET_ENCODER_CLASSES[configs['encoder']](
        configs['input_dim'], global_cmvn=None, **configs['encoder_conf'])
    decoder = WENET_DECODER_CLASSES[configs['decoder']](
        configs['output_dim'], encoder.output_size(), **configs['decoder_conf'])
    ctc = WENET_CTC_CLASSES[configs['ctc']](
        configs['output_dim'], encoder.output_size(), blank_id=configs['ctc_conf']['ctc_blank_id'])
    model = WENET_MODEL_CLASSES[configs['model']](
        vocab_size=configs['output_dim'], encoder=encoder, decoder=decoder, ctc=ctc,
        special_tokens=configs['tokenizer_conf']['special_tokens'], **configs['model_conf'])
    return model, configs

def init_model(args, configs):
    model, configs = init_speech_model(args, configs)
    infos = {}
    if getattr(args, 'checkpoint', None):
        infos = load_checkpoint(model, args.checkpoint)
    elif getattr(args, 'enc_init', None):
        infos = load_trained_modules(model, args)
    configs['init_infos'] = infos
    return model, configs
""",
    "utils/fsdp_utils.py": "WENET_ENCODER_LAYERS_CLASSES = {}\nWENET_DECODER_LAYERS_CLASSES = {}\n",
    "dataset/__init__.py": "",
    "dataset/processor.py": """
import torch

def tokenize(sample, tokenizer):
    raise AssertionError('the stock step')

def filter(sample, token_min_length=1, token_max_length=200):
    return token_min_length <= len(sample['label']) <= token_max_length

def detect_language(sample, limited_langs):
    return {**sample, 'lang': 'guessed'}

def detect_task(sample):
    return {**sample, 'task': 'transcribe'}

def padding(data):
    lengths = torch.tensor([x['feat'].size(0) for x in data], dtype=torch.int32)
    order = torch.argsort(lengths, descending=True)
    return {'keys': [data[i]['key'] for i in order],
            'tasks': [data[i]['task'] for i in order],
            'langs': [data[i]['lang'] for i in order]}
""",
    "dataset/dataset.py": """
from functools import partial
from wenet.dataset import processor

def Dataset(data_type, data_list_file, tokenizer=None, conf=None, partition=True):
    steps = [partial(processor.tokenize, tokenizer=tokenizer),
             partial(processor.detect_language, limited_langs=['zh', 'en']), processor.detect_task]
    keep, pad = partial(processor.filter, **conf['filter_conf']), processor.padding

    def run(samples):
        for step in steps:
            samples = [step(sample) for sample in samples]
        return pad([sample for sample in samples if keep(sample)])

    return run
""",
    "utils/init_dataset.py": """
from wenet.dataset.dataset import Dataset

def init_dataset(dataset_type, data_type, data_list_file, tokenizer=None, conf=None, partition=True, split='train'):
    assert dataset_type in ['asr', 'ssl']
    return Dataset(data_type, data_list_file, tokenizer, conf, partition)
""",
}


def write_wenet(folder: Path, **changes: str | None) -> Path:
    """Write the package below ``folder``; ``changes`` replace files (None leaves one out)."""
    for name, text in {**FILES, **changes}.items():
        if text is not None:
            path = folder / "wenet" / name
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(text, encoding="utf-8")
    return folder
