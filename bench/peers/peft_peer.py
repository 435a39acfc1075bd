"""A child process: peft on PyTorch, CPU: requests with an adapter each in one batch (`adapter_names`).

Takes the work of work.ts as its only argument and prints the answer as its last line."""

import json
import resource
import sys
import time

import peft
import torch
import transformers
from peft import PeftModel
from transformers import AutoModelForCausalLM

DTYPES = {"f32": torch.float32, "bf16": torch.bfloat16}


def main() -> None:
    work = json.loads(sys.argv[1])
    sizes = work["sizes"]
    torch.set_num_threads(sizes["threads"])
    began = time.perf_counter()
    base = AutoModelForCausalLM.from_pretrained(work["base"], dtype=DTYPES[work["format"]])
    names = [f"a{i}" for i in range(len(work["adapters"]))]
    model = PeftModel.from_pretrained(base, work["adapters"][0], adapter_name=names[0])
    for name, path in zip(names[1:], work["adapters"][1:]):
        model.load_adapter(path, adapter_name=name)
    # peft keeps adapters in f32 unless they are cast.
    model.to(DTYPES[work["format"]]).eval()
    load_ms = (time.perf_counter() - began) * 1000

    def run(tokens: int) -> float:
        prompts = torch.randint(300, base.config.vocab_size, (len(names), sizes["context"]))
        start = time.perf_counter()
        out = model.generate(
            input_ids=prompts,
            attention_mask=torch.ones_like(prompts),
            adapter_names=names,
            max_new_tokens=tokens,
            min_new_tokens=tokens,
            do_sample=False,
            pad_token_id=0,
        )
        seconds = time.perf_counter() - start
        assert out.shape[1] == sizes["context"] + tokens
        return len(names) * tokens / seconds

    with torch.inference_mode():
        run(2)
        speed = run(sizes["tokens"])
    sample = {"row": f"adapters/{len(names)}", "tokensPerSecond": speed, "way": "adapter_names in one batch"}
    facts = {
        "peft": peft.__version__,
        "torch": torch.__version__,
        "transformers": transformers.__version__,
        "instructions": torch.backends.cpu.get_cpu_capability(),
        "threads": torch.get_num_threads(),
        "kv": work["format"],
    }
    rss = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print("\n" + json.dumps({"samples": [sample], "loadMs": load_ms, "peakRssMib": rss, "facts": facts}))


main()
