"""Asks transformers (with compressed-tensors) what a folder computes.

logits FOLDER OUT ID...   f32 logits of every position, raw
products FOLDER OUT FILE  outputs of the linear layers that FILE (safetensors) has inputs for, one
                          after another in the order of their names; raw f32
embed FOLDER OUT          vectors of the lines of standard input, as sentence-transformers makes
                          them: mean over tokens, divided by its length; raw f32
"""

import sys

import torch
from safetensors.torch import load_file
from transformers import AutoModel, AutoModelForCausalLM, AutoTokenizer


def logits(folder, ids):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        return model(torch.tensor([ids])).logits[0]


def products(folder, file):
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32).eval()
    with torch.no_grad():
        model(torch.tensor([[0]]))  # the first run makes numbers of the codes
        given = sorted(load_file(file).items())
        return torch.cat([model.get_submodule(name)(x).flatten() for name, x in given])


def embed(folder, texts):
    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModel.from_pretrained(folder, dtype=torch.float32).eval()
    vectors = []
    for text in texts:
        inputs = tokenizer(text, return_tensors="pt", truncation=True, max_length=256)
        with torch.no_grad():
            hidden = model(**inputs).last_hidden_state[0]
        vectors.append(torch.nn.functional.normalize(hidden.mean(0), dim=0))
    return torch.stack(vectors)


command, folder, out = sys.argv[1:4]
if command == "logits":
    result = logits(folder, [int(id) for id in sys.argv[4:]])
elif command == "products":
    result = products(folder, sys.argv[4])
else:
    result = embed(folder, sys.stdin.read().splitlines())
result.float().contiguous().numpy().tofile(out)
